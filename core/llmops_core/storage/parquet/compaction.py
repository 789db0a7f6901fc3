"""Turns the many small files of closed days into few large ones, beside writers and readers.

A merged file appears by one rename, and its footer names the ranges it holds: from that moment our
readers see it and leave out what it replaces, and a recovery finds its ranges stored. The files that
it replaces are kept for a grace period, for readers that had listed them, and then deleted. Killed
at any step, a compaction leaves the folder readable; the next one cleans up.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from llmops_core.errors import StorageError
from llmops_core.storage.parquet.files import (
    RangeFile,
    compacted_name,
    days,
    list_day,
    sweep_compacted,
    sync_folder,
    temporary_name,
)
from llmops_core.storage.parquet.lock import CompactorLock, owner
from llmops_core.storage.parquet.merging import DamagedFile, Outline, merge, outline
from llmops_core.storage.parquet.sources import SOURCES_KEY, CompactedFiles, Sources, joined

__all__ = [
    "GRACE_SECONDS",
    "IDLE_LIMITS",
    "CompactionReport",
    "Compactor",
    "Limits",
    "busy",
    "small_files",
]

#: How long replaced files are kept. A listing takes far less, and a query that meets a file that is
#: gone starts again.
GRACE_SECONDS: Final = 10.0
LEAST_GRACE_SECONDS: Final = 1.0
#: A day that nothing was added to for so long is closed, whatever its date.
CLOSED_SECONDS: Final = 3600.0
MEGABYTE: Final = 1024 * 1024
_STEP_SECONDS: Final = 0.02


class Limits(msgspec.Struct, frozen=True):
    """How large things become. A merged file is smaller than each of the first three."""

    file_bytes: int = 128 * MEGABYTE
    file_rows: int = 1_000_000
    #: As it is in memory; it is read once for each piece in the worst case.
    memory_bytes: int = 1024 * MEGABYTE
    #: What is held in memory at once, about.
    piece_bytes: int = 64 * MEGABYTE
    #: A day with fewer files is left as it is.
    least_files: int = 2


#: In a monitor that is idle: short steps, and only where it is worth it.
IDLE_LIMITS: Final = Limits(
    file_rows=200_000, memory_bytes=256 * MEGABYTE, piece_bytes=8 * MEGABYTE, least_files=8
)


class CompactionReport(msgspec.Struct):
    """What a compaction did."""

    days: int = 0
    files_before: int = 0
    files_after: int = 0
    spans: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    #: Replaced files that were deleted, and temporary files of a compactor that had died.
    deleted: int = 0
    swept: int = 0
    #: Files that stay as they are, by reason: ``newer``, ``damaged``.
    left_alone: dict[str, int] = msgspec.field(default_factory=dict)
    failed: list[str] = msgspec.field(default_factory=list)


class Compactor:
    """One compaction of a folder. Run it with :meth:`run`, or a step at a time with :meth:`steps`.

    *alone* says that nobody else reads this folder, so nothing has to be kept for a while.
    """

    def __init__(
        self,
        folder: Path,
        *,
        today: bool = False,
        grace_seconds: float = GRACE_SECONDS,
        closed_seconds: float = CLOSED_SECONDS,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        alone: bool = False,
    ) -> None:
        self.folder = folder
        self.report = CompactionReport()
        self._today = today
        self._grace = 0.0 if alone else max(LEAST_GRACE_SECONDS, grace_seconds)
        self._closed_seconds = closed_seconds
        self._limits = limits
        self._lock = CompactorLock(folder)
        self._compacted = CompactedFiles()
        self._replaced: list[tuple[float, list[str]]] = []
        self._pid = os.getpid()
        self._finishing = False

    def run(self) -> CompactionReport:
        """Compact until nothing is left to do. Raises ``StorageError`` if another one works."""
        for wait in self.steps():
            if wait:
                time.sleep(wait)
        return self.report

    def steps(self) -> Iterator[float]:
        """Do the work in short steps; each yields the seconds to wait before the next.

        Close the iterator to stop: what was begun is removed, what is done stays. Raises
        ``StorageError`` at once if another compactor works in this folder.
        """
        if not self._lock.take():
            raise StorageError(*busy(self.folder))
        try:
            for day in days(self.folder):
                if self._finishing:
                    break
                self.report.swept += sweep_compacted(self.folder / day)
                yield from self._clean(day)
                if self._is_closed(day):
                    yield from self._compact(day)
                yield from self._delete(wait=False)
            yield from self._delete(wait=True)
        finally:
            if os.getpid() == self._pid:
                self._lock.release()
            else:
                self._lock.forget()  # a forked child threw the iterator away

    def finish(self) -> None:
        """Merge no more: the steps that are left delete what was replaced, and end.

        Until that is deleted, whoever reads the files by themselves counts its spans twice.
        """
        self._finishing = True

    def _is_closed(self, day: str) -> bool:
        return self._today or is_closed(self.folder / day, self._closed_seconds)

    def _clean(self, day: str) -> Iterator[float]:
        """Note for deletion what an earlier compaction replaced and did not live to delete."""
        files = list_day(self.folder / day)
        try:
            seen = {f.path for f in self._compacted.visible(files)}
        except FileNotFoundError:
            return  # the day is being deleted
        hidden = [f.path for f in files if f.path not in seen]
        if hidden:
            self._replaced.append((_newest(files) + self._grace, hidden))
        yield 0.0

    def _compact(self, day: str) -> Iterator[float]:
        before = self.report.spans
        excluded: set[str] = set()
        try:
            visible = self._compacted.visible(list_day(self.folder / day))
            files = {f.path: f for f in visible if self._is_told(f)}
            found: list[Outline] = []
            yield from self._outlines(list(files), found)
            groups = self._groups(found)
            while groups and not self._finishing:
                group = [o for o in groups.pop(0) if o.path not in excluded]
                if len(group) < 2:
                    continue
                try:
                    yield from self._merge(day, group, files)
                except DamagedFile as damaged:
                    excluded.add(damaged.path)
                    self._leave_alone("damaged")
                    groups.insert(0, group)
        except FileNotFoundError:
            pass  # the day, or a file of it, is being deleted: whoever does that knows why
        except Exception as error:  # told in the report; the other days are not its fault
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else ""
            self.report.failed.append(f"{day}: {type(error).__name__} {reason}".strip())
        self.report.days += self.report.spans > before

    def _is_told(self, file: RangeFile) -> bool:
        """Whether it is known what a file was made of; a damaged note does not say."""
        told = not file.compacted or self._compacted.sources(file.path) is not None
        if not told:
            self._leave_alone("damaged")
        return told

    def _outlines(self, paths: list[str], found: list[Outline]) -> Iterator[float]:
        began = time.monotonic()
        for path in paths:
            read = outline(path)
            if isinstance(read, Outline):
                found.append(read)
            else:
                self._leave_alone(read)
            if time.monotonic() - began > _STEP_SECONDS:
                yield 0.0
                began = time.monotonic()
            if self._finishing:
                return

    def _leave_alone(self, reason: str) -> None:
        self.report.left_alone[reason] = self.report.left_alone.get(reason, 0) + 1

    def _groups(self, found: list[Outline]) -> list[list[Outline]]:
        """Choose what is merged: small files, neighbours in time, as many as a file may hold."""
        limits = self._limits
        small = [o for o in found if o.bytes < limits.file_bytes // 2]
        if len(small) < limits.least_files:
            return []
        groups: list[list[Outline]] = []
        rows = size = memory = 0
        for one in sorted(small, key=lambda o: (o.first_trace, o.path)):
            needs = sum(b for _, b in one.groups)
            rows, size, memory = rows + one.rows, size + one.bytes, memory + needs
            full = rows > limits.file_rows or size > limits.file_bytes
            if not groups or full or memory > limits.memory_bytes:
                groups.append([])
                rows, size, memory = one.rows, one.bytes, needs
            groups[-1].append(one)
        return [group for group in groups if len(group) > 1]

    def _merge(
        self, day: str, group: list[Outline], files: dict[str, RangeFile]
    ) -> Iterator[float]:
        sources = [files[o.path] for o in group]
        of_compacted = [self._compacted.sources(f.path) for f in sources if f.compacted]
        made_of = joined(sources, [s for s in of_compacted if s is not None])
        self._check_space(group)
        path = self.folder / day / compacted_name()
        temporary = path.parent / temporary_name(path.name)
        work = merge(group, temporary, _notes(made_of), self._limits.piece_bytes)
        try:
            for _ in work:
                yield 0.0
                if self._finishing:
                    return
            self._appear(temporary, path, sources)
        finally:
            if os.getpid() == self._pid:
                work.close()  # type: ignore[attr-defined]
                temporary.unlink(missing_ok=True)
        self._account(group, path)
        self._replaced.append((time.time() + self._grace, [f.path for f in sources]))

    def _check_space(self, group: list[Outline]) -> None:
        """Leave the space to the writers where there is little."""
        needs = 2 * sum(o.bytes for o in group)
        if shutil.disk_usage(self.folder).free < needs:
            raise OSError(28, os.strerror(28))

    def _appear(self, temporary: Path, path: Path, sources: list[RangeFile]) -> None:
        """Let the file appear. From this rename on it is what readers read."""
        for source in sources:
            if not Path(source.path).exists():
                raise FileNotFoundError(source.path)  # deleted on purpose: it must not come back
        temporary.rename(path)
        sync_folder(path.parent)

    def _account(self, group: list[Outline], path: Path) -> None:
        report = self.report
        report.files_before += len(group)
        report.files_after += 1
        report.spans += sum(o.rows for o in group)
        report.bytes_before += sum(o.bytes for o in group)
        with contextlib.suppress(FileNotFoundError):
            report.bytes_after += path.stat().st_size

    def _delete(self, *, wait: bool) -> Iterator[float]:
        """Delete replaced files whose grace is over; *wait* for those whose is not."""
        while self._replaced:
            due, paths = self._replaced[0]
            left = due - time.time()
            if left > self._grace:  # the clock was set back
                left = self._grace
                self._replaced[0] = (time.time() + left, paths)
            if left > 0:
                if not wait:
                    return
                yield min(left, 0.5)
                continue
            del self._replaced[0]
            for at, name in enumerate(paths):
                Path(name).unlink(missing_ok=True)
                self.report.deleted += 1
                if at % 100 == 99:
                    yield 0.0
            for folder in {Path(name).parent for name in paths}:
                with contextlib.suppress(FileNotFoundError):
                    sync_folder(folder)
            yield 0.0


def is_closed(folder: Path, closed_seconds: float = CLOSED_SECONDS) -> bool:
    """Whether a day is over (UTC), or nothing was added to it for a while."""
    if folder.name < dt.datetime.now(dt.UTC).date().isoformat():
        return True
    files = list_day(folder)
    return bool(files) and time.time() - _newest(files) > closed_seconds


def small_files(folder: Path) -> tuple[int, int]:
    """Return how many files of closed days a compaction would look at, and in how many days."""
    counts = []
    for day in days(folder):
        if is_closed(folder / day):
            small = [f for f in list_day(folder / day) if not f.compacted]
            counts += [len(small)] if len(small) > 1 else []
    return sum(counts), len(counts)


def _newest(files: list[RangeFile]) -> float:
    newest = 0.0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, Path(file.path).stat().st_mtime)
    return newest


def _notes(made_of: Sources) -> dict[bytes, bytes]:
    return {SOURCES_KEY: made_of.encode()}


def busy(folder: Path) -> tuple[str, str, str]:
    """Return what to say where another one works in a folder: found, expected, do."""
    who = owner(folder) or {}
    by = f"process {who['pid']} on {who['host']}" if {"pid", "host"} <= set(who) else "another"
    return (
        f"{by} compacts {str(folder)!r} already",
        "expected one compactor at a time",
        "try later",
    )
