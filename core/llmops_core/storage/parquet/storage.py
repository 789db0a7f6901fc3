"""Keep spans in a folder of Parquet files: ``parquet:./llmops_data``.

The folder is yours: ``YYYY-MM-DD/events_*.parquet``, by the UTC date of a span's end, readable by
DuckDB, polars, pandas and all else. A query reads these files and, for what is in none of them yet,
the tails of the journals beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from llmops_core.errors import ConfigError, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.hookspecs import hookimpl
from llmops_core.query import SpanQuery, check_selection
from llmops_core.query.duckdb_engine import Cancellation, DuckEngine, UnreadableDataError
from llmops_core.storable import storable
from llmops_core.storage.parquet.files import (
    RangeFile,
    file_name,
    has_every_column,
    is_readable,
    list_files,
    make_folder,
    sweep_temporary,
    sync_folder,
    temporary_name,
)
from llmops_core.storage.parquet.lock import writing
from llmops_core.storage.parquet.sources import CompactedFiles, StoredRanges
from llmops_core.storage.parquet.tail import JournalTails
from llmops_core.storage.parquet.writing import days_of, table_of, write_parquet

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.protocols import Storage
    from llmops_core.storage.parquet.compaction import Compactor
    from llmops_core.storage.parquet.rewriting import Rewriter

__all__ = ["ParquetStorage"]

_log: Final = logging.getLogger("llmops")
_TRIES: Final = 4
_STORE: Final = re.compile(r"[a-z][a-z0-9+]*://")
#: How often a query starts again because a file was replaced by a compaction since it was listed.
_MOST_MOVES: Final = 50


class ParquetStorage:
    """Parquet files below one folder. ``read_only`` is set by a reader before it opens.

    A batch is one sealed range of one writer and its files are named after the range, so writing it
    again changes nothing. Files are whole from the moment that they are visible.
    """

    batch_spans = 5_000
    batch_seconds = 60.0

    def __init__(self, folder: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.journal_root = self.folder / ".journal"
        self.read_only = read_only
        self._engine = DuckEngine(self.folder)
        self._tails = JournalTails(self.journal_root)
        self._compacted = CompactedFiles()
        self._lock = threading.Lock()
        self._unreadable: dict[str, tuple[int, int]] = {}
        self._are_alike = True
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Take a new lock, in a forked child: a thread of the parent's may have held the old one."""
        self._lock = threading.Lock()

    @property
    def unreadable_files(self) -> int:
        """How many files queries leave out because they cannot be read."""
        return len(self._unreadable)

    async def open(self) -> None:
        """Create the folder (0700) and sweep what dead writers left half written.

        With ``read_only`` it changes nothing and raises ``StorageError`` if there is no folder.
        """
        if self.read_only:
            if not self.folder.is_dir():
                _check_no_file(self.folder)
                raise StorageError(
                    f"there is no folder {str(self.folder)!r}",
                    "expected one that a monitor has written",
                    "check the path of the storage URL",
                )
            return
        _check_writable(self.folder)
        try:
            make_folder(self.folder)
        except OSError as error:
            raise StorageError(
                f"folder {str(self.folder)!r} cannot be created: {error.strerror}",
                "expected a path that this user may create",
            ) from error
        sweep_temporary(self.folder, self.journal_root)

    async def write(self, batch: SpanBatch) -> None:
        """Write each day's spans as one file, unless that file is there already.

        Blocks for the disk (about 20 µs a span). Raises if not every file was written; what was
        written stays, and the next try skips it.
        """
        if self.read_only:
            raise StorageError("the storage was opened for reading", "expected a monitor to write")
        if not len(batch):
            return
        name = file_name(batch.writer_id, batch.first_seq, batch.last_seq)
        batch = storable(batch)
        days = days_of(batch)
        make_folder(self.folder)
        with writing(self.folder):
            for day, rows in sorted(days.items()):
                path = self.folder / day / name
                # In this order: a file goes only after the compacted one that holds it has come.
                if path.exists():
                    continue
                held = self._compacted.held(self.folder / day, batch.writer_id)
                table = table_of(batch, rows, held)
                if table is not None:
                    make_folder(path.parent)
                    _write_file(path, table)

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer a query over the files and the journals' tails.

        Runs on a helper thread, so the loop goes on; cancelling stops it. A file that cannot be
        read is left out, logged once and counted in ``unreadable_files``. Raises ``StorageError``
        if the query takes too long or too much memory.
        """
        cancellation = Cancellation()
        try:
            return await asyncio.to_thread(self._query, query, cancellation)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    async def delete(self, query: SpanQuery) -> int:
        """Delete the spans that *query* selects, in files and in the journals beside them.

        The files that hold one are written anew, so it takes as long as they are large, and a
        second more: for a moment a listing may still lead others to the old ones. Runs on a helper
        thread. Waits for a compaction, and raises ``RetryableError`` if that takes too long.
        """
        selection = check_selection(query)
        rewriter = self._rewriter()
        if not (await self.query(_any_of(selection))).num_rows:
            return 0
        return await asyncio.to_thread(rewriter.delete, selection)

    async def replace(self, batch: SpanBatch) -> int:
        """Rewrite stored spans, as :meth:`delete` deletes them: by files that replace files."""
        return await asyncio.to_thread(self._rewriter().replace, storable(batch))

    def _rewriter(self) -> Rewriter:
        from llmops_core.storage.parquet.rewriting import Rewriter

        if self.read_only:
            raise StorageError("the storage was opened for reading", "expected one opened to write")
        return Rewriter(self.folder, self._engine, self._source, self._compacted)

    def compaction(self) -> Compactor:
        """Return a compaction of closed days for the monitor to run when it is idle.

        Its steps are short, and it waits for many small files: what is asked for by name,
        ``llmops compact``, does more at once.
        """
        from llmops_core.storage.parquet.compaction import IDLE_LIMITS, Compactor

        return Compactor(self.folder, limits=IDLE_LIMITS)

    def compactor(self, *, today: bool, grace_seconds: float) -> Compactor:
        """Return a compaction for ``llmops compact``."""
        from llmops_core.storage.parquet.compaction import Compactor

        return Compactor(self.folder, today=today, grace_seconds=grace_seconds)

    async def close(self) -> None:
        """Stop running queries and drop DuckDB's connection."""
        self._engine.close()

    def _query(self, query: SpanQuery, cancellation: Cancellation) -> pa.Table:
        tries = moves = 0
        while True:
            paths: list[str] = []
            try:
                tail, files = self._source(query.since)
                paths = [f.path for f in files]
                return self._answer(query, tail, paths, cancellation)
            except (UnreadableDataError, FileNotFoundError) as error:
                gone = isinstance(error, FileNotFoundError)
                if moves < _MOST_MOVES and (gone or not all(map(os.path.exists, paths))):
                    moves += 1
                    continue  # compacted or deleted since it was listed
                tries += 1
                if gone or tries == _TRIES:
                    raise
                bad = [path for path in paths if not is_readable(path)]
                bad = bad or self._damaged(paths, cancellation)
                if not bad:
                    raise
                self._leave_out(bad)

    def _answer(
        self, query: SpanQuery, tail: pa.Table, paths: list[str], cancellation: Cancellation
    ) -> pa.Table:
        """Answer from files that are taken to have the same columns, until that was wrong."""
        # The newest is first, as what it has is taken to be what all have.
        ordered = paths[::-1]
        if self._are_alike and ordered and has_every_column(ordered[0]):
            with contextlib.suppress(UnreadableDataError):
                return self._engine.run(query, tail, ordered, cancellation, alike=True)
            table = self._engine.run(query, tail, paths, cancellation)
            self._are_alike = False
            return table
        return self._engine.run(query, tail, paths, cancellation)

    def _source(self, since: int | None) -> tuple[pa.Table, list[RangeFile]]:
        """Return the tail and the files that together hold every span once."""
        with self._lock:
            # In this order: a span on its way from a journal to a file is then in one of the two.
            self._tails.refresh()
            files = list_files(self.folder, since)
            tail = self._tails.table(StoredRanges(files, self._compacted))
            # A damaged file hides nothing: what it was made of may still be there.
            sound = [f for f in files if not self._is_left_out(f.path)]
            return tail, self._compacted.visible(sound)

    def _damaged(self, paths: Sequence[str], cancellation: Cancellation) -> list[str]:
        """Find, by halving, the files that are damaged behind a sound footer."""
        if not paths or self._engine.can_read(paths, cancellation):
            return []  # then it is the query that fails, and no file is to blame
        if len(paths) == 1:
            return list(paths)
        half = len(paths) // 2
        return [
            *self._damaged(paths[:half], cancellation),
            *self._damaged(paths[half:], cancellation),
        ]

    def _leave_out(self, paths: Sequence[str]) -> None:
        for path in paths:
            state = _state(path)
            if state is not None:
                _log.warning("left out of queries, as it cannot be read: %s", path)
                with self._lock:
                    self._unreadable[path] = state

    def _is_left_out(self, path: str) -> bool:
        known = self._unreadable.get(path)
        if known is None:
            return False
        if known == _state(path):
            return True
        del self._unreadable[path]  # repaired or replaced: read it again
        return False


