"""Keep spans in Parquet objects of a store: ``parquet:s3://bucket/prefix``.

The objects are named and sorted as the files of a folder are. The journals stay on this machine, so a
query sees a span once its batch is there. pyarrow reads the objects: of each, the columns and the row
groups that a query needs; DuckDB, which is locked, never goes there itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from llmops_core.errors import RetryableError, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.query import Filter, SpanQuery, check_selection
from llmops_core.query.arrow_filters import columns_of, plain_schema, row_filter
from llmops_core.query.duckdb_engine import Cancellation, DuckEngine, EngineError
from llmops_core.storable import storable
from llmops_core.storage.parquet.compaction import GRACE_SECONDS
from llmops_core.storage.parquet.files import RangeFile, day_of, file_name, is_readable
from llmops_core.storage.parquet.place import Place, PlaceUrl, store_errors
from llmops_core.storage.parquet.sources import CompactedFiles
from llmops_core.storage.parquet.writing import days_of, table_of, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.storage.parquet.mirror import RemoteCompactor, RemoteRewriter

__all__ = ["RemoteParquetStorage"]

_log: Final = logging.getLogger("llmops")
_T = TypeVar("_T")
_TRIES: Final = 4
_MOST_MOVES: Final = 50
#: What is read ahead, in row groups of up to 20,000 spans and in objects: it bounds the memory.
_READAHEAD: Final = 2


class RemoteParquetStorage:
    """Parquet objects below a prefix of a bucket. ``read_only`` is set by a reader before it opens.

    A batch is one sealed range of one writer and its object is named after the range, so writing it
    again changes nothing. Everything that goes over the network runs on helper threads.
    """

    batch_spans = 5_000
    batch_seconds = 30.0
    #: How long an object that was replaced is kept, for those who had listed it.
    grace_seconds = GRACE_SECONDS

    def __init__(self, url: PlaceUrl, *, read_only: bool = False) -> None:
        self.url = url
        self.read_only = read_only
        self._engine = DuckEngine()
        self._place: Place | None = None
        self._compacted: CompactedFiles | None = None
        self._lock = threading.Lock()
        self._unreadable: set[str] = set()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"<RemoteParquetStorage {self.url.place}>"

    def after_fork(self) -> None:
        """Connect anew, in a forked child: its parent's connections are not its own."""
        self._lock = threading.Lock()
        self._place = self._compacted = None

    @property
    def unreadable_files(self) -> int:
        """How many objects queries leave out because they cannot be read."""
        return len(self._unreadable)

    async def open(self) -> None:
        """Connect, and see whether the bucket is there.

        Raises ``RetryableError`` if the store does not answer, and ``StorageError`` if it refuses.
        """
        await self._aside(lambda: self._connected().check(read_only=self.read_only))

    async def write(self, batch: SpanBatch) -> None:
        """Write each day's spans as one object, unless that object is there already.

        Raises if not every object was written; what was written stays, and the next try skips it.
        """
        if self.read_only:
            raise StorageError("the storage was opened for reading", "expected a monitor to write")
        if len(batch):
            name = file_name(batch.writer_id, batch.first_seq, batch.last_seq)
            await self._aside(lambda: self._write(storable(batch), name))

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer a query over the objects that are there when it begins.

        An object that cannot be read is left out, logged once and counted in ``unreadable_files``.
        """
        cancellation = Cancellation()
        try:
            return await self._aside(lambda: self.answer(query, cancellation))
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    async def delete(self, query: SpanQuery) -> int:
        """Delete the spans that *query* selects: their objects are written anew, here, and sent.

        Takes as long as that, and eleven seconds more, until nobody reads the old objects. Raises
        ``RetryableError`` if somebody else changes objects below this prefix.
        """
        selection = check_selection(query)
        return await self._aside(lambda: self._rewriter().delete(selection))

    async def replace(self, batch: SpanBatch) -> int:
        """Rewrite stored spans, as :meth:`delete` deletes them."""
        return await self._aside(lambda: self._rewriter().replace(storable(batch)))

    def compactor(self, *, today: bool, grace_seconds: float) -> RemoteCompactor:
        """Return a compaction for ``llmops compact``. None runs by itself, as many machines write."""
        from llmops_core.storage.parquet.mirror import RemoteCompactor

        return RemoteCompactor(self._connected(), today=today, grace_seconds=grace_seconds)

    async def close(self) -> None:
        """Stop running queries and drop DuckDB's connection."""
        self._engine.close()

    def answer(self, query: SpanQuery, cancellation: Cancellation) -> pa.Table:
        """Answer a query. Blocks."""
        tries = moves = 0
        while True:
            files: list[RangeFile] = []
            try:
                files = self.visible(query.since)
                return self._engine.run_over(query, self._scan(files), cancellation)
            except (EngineError, OSError) as error:
                if moves < _MOST_MOVES and not self._all_there(files):
                    moves += 1
                    continue  # compacted or deleted since it was listed
                tries += 1
                bad = [] if tries == _TRIES else self._bad(files, error)
                if not bad:
                    raise
                for path in bad:
                    _log.warning("left out of queries, as it cannot be read: %s", path)
                self._unreadable.update(bad)

    def visible(self, since: int | None) -> list[RangeFile]:
        """Return the objects that together hold every span once."""
        while True:
            files = self._connected().list_files("" if since is None else day_of(since))
            sound = [f for f in files if f.path not in self._unreadable]
            try:
                return self._footers().visible(sound)
            except FileNotFoundError:
                continue  # compacted anew since it was listed

    def _connected(self) -> Place:
        with self._lock:
            if self._place is None:
                self._place = Place(self.url)
                self._compacted = CompactedFiles(self._place.filesystem, self._place.list_day)
            return self._place

    def _footers(self) -> CompactedFiles:
        self._connected()
        assert self._compacted is not None  # noqa: S101 - for the type checker
        return self._compacted

    async def _aside(self, work: Callable[[], _T]) -> _T:
        def run() -> _T:
            with store_errors(self.url.place):
                return work()

        try:
            return await asyncio.to_thread(run)
        except FileNotFoundError:
            raise RetryableError(f"an object below {self.url.place} is gone") from None

    def _write(self, batch: SpanBatch, name: str) -> None:
        import pyarrow as pa

        place = self._connected()
        for day, rows in sorted(days_of(batch).items()):
            path = place.path(day, name)
            # In this order: an object goes only after the compacted one that holds it has come.
            if place.exists(path):
                continue
            held = self._footers().held(Path(day), batch.writer_id)
            table = table_of(batch, rows, held)
            if table is not None:
                sink = pa.BufferOutputStream()
                write_parquet(table, sink)
                place.put(path, sink.getvalue())

    def _scan(self, files: Sequence[RangeFile]) -> Callable[[SpanQuery, Filter | None], Any]:
        import pyarrow.dataset as ds

        filesystem = self._connected().filesystem

        def scan(query: SpanQuery, bound: Filter | None) -> Any:
            names = columns_of(query)
            if not files:
                return plain_schema(names).empty_table()
            dataset = ds.dataset(
                [f.path for f in files],
                filesystem=filesystem,
                format="parquet",
                schema=plain_schema(names),
            )
            return dataset.scanner(
                columns=names,
                filter=row_filter(query, bound),
                batch_readahead=_READAHEAD,
                fragment_readahead=_READAHEAD,
            )

        return scan

    def _all_there(self, files: Sequence[RangeFile]) -> bool:
        place = self._connected()
        there = {f.path for day in {f.day for f in files} for f in place.list_day(Path(day))}
        return all(f.path in there for f in files)

    def _bad(self, files: Sequence[RangeFile], error: Exception) -> list[str]:
        """Return the objects that cannot be read: by their footers, else by reading all of them."""
        if isinstance(error, EngineError) and "stopped" in str(error):
            return []
        filesystem = self._connected().filesystem
        bad = [f.path for f in files if not is_readable(f.path, filesystem)]
        return bad or [f.path for f in files if not self._is_sound(f)]

    def _is_sound(self, file: RangeFile) -> bool:
        import pyarrow as pa

        try:
            for _ in self._scan([file])(SpanQuery(), None).to_batches():
                pass
        except (pa.ArrowException, OSError, ValueError):
            return False
        return True

    def _rewriter(self) -> RemoteRewriter:
        from llmops_core.storage.parquet.mirror import RemoteRewriter

        if self.read_only:
            raise StorageError("the storage was opened for reading", "expected one opened to write")
        return RemoteRewriter(
            self._connected(), self.visible, self.answer, grace_seconds=self.grace_seconds
        )
