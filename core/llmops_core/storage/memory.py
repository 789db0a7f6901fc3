"""Keep spans in memory, for tests and trials: ``memory:``."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from llmops_core.batch import spans_to_arrow
from llmops_core.errors import ConfigError
from llmops_core.forking import renew_after_fork
from llmops_core.hookspecs import hookimpl
from llmops_core.query import SpanQuery, check_selection
from llmops_core.query.duckdb_engine import Cancellation, DuckEngine
from llmops_core.schema import arrow_schema
from llmops_core.storable import storable

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = ["MemoryStorage"]

MAX_SPANS: Final = 1_000_000
_MOST_CHUNKS: Final = 64


class MemoryStorage:
    """Spans in a list, the oldest evicted past ``max_spans`` and counted in ``evicted``.

    Safe to use from any thread. Nothing is kept once the object is gone.
    """

    #: A journal would outlive what it is for.
    volatile = True

    def __init__(self, *, max_spans: int = MAX_SPANS) -> None:
        if max_spans < 1:
            raise ConfigError(f"a store of max_spans={max_spans}", "expected a number above 0")
        self.max_spans = max_spans
        self.evicted = 0
        self._lock = threading.Lock()
        self._rows: deque[Span] = deque()
        self._ids: set[str] = set()
        self._table: pa.Table | None = None  # the first rows, those that were converted
        self._engine = DuckEngine()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Take a new lock, in a forked child: a thread of the parent's may have held the old one."""
        self._lock = threading.Lock()

    @property
    def spans(self) -> list[Span]:
        """The spans in the order in which they were written."""
        with self._lock:
            return list(self._rows)

    async def open(self) -> None:
        """Do nothing: an object is ready once it is made."""

    async def write(self, batch: SpanBatch) -> None:
        """Add the spans whose ids are not there yet. Never blocks for long."""
        batch = storable(batch)
        with self._lock:
            for span in batch.rows:
                if span.span_id not in self._ids:
                    self._ids.add(span.span_id)
                    self._rows.append(span)
            self._evict()

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer a query on a helper thread, over the spans that are there when it begins."""
        cancellation = Cancellation()
        try:
            return await asyncio.to_thread(self._query, query, cancellation)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    async def delete(self, query: SpanQuery) -> int:
        """Delete the spans that *query* selects."""
        selection = msgspec.structs.replace(check_selection(query), columns=("span_id",))
        found = set((await self.query(selection))["span_id"].to_pylist())
        with self._lock:
            kept = [span for span in self._rows if span.span_id not in found]
            deleted = len(self._rows) - len(kept)
            self._ids -= found
            self._become(kept)
        return deleted

    async def replace(self, batch: SpanBatch) -> int:
        """Put the batch's spans in place of those with the same ids."""
        new = {span.span_id: span for span in storable(batch).rows}
        with self._lock:
            replaced = len(new.keys() & self._ids)
            if replaced:
                self._become([new.get(span.span_id, span) for span in self._rows])
        return replaced

    async def close(self) -> None:
        """Drop DuckDB's connection; ``spans`` can still be read."""
        self._engine.close()

    def _query(self, query: SpanQuery, cancellation: Cancellation) -> pa.Table:
        with self._lock:
            table = self._converted()
        return self._engine.run(query, table, cancellation=cancellation)

    def _become(self, rows: list[Span]) -> None:
        self._rows, self._table = deque(rows), None

    def _evict(self) -> None:
        excess = len(self._rows) - self.max_spans
        if excess <= 0:
            return
        for _ in range(excess):
            self._ids.discard(self._rows.popleft().span_id)
        self.evicted += excess
        if self._table is not None:
            self._table = self._table.slice(min(excess, self._table.num_rows))

    def _converted(self) -> pa.Table:
        """Return all rows as a table, converting only those that are new since the last query."""
        import pyarrow as pa

        table = arrow_schema().empty_table() if self._table is None else self._table
        if table.num_rows < len(self._rows):
            new = list(itertools.islice(self._rows, table.num_rows, None))
            table = pa.concat_tables([table, spans_to_arrow(new)])
            if table["span_id"].num_chunks > _MOST_CHUNKS:
                table = table.combine_chunks()
        self._table = table
        return table


def _make(url: str) -> MemoryStorage:
    if url.partition(":")[2].strip("/"):
        raise ConfigError(f"storage {url!r} has a path", "expected none", "write 'memory:'")
    return MemoryStorage()


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the storage; each URL makes a new store."""
    registry.storage("memory", _make)
