"""Deletes and replaces spans of a folder, beside writers, readers and crashes.

As in a compaction, a file that holds such a span is written anew; the new file's footer names what
it replaces, and by the rename of the new one the old one is hidden. A span that waits in a journal is
spoken for by a file whose footer names its number: readers leave the journal's copy out, and so does
whoever writes its range later. Killed at any step, each span is there once, changed or not.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from llmops_core.errors import RetryableError, StorageError
from llmops_core.journal.ranges import Ranges
from llmops_core.query import Filter, SpanQuery, check_selection
from llmops_core.query.duckdb_engine import DuckEngine
from llmops_core.schema import arrow_schema
from llmops_core.storage.parquet.compaction import LEAST_GRACE_SECONDS, busy
from llmops_core.storage.parquet.files import (
    RangeFile,
    compacted_name,
    day_of,
    make_folder,
    sync_folder,
    temporary_name,
)
from llmops_core.storage.parquet.lock import CompactorLock, writing
from llmops_core.storage.parquet.merging import DamagedFile, complete, encoded, outline
from llmops_core.storage.parquet.sources import SOURCES_KEY, CompactedFiles, Sources, joined

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch

__all__ = ["Rewriter"]

#: How long it waits for a compaction, whose steps are short but which may have many.
LOCK_SECONDS: Final = 30.0
_FOUND: Final = ("span_id", "writer_id", "seq", "end_time")
Snapshot = Callable[[int | None], "tuple[pa.Table, list[RangeFile]]"]


class Rewriter:
    """Deletes or replaces spans, once. Blocks; *snapshot* gives the tail and the visible files.

    *alone* says that nobody else reads this folder.
    """

    def __init__(
        self,
        folder: Path,
        engine: DuckEngine,
        snapshot: Snapshot,
        compacted: CompactedFiles,
        *,
        alone: bool = False,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._snapshot = snapshot
        self._compacted = compacted
        self._grace = 0.0 if alone else LEAST_GRACE_SECONDS

    def delete(self, query: SpanQuery) -> int:
        """Delete what *query* selects; return how many spans that were."""
        return self._rewrite(check_selection(query), arrow_schema().empty_table())

    def replace(self, batch: SpanBatch) -> int:
        """Put the batch's spans in place of those with the same ids; return how many there were."""
        if not len(batch):
            return 0
        ids = tuple(dict.fromkeys(batch.values("span_id")))
        where = (Filter("span_id", "in", ids),)
        return self._rewrite(
            SpanQuery(where=where, since=min(batch.values("start_time"))), batch.arrow
        )

    def _rewrite(self, selection: SpanQuery, new: pa.Table) -> int:
        with self._locked():
            with writing(self._folder, alone=True):
                tail, files = self._snapshot(selection.since)
                count = self._speak_for(selection, tail, new)
            old: list[str] = []
            days = {day_of(end) for end in self._find(selection, [f.path for f in files])[1]}
            for file in files:
                if file.day in days:
                    rewritten = self._rewrite_file(selection, file, new)
                    count += rewritten
                    old += [file.path] if rewritten else []
            if old:
                # A listing that began before a new file came may still lead to the old one.
                time.sleep(self._grace)
            for path in old:
                Path(path).unlink(missing_ok=True)
            for folder in {Path(path).parent for path in old}:
                sync_folder(folder)
        return count

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock, deadline = CompactorLock(self._folder), time.monotonic() + LOCK_SECONDS
        while not lock.take():
            if time.monotonic() > deadline:
                raise RetryableError(*busy(self._folder))
        try:
            yield
        finally:
            lock.release()

    def _find(
        self, selection: SpanQuery, paths: Sequence[str], tail: pa.Table | None = None
    ) -> tuple[list[str], list[int], list[tuple[str, int]]]:
        """Return ids, ends, and places in the journals of what is selected."""
        import pyarrow as pa

        if tail is None:
            tail = arrow_schema().empty_table()
        query = msgspec.structs.replace(selection, columns=_FOUND)
        found = self._engine.run(query, tail, paths)
        ends = found["end_time"].cast(pa.int64()).to_pylist()
        places = zip(found["writer_id"].to_pylist(), found["seq"].to_pylist(), strict=True)
        return found["span_id"].to_pylist(), ends, list(places)

    def _speak_for(self, selection: SpanQuery, tail: pa.Table, new: pa.Table) -> int:
        """Take the place of selected spans that are in a journal only."""
        ids, ends, places = self._find(selection, (), tail)
        days: dict[str, list[int]] = {}
        for at, end in enumerate(ends):
            days.setdefault(day_of(end), []).append(at)
        for day, found in days.items():
            ranges: dict[str, Ranges] = {}
            for writer, seq in (places[at] for at in found):
                ranges.setdefault(writer, Ranges()).add(seq, seq)
            rows = _of_ids(new, [ids[at] for at in found])
            self._appear(day, Sources(ranges, frozenset()), [rows])
        return len(ids)

    def _rewrite_file(self, selection: SpanQuery, file: RangeFile, new: pa.Table) -> int:
        """Write a file anew without, or with other, selected spans; return how many it had."""
        ids = self._find(selection, [file.path])[0]
        if not ids:
            return 0
        read = outline(file.path)
        if isinstance(read, str):
            raise StorageError(
                f"file {file.path!r} is {read}", "expected one that this version can write anew"
            )
        of_file = self._compacted.sources(file.path) if file.compacted else None
        if file.compacted and of_file is None:
            raise StorageError(f"file {file.path!r} does not say what it was made of")
        made_of = joined([file], [] if of_file is None else [of_file])
        self._appear(file.day, made_of, _groups(file.path, len(read.groups), ids, new))
        return len(ids)

    def _appear(
        self, day: str, made_of: Sources, groups: Sequence[pa.Table] | Iterator[pa.Table]
    ) -> None:
        """Write a compacted file of *groups*, and let it appear by one rename."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from llmops_core.storage.parquet.writing import write_options

        folder = self._folder / day
        make_folder(folder)
        path = folder / compacted_name()
        temporary = folder / temporary_name(path.name)
        schema = arrow_schema()
        schema = schema.with_metadata({**(schema.metadata or {}), SOURCES_KEY: made_of.encode()})
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with (
                pa.OSFile(str(temporary), "wb") as file,
                pq.ParquetWriter(file, schema, **write_options(20_000)) as writer,
            ):
                for group in groups:
                    if group.num_rows:
                        writer.write_table(group.replace_schema_metadata(schema.metadata))
            with temporary.open("rb") as done:
                os.fsync(done.fileno())
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(folder)


def _groups(path: str, count: int, ids: Sequence[str], new: pa.Table) -> Iterator[pa.Table]:
    """Yield the row groups of a file without the spans *ids*, but with those of them in *new*."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    chosen = pa.array(ids, pa.string())
    with pq.ParquetFile(path) as file:
        for number in range(count):
            try:
                table = file.read_row_group(number, use_threads=False)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise DamagedFile(path) from error
            table = _whole(table, path)
            gone = pc.is_in(table["span_id"], value_set=chosen)
            if not pc.any(gone).as_py():
                yield table
                continue
            added = _of_ids(new, table["span_id"].filter(gone).to_pylist())
            table = pa.concat_tables([table.filter(pc.invert(gone)), added])
            yield table.sort_by([("trace_id", "ascending"), ("start_time", "ascending")])


def _whole(table: pa.Table, path: str) -> pa.Table:
    """Return rows of a file with every column of the schema, in its types."""
    import pyarrow as pa

    plain = complete(table, pa.array(range(table.num_rows), pa.int64()), path)
    columns = [encoded(plain[f.name], f.type) for f in arrow_schema()]
    return pa.Table.from_arrays(columns, schema=arrow_schema())


def _of_ids(table: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Return the rows of some spans, each once."""
    import pyarrow as pa

    if not table.num_rows:
        return table
    at = {span_id: place for place, span_id in enumerate(table["span_id"].to_pylist())}
    places = [at[span_id] for span_id in ids if span_id in at]
    return table.take(pa.array(places, pa.int64()))
