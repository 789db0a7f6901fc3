"""The files of a Parquet folder: their names, which of them to read, and what is left over.

A file ``<folder>/YYYY-MM-DD/events_<writer>_<first>-<last>.parquet`` holds the spans of one sealed
range that ended on that UTC day, ``events_compacted_<id>.parquet`` those of many ranges. Anything
else in the folder is somebody else's and stays unread.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from llmops_core.errors import StorageError
from llmops_core.journal.lock import is_locked
from llmops_core.schema import COLUMN_NAMES, COLUMNS, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

__all__ = [
    "ALONE_NAME",
    "LOCK_NAME",
    "RangeFile",
    "compacted_name",
    "day_of",
    "days",
    "file_name",
    "has_every_column",
    "is_day",
    "is_readable",
    "list_day",
    "list_files",
    "make_folder",
    "named_files",
    "sweep_compacted",
    "sweep_temporary",
    "sync_folder",
    "temporary_name",
]

_NAME: Final = re.compile(r"events_([0-9a-z]+)_([0-9]+)-([0-9]+)\.parquet")
_COMPACTED: Final = re.compile(r"events_compacted_[0-9a-f]{19}\.parquet")
_TEMPORARY: Final = re.compile(r"\.events_([0-9a-z]+)_[0-9]+-[0-9]+\.[0-9a-f]+\.parquet\.tmp")
_COMPACTED_TEMPORARY: Final = re.compile(r"\.events_compacted_[0-9a-f]{19}\.\w+\.parquet\.tmp")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WRITER: Final = re.compile(r"[0-9a-z]+")
_EPOCH: Final = dt.date(1970, 1, 1)
_DAY_MICROS: Final = 86_400_000_000
_STALE_SECONDS: Final = 600
#: Held by the one process that compacts a folder.
LOCK_NAME: Final = ".compacting"
#: Held by whoever deletes or replaces and waits until nobody writes.
ALONE_NAME: Final = ".deleting"
# Far below the grace that replaced files are given.
_SLOW_SCAN_SECONDS: Final = 0.5

# What a footer may promise before it is believed: a megabyte can expand to ten gigabytes.
_MAX_COLUMNS: Final = 1_000
_MAX_ROWS: Final = 50_000_000
_MAX_GROUP_BYTES: Final = 4 * 1024**3


class RangeFile(NamedTuple):
    """One file, by what its name and folder say; a compacted one has no range in its name."""

    path: str
    day: str
    writer: str
    first: int
    last: int

    @property
    def compacted(self) -> bool:
        """Whether it holds many ranges, which its footer names."""
        return self.first == 0


def day_of(micros: int) -> str:
    """Return the folder of a span that ends at *micros*: its UTC date."""
    return _folder_name(max(-719_162, min(2_932_896, micros // _DAY_MICROS)))  # years 1 to 9999


@functools.lru_cache(maxsize=64)
def _folder_name(days: int) -> str:
    return (_EPOCH + dt.timedelta(days=days)).isoformat()


def file_name(writer: str, first: int, last: int) -> str:
    """Return the name of a sealed range. Raise ``StorageError`` if it is not one."""
    if not _WRITER.fullmatch(writer) or not 0 < first <= last:
        raise StorageError(
            f"a batch of writer {writer!r} from {first} to {last}",
            "expected a writer id of lowercase letters and digits, and a range that starts at 1",
            "write batches as a journal seals them: the range makes a replay harmless",
        )
    return f"events_{writer}_{first}-{last}.parquet"


def temporary_name(name: str) -> str:
    """Return a name that no Parquet reader looks at: a leading dot and another suffix."""
    return f".{name.removesuffix('.parquet')}.{secrets.token_hex(4)}.parquet.tmp"


def compacted_name() -> str:
    """Return a new name for a compacted file; names sort by time."""
    return f"events_compacted_{time.time_ns() // 1_000_000:011x}{secrets.token_hex(4)}.parquet"


def is_day(name: str) -> bool:
    """Whether a folder of that name holds the spans of a day."""
    return _DAY.fullmatch(name) is not None


def days(folder: Path) -> list[str]:
    """Return the names of the day folders, oldest first."""
    found = (e.name for e in _entries(folder) if e.is_dir(follow_symlinks=False))
    return sorted(filter(_DAY.fullmatch, found))


def list_files(folder: Path, since: int | None = None) -> list[RangeFile]:
    """Return the files of the folder, without the days before *since*.

    A span's day is that of its end, which is never before its start, so days before *since* hold
    nothing that starts at or after it. Files that a compacted one replaces are among them.
    """
    first_day = "" if since is None else day_of(since)
    found = []
    for day in days(folder):
        if day >= first_day:
            found += list_day(folder / day)
    return found


def list_day(folder: Path) -> list[RangeFile]:
    """Return the files of one day; of a large one, some that have just gone may be among them.

    A listing is no snapshot: one that takes longer than replaced files are kept could miss a
    compacted file that appeared and the files that went for it. Then it is made again, once. If
    somebody may have deleted files during that one too, it counts with the first: what went during
    the second was there during the first (what had just come is hardly ever merged so soon). Whoever
    reads one that has gone lists again.
    """
    paths, slow = _listed(folder)
    if slow:
        before, earlier = _changes(folder), paths
        paths, slow = _listed(folder)
        if slow and _may_have_lost_files(before, _changes(folder)):
            paths = list({*earlier, *paths})
    return named_files(paths, folder.name)


def _listed(folder: Path) -> tuple[list[str], bool]:
    """Return the paths of a folder's files, and whether that took long."""
    began = time.monotonic()
    # No links: what they point to may lie outside of the folder.
    paths = [e.path for e in _entries(folder) if e.is_file(follow_symlinks=False)]
    return paths, time.monotonic() - began >= _SLOW_SCAN_SECONDS


