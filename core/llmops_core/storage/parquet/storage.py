"""Keep spans in a folder of Parquet files: ``parquet:./llmops_data``.

The folder is yours: ``YYYY-MM-DD/events_*.parquet``, by the UTC date of a span's end, readable by
DuckDB, polars, pandas and all else. A query reads these files and, for what is in none of them yet,
the tails of the journals beside them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmops_core.errors import ConfigError, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.hookspecs import hookimpl
from llmops_core.journal.ranges import Ranges
from llmops_core.query import SpanQuery, check_selection
from llmops_core.query.duckdb_engine import Cancellation, DuckEngine, UnreadableDataError
from llmops_core.schema import COLUMNS
from llmops_core.storable import storable
from llmops_core.storage.parquet.files import (
    RangeFile,
    day_of,
    file_name,
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

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.storage.parquet.compaction import Compactor
    from llmops_core.storage.parquet.rewriting import Rewriter

__all__ = ["ParquetStorage", "write_options"]

_log: Final = logging.getLogger("llmops")
_FAMILY: Final = ("trace_id", "start_time")
_GROUP_ROWS: Final = 20_000
_GROUP_BYTES: Final = 256 * 1024 * 1024
_TRIES: Final = 4
#: How often a query starts again because a file was replaced by a compaction since it was listed.
_MOST_MOVES: Final = 50
# Few different values, so they are stored once a row group; and the keys of the two maps.
_REPEATED: Final = [
    *(c.name for c in COLUMNS if c.type == "enum"),
    *("trace_id", "parent_id", "agent_span_id", "session_id", "thread_id", "user_id", "project"),
    *("name", "agent", "target_agent", "error_type"),
    *("attributes.key_value.key", "measurements.key_value.key"),
]


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
        days = _days(batch)
        make_folder(self.folder)
        with writing(self.folder):
            for day, rows in sorted(days.items()):
                path = self.folder / day / name
                # In this order: a file goes only after the compacted one that holds it has come.
                if path.exists():
                    continue
                held = self._compacted.held(self.folder / day, batch.writer_id)
                kept = _without(batch, rows, held)
                if not len(kept):
                    continue
                whole = len(kept) == len(batch)
                table = batch.arrow if whole else batch.arrow.take(list(kept))
                make_folder(path.parent)
                _write_file(path, table.replace_schema_metadata(_metadata(batch, table)))

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
                return self._engine.run(query, tail, paths, cancellation)
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


def _days(batch: SpanBatch) -> dict[str, Sequence[int]]:
    """Return the places of the spans that end on each UTC day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = batch.column("end_time").cast(pa.int64())
    first, last = map(day_of, pc.min_max(ends).as_py().values())
    if first == last:
        return {first: range(len(batch))}
    days: dict[str, list[int]] = {}
    for at, end in enumerate(ends.to_pylist()):
        days.setdefault(day_of(end), []).append(at)
    return dict(days)


def _any_of(selection: SpanQuery) -> SpanQuery:
    """Ask for one of the selected spans; by the way, files that cannot be read are left out."""
    return msgspec.structs.replace(selection, columns=("span_id",), limit=1)


def _without(batch: SpanBatch, rows: Sequence[int], held: Ranges) -> Sequence[int]:
    """Leave out of the places *rows* those of spans that a compacted file speaks for."""
    if not len(held.within(batch.first_seq, batch.last_seq)):
        return rows
    seqs = batch.seqs()
    return [at for at in rows if (seqs[at] or 0) not in held]


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


def _metadata(batch: SpanBatch, table: pa.Table) -> dict[bytes | str, bytes | str]:
    """Return the file's notes: the schema's version and the range that it comes from."""
    source = f"{batch.writer_id}:{batch.first_seq}-{batch.last_seq}"
    return {**(table.schema.metadata or {}), "llmops.source": source}


def _write_file(path: Path, table: pa.Table) -> None:
    """Write beside the final name, then rename: a reader sees the whole file or none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    temporary = path.parent / temporary_name(path.name)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with (
            pa.OSFile(str(temporary), "wb") as file,
            pq.ParquetWriter(file, table.schema, **write_options(table.num_rows)) as writer,
        ):
            for group in _groups(table):
                writer.write_table(group, row_group_size=_GROUP_ROWS)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _groups(table: pa.Table) -> list[pa.Table]:
    """Cut into row groups in order of time, each sorted by trace: repeated histories compress."""
    average = max(1, table.nbytes // table.num_rows)
    rows = max(1, min(_GROUP_ROWS, _GROUP_BYTES // average))
    order = [(name, "ascending") for name in _FAMILY]
    return [table.slice(at, rows).sort_by(order) for at in range(0, table.num_rows, rows)]


def write_options(rows: int) -> dict[str, Any]:
    """Return how a file is written whose row groups have up to *rows* rows."""
    import pyarrow.parquet as pq

    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": _REPEATED,
        "data_page_size": 64 * 1024,
    }
    if "bloom_filter_options" in inspect.signature(pq.ParquetWriter.__init__).parameters:
        bloom = {"ndv": max(1, min(rows, _GROUP_ROWS)), "fpp": 0.01}
        options["bloom_filter_options"] = {"trace_id": bloom, "span_id": bloom}
    return options


def _make(url: str) -> ParquetStorage:
    """Make the storage of ``parquet:./folder``, ``parquet:/folder`` or ``parquet:///folder``."""
    path = url.partition(":")[2]
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
