"""Takes over the journals of dead writers: what they had journaled is stored, once.

Runs at the next start on the storage's own thread, and by ``llmops recover``. Each journal is locked
while it is replayed, and a range that its writer had sealed is cut the same way, so neither two
recoverers nor a crash in the middle can store a span twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from llmops_core.batch import SpanBatch
from llmops_core.journal.format import (
    Damage,
    Range,
    encode_range,
    encode_spans,
    encode_stored,
    read_records,
    segments,
)
from llmops_core.journal.writer import remove_folder
from llmops_core.span import Span

__all__ = ["RecoveryReport", "recover", "writers"]

DEFAULT_BATCH: Final = 5_000
Write = Callable[[SpanBatch], Awaitable[None]]


class RecoveryReport(msgspec.Struct):
    """What a recovery found and did."""

    writers: int = 0
    spans: int = 0
    incomplete: int = 0
    already_stored: int = 0
    damaged_records: int = 0
    damaged_bytes: int = 0
    torn_bytes: int = 0
    skipped_living: int = 0
    failed: list[str] = msgspec.field(default_factory=list)


def writers(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield each writer's folder below *root*, and whether its writer is alive."""
    for folder in _folders(root):
        descriptor = _lock(folder)
        if descriptor is None:
            yield folder, True
        else:
            os.close(descriptor)
            yield folder, False


async def recover(root: Path, write: Write, *, batch_spans: int = DEFAULT_BATCH) -> RecoveryReport:
    """Store what dead writers left in their journals, and remove the journals.

    *write* is a storage's ``write``. A journal whose storing fails stays for the next recovery and
    is named in ``failed``; the others go on.
    """
    report = RecoveryReport()
    for folder in _folders(root):
        descriptor = _lock(folder)
        if descriptor is None:
            report.skipped_living += 1
            continue
        try:
            await _replay(folder, write, batch_spans, report)
            remove_folder(folder)
            report.writers += 1
        except Exception as error:  # told in the report; the other journals are not its fault
            report.failed.append(f"{folder.name}: {type(error).__name__}: {error}")
        finally:
            os.close(descriptor)
    return report


def _folders(root: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(p for p in root.iterdir() if p.name.isalnum() and p.is_dir())
    return []


def _lock(folder: Path) -> int | None:
    """Lock a writer's journal; None if its writer lives or another recoverer is at it."""
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None  # it vanished meanwhile, or belongs to somebody else
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another recoverer may have finished and unlinked it between open and lock.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:
        pass  # locked by the living writer, or gone: either way not ours
    os.close(descriptor)
    return None


class _Found(msgspec.Struct):
    spans: dict[int, Span]
    sealed: list[Range]
    stored: list[Range]


async def _replay(folder: Path, write: Write, batch_spans: int, report: RecoveryReport) -> None:
    found = _read(folder, report)
    log = _Appender(folder)
    try:
        _add_open(folder, found, log, report)
        pending = {q: s for q, s in found.spans.items() if not _within(q, found.stored)}
        report.already_stored += len(found.spans) - len(pending)
        for first, last in _ranges(pending, found.sealed, batch_spans):
            # pop: each span belongs to one range only, whatever the journal says
            rows = [pending.pop(q) for q in sorted(pending) if first <= q <= last]
            if (first, last) not in found.sealed:
                log.append(encode_range(first, last))
            await write(SpanBatch(rows, writer_id=folder.name, first_seq=first, last_seq=last))
            log.append(encode_stored(first, last))
            report.spans += len(rows)
    finally:
        log.close()


def _read(folder: Path, report: RecoveryReport) -> _Found:
    found = _Found({}, [], [])
    for path in segments(folder):
        data = path.read_bytes()
        damage, end = Damage(), 0
        for record in read_records(data, 0, damage):
            end = record.end
            if record.type == "s":
                found.spans.update({s.seq: s for s in record.spans if s.seq})
            elif record.type == "r":
                found.sealed.append(record.range)
            elif record.type == "c":
                found.stored.append(record.range)
        if damage.records:
            _keep_damaged(path)
            report.damaged_records += damage.records
            report.damaged_bytes += damage.bytes
        elif end < len(data):
            report.torn_bytes += len(data) - end
            os.truncate(path, end)  # so that what we append can be read
    return found


def _keep_damaged(path: Path) -> None:
    """Keep a copy of a damaged segment: what we could not read, somebody else perhaps can."""
    corrupt = path.parent.parent / ".corrupt"
    with contextlib.suppress(OSError):
        corrupt.mkdir(mode=0o700, exist_ok=True)
        shutil.copy2(path, corrupt / f"{path.parent.name}-{path.name}")


def _add_open(folder: Path, found: _Found, log: _Appender, report: RecoveryReport) -> None:
    """Journal the spans that were open when the writer died, unless they finished since."""
    try:
        data = (folder / "open").read_bytes()
    except FileNotFoundError:
        return
    known = {s.span_id for s in found.spans.values()}
    spans = [s for r in read_records(data, 0, Damage()) for s in r.spans]
    missing = [s for s in spans if s.span_id not in known]
    if not missing:
        return
    seq = max([*found.spans, *(last for _, last in found.sealed + found.stored)], default=0)
    numbered = [s.replace(seq=seq + i) for i, s in enumerate(missing, 1)]
    log.append(encode_spans(numbered))
    found.spans.update({s.seq: s for s in numbered if s.seq})
    report.incomplete += len(numbered)


def _within(seq: int, ranges: list[Range]) -> bool:
    return any(first <= seq <= last for first, last in ranges)


def _ranges(pending: dict[int, Span], sealed: list[Range], batch_spans: int) -> list[Range]:
    """Cut what is pending: sealed ranges as they are, the rest into new ones."""
    cut = [r for r in dict.fromkeys(sealed) if any(r[0] <= q <= r[1] for q in pending)]
    rest = sorted(q for q in pending if not _within(q, cut))
    for start in range(0, len(rest), batch_spans):
        part = rest[start : start + batch_spans]
        cut.append((part[0], part[-1]))
    return sorted(cut)


class _Appender:
    """Appends notes to the dead writer's journal, in a segment of its own."""

    def __init__(self, folder: Path) -> None:
        numbers = [int(p.stem) for p in segments(folder)]
        path = folder / f"{max(numbers, default=0) + 1:06d}.log"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        os.close(self._fd)