class _Changes(NamedTuple):
    """When a day's folder changed, whether somebody works on it, and when somebody last began to."""

    changed: int
    compacting: bool
    began: int


def _changes(folder: Path) -> _Changes:
    lock = folder.parent / LOCK_NAME
    try:
        compacting = is_locked(lock)
    except FileNotFoundError:
        compacting = False
    except OSError:
        compacting = True  # nothing is known
    return _Changes(_changed(folder), compacting, _changed(lock))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _may_have_lost_files(before: _Changes, after: _Changes) -> bool:
    """Whether files may have been deleted in between: only with the compactor's lock held."""
    if before.changed == after.changed:
        return False
    return before.compacting or after.compacting or before.began != after.began


def named_files(paths: Iterable[str], day: str) -> list[RangeFile]:
    """Return those of the paths of one day that are named as ours, in order."""
    found = []
    for path in paths:
        name = path.rpartition("/")[2]
        match = _NAME.fullmatch(name)
        if match:
            writer, first, last = match.groups()
            found.append(RangeFile(path, day, writer, int(first), int(last)))
        elif _COMPACTED.fullmatch(name):
            found.append(RangeFile(path, day, "compacted", 0, 0))
    return sorted(found, key=lambda f: (f.writer, f.first, f.path))


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each for the owner alone (0700)."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def sweep_temporary(folder: Path, journal_root: Path) -> int:
    """Remove files that a writer began and cannot finish; return how many.

    A file goes if its writer is dead, which shows in that nobody holds the lock of its journal (or
    the compactor's lock), or if it is older than any write takes.
    """
    swept = 0
    for day in days(folder):
        for entry in _entries(folder / day):
            if _is_left_over(entry, folder, journal_root):
                with contextlib.suppress(FileNotFoundError):  # another process sweeps too
                    Path(entry.path).unlink()
                    swept += 1
    return swept


def _is_left_over(entry: os.DirEntry[str], folder: Path, journal_root: Path) -> bool:
    if _COMPACTED_TEMPORARY.fullmatch(entry.name):
        return _dead(folder / LOCK_NAME)
    match = _TEMPORARY.fullmatch(entry.name)
    return bool(match and (_stale(entry) or _dead(journal_root / match[1] / "lock")))


def sweep_compacted(folder: Path) -> int:
    """Remove what a compactor left half written in one day. Only with the compactor's lock held."""
    swept = 0
    for entry in _entries(folder):
        if _COMPACTED_TEMPORARY.fullmatch(entry.name):
            Path(entry.path).unlink(missing_ok=True)
            swept += 1
    return swept


def is_readable(path: str, filesystem: fs.FileSystem | None = None) -> bool:
    """Whether a file's footer can be read, is within limits and has our columns' types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path, filesystem=filesystem)
        if metadata.num_columns > _MAX_COLUMNS or metadata.num_rows > _MAX_ROWS:
            return False
        groups = (metadata.row_group(i) for i in range(metadata.num_row_groups))
        if any(g.total_byte_size > _MAX_GROUP_BYTES for g in groups):
            return False
        return _fits(metadata.schema.to_arrow_schema())
    except (pa.ArrowException, OSError, ValueError):
        return False


def has_every_column(path: str) -> bool:
    """Whether a file's footer can be read and names every column of the schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(path).names)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return False
    return names.issuperset(COLUMN_NAMES)


def _fits(schema: pa.Schema) -> bool:
    """Whether required columns are there and those that are known have the expected types."""
    for column in COLUMNS:
        position = schema.get_field_index(column.name)
        if position < 0:
            if not column.nullable:
                return False
            continue
        if not _alike(schema.field(position).type, arrow_schema().field(column.name).type):
            return False
    return True


def _alike(found: pa.DataType, expected: pa.DataType) -> bool:
    """Compare types as a query sees them: a dictionary is its values, a list its items."""
    import pyarrow as pa

    if pa.types.is_dictionary(expected):
        expected = expected.value_type
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_map(expected) and pa.types.is_map(found):
        expected, found = expected.item_type, found.item_type
    elif pa.types.is_list(expected) and pa.types.is_list(found):
        expected, found = expected.value_type, found.value_type
    elif pa.types.is_timestamp(expected) and pa.types.is_timestamp(found):
        return True
    return bool(found == expected)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return  # removed since it was listed


def _stale(entry: os.DirEntry[str]) -> bool:
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS
    except FileNotFoundError:
        return False


def _dead(lock: Path) -> bool:
    """Whether a writer's lock is there and nobody holds it. Without a lock nothing is known."""
    try:
        return not is_locked(lock)
    except OSError:
        return False


def sync_folder(folder: Path) -> None:
    """Make a folder's entries survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