def _any_of(selection: SpanQuery) -> SpanQuery:
    """Ask for one of the selected spans; by the way, files that cannot be read are left out."""
    return msgspec.structs.replace(selection, columns=("span_id",), limit=1)


def _state(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _check_no_file(path: Path) -> None:
    """Raise where a folder should be and something else is; readers and writers say the same."""
    if path.exists() and not path.is_dir():
        raise StorageError(
            f"{str(path)!r} is a file", "expected a folder for the spans", "choose another path"
        )


def _check_writable(folder: Path) -> None:
    """Raise unless the folder, or the nearest one above it that exists, can be written to."""
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    _check_no_file(nearest)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(
            f"folder {str(nearest)!r} is not writable",
            "expected write permission for this user",
            "choose another path, or change the permission",
        )


def _write_file(path: Path, table: pa.Table) -> None:
    """Write beside the final name, then rename: a reader sees the whole file or none."""
    import pyarrow as pa

    temporary = path.parent / temporary_name(path.name)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with pa.OSFile(str(temporary), "wb") as file:
            write_parquet(table, file)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _make(url: str) -> Storage:
    """Make the storage of ``parquet:./folder``, ``parquet:/folder`` or ``parquet:s3://bucket``."""
    path = url.partition(":")[2]
    if _STORE.match(path):
        from llmops_core.storage.parquet.place import PlaceUrl
        from llmops_core.storage.parquet.remote import RemoteParquetStorage

        return RemoteParquetStorage(PlaceUrl(path))
    if path.startswith("//"):
        path = path[2:]
        if not path.startswith("/"):
            raise ConfigError(
                f"storage {url!r} names a host", "expected a path", f"write 'parquet:./{path}'"
            )
    if not path.strip() or "\0" in path:
        raise ConfigError(
            f"storage {url!r} has no folder", "expected a path", "write 'parquet:./llmops_data'"
        )
    return ParquetStorage(path)


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the storage."""
    registry.storage("parquet", _make)
