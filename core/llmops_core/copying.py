"""Copy spans from one storage to another: ``llmops copy``.

The source is read in order of time, first the ids alone. What the target has already is not read any
further, so a copy that was interrupted goes on where it stopped when it is run again. Each span is
written at most once, by its id, whatever the target's own way of being idempotent is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmops_core.batch import SpanBatch, spans_from_arrow
from llmops_core.errors import PermanentError, RetryableError
from llmops_core.journal.writer import new_writer_id
from llmops_core.protocols import Storage
from llmops_core.query import Filter, Order, SpanQuery

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.span import Span

__all__ = ["CopyReport", "copy_spans"]

#: Ids that are read at once, ids that the target is asked for at once, and bytes of spans that are
#: held at once, by what is known of their size.
PAGE_IDS: Final = 10_000
ASKED_IDS: Final = 1_000
HELD_BYTES: Final = 16 * 1024 * 1024
BATCH_SPANS: Final = 500
#: What a span takes beside its texts, about; and one whose size nobody has measured.
_SPAN_BYTES: Final = 2_048
_UNKNOWN_BYTES: Final = 16_384
#: Attempts of a write while the target cannot take it, and the longest pause between two.
ATTEMPTS: Final = 6
LAST_PAUSE_SECONDS: Final = 10.0
_MOST_REFUSED: Final = 20


class CopyReport(msgspec.Struct):
    """What was copied so far. ``refused`` tells of the first spans that the target refuses."""

    spans: int = 0
    copied: int = 0
    already_there: int = 0
    refused_spans: int = 0
    refused: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def seen(self) -> int:
        """How many of the source's spans were looked at."""
        return self.copied + self.already_there + self.refused_spans


class _Key(msgspec.Struct, frozen=True):
    """A span of the source that is to be copied."""

    span_id: str
    start_time: int
    bytes: int


async def copy_spans(
    source: Storage,
    target: Storage,
    *,
    since: int | None = None,
    until: int | None = None,
    told: Callable[[CopyReport], None] = lambda report: None,
) -> CopyReport:
    """Copy the spans of *source* that *target* lacks; both are open. Call *told* now and then.

    Spans that the source gets meanwhile, with an earlier start, are for the next run. Raises what
    the storages raise; what was written until then stays. A span that the target refuses is left
    out and told in the report.
    """
    copy = _Copy(source, target, told)
    selection = SpanQuery(since=since, until=until)
    counted = await source.query(SpanQuery.build(since=since, until=until, aggregates=["count"]))
    copy.report.spans = counted["count"][0].as_py()
    query: SpanQuery | None = msgspec.structs.replace(
        selection,
        columns=("span_id", "input_bytes", "output_bytes"),
        order=(Order("start_time"),),
        limit=PAGE_IDS,
    )
    while query is not None:
        page = await source.query(query)
        keys = _keys(page)
        for at in range(0, len(keys), ASKED_IDS):
            await copy.take(keys[at : at + ASKED_IDS])
        query = query.next_page(page)
    await copy.flush()
    return copy.report


class _Copy:
    """One run: what waits to be written, and the report."""

    def __init__(
        self, source: Storage, target: Storage, told: Callable[[CopyReport], None]
    ) -> None:
        self.report = CopyReport()
        self._source = source
        self._target = target
        self._told = told
        self._batch_spans = int(getattr(target, "batch_spans", BATCH_SPANS))
        # A writer of its own: the ranges of the source's writers are not this target's.
        self._writer_id = new_writer_id()
        self._seq = 0
        self._held: list[Span] = []
        self._bytes = 0

    async def take(self, keys: Sequence[_Key]) -> None:
        """Read and hold what the target lacks of some spans; write what is held once it is enough."""
        there = await self._ids_there(keys)
        self.report.already_there += len(there)
        for some in _within(HELD_BYTES, [key for key in keys if key.span_id not in there]):
            size = sum(key.bytes for key in some)
            if self._bytes + size > HELD_BYTES:
                await self.flush()
            found = await self._source.query(_selected(some))
            self._held += await asyncio.to_thread(spans_from_arrow, found)
            self._bytes += size
            if len(self._held) >= self._batch_spans:
                await self.flush()
        self._told(self.report)

    async def flush(self) -> None:
        """Write what is held."""
        spans, self._held, self._bytes = self._held, [], 0
        for at in range(0, len(spans), self._batch_spans):
            await self._write(spans[at : at + self._batch_spans])
            self._told(self.report)

    async def _ids_there(self, keys: Sequence[_Key]) -> set[str]:
        query = msgspec.structs.replace(_selected(keys), columns=("span_id",))
        return set((await self._target.query(query))["span_id"].to_pylist())

    async def _write(self, spans: list[Span]) -> None:
        first, self._seq = self._seq + 1, self._seq + len(spans)
        batch = SpanBatch(spans, writer_id=self._writer_id, first_seq=first, last_seq=self._seq)
        try:
            await self._try(batch)
        except PermanentError as error:
            if len(spans) == 1:
                self._refuse(spans[0], error)
                return
            at = len(spans) // 2 if error.place is None else error.place or 1
            at = min(at, len(spans) - 1)
            await self._write(spans[:at])
            await self._write(spans[at:])
            return
        self.report.copied += len(spans)

    async def _try(self, batch: SpanBatch) -> None:
        """Write, and wait a little where the target cannot take it now."""
        for attempt in range(ATTEMPTS):
            try:
                await self._target.write(batch)
            except RetryableError:
                if attempt == ATTEMPTS - 1:
                    raise
                pause = min(0.2 * 3**attempt, LAST_PAUSE_SECONDS)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            else:
                return

    def _refuse(self, span: Span, error: PermanentError) -> None:
        self.report.refused_spans += 1
        if len(self.report.refused) < _MOST_REFUSED:
            self.report.refused[span.span_id] = error.found


def _keys(page: pa.Table) -> list[_Key]:
    import pyarrow as pa

    starts = page["start_time"].cast(pa.int64()).to_pylist()
    names = ("span_id", "input_bytes", "output_bytes")
    columns = [page[name].to_pylist() for name in names]
    return [
        _Key(span_id, start, _size(read, written))
        for span_id, start, read, written in zip(columns[0], starts, *columns[1:], strict=True)
    ]


def _size(read: int | None, written: int | None) -> int:
    if read is None and written is None:
        return _UNKNOWN_BYTES
    return _SPAN_BYTES + (read or 0) + (written or 0)


def _within(most: int, keys: Sequence[_Key]) -> Iterator[list[_Key]]:
    """Cut into lists of at most so many bytes, of one span at least."""
    some: list[_Key] = []
    size = 0
    for key in keys:
        if some and size + key.bytes > most:
            yield some
            some, size = [], 0
        some.append(key)
        size += key.bytes
    if some:
        yield some


def _selected(keys: Sequence[_Key]) -> SpanQuery:
    """Return the query of these spans; the time range lets a storage look at few others."""
    starts = [key.start_time for key in keys]
    ids: tuple[Any, ...] = tuple(key.span_id for key in keys)
    return SpanQuery(
        where=(Filter("span_id", "in", ids), Filter("start_time", "<=", max(starts))),
        since=min(starts),
        order=(Order("start_time"),),
    )
