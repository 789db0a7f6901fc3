"""Takes over the journals of dead writers: what they had journaled is stored, once.

Runs at the next start on the storage's own thread, and by ``llmops recover``. Each journal is locked
while it is replayed, and a range that its writer had sealed is cut the same way, so neither two
recoverers nor a crash in the middle can store a span twice. A journal may be larger than memory: it
is read once to see what lies where, and then one range at a time. In between the thread is given
back again and again: a living monitor's writes and queries run on it too.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from llmops_core.batch import SpanBatch
from llmops_core.errors import PermanentError
from llmops_core.journal.format import (
    Damage,
    Range,
    Record,
    encode_range,
    encode_spans,
    encode_stored,
    read_records,
    segments,
)
from llmops_core.journal.lock import FileLock
from llmops_core.journal.quarantine import Quarantine
from llmops_core.journal.ranges import Ranges
from llmops_core.journal.writer import remove_folder
from llmops_core.span import Span

__all__ = ["RecoveryReport", "recover", "writers"]

DEFAULT_BATCH: Final = 5_000
#: Records are looked up in pieces of this size: an entry for each would be as large as the spans.
PIECE_BYTES: Final = 64 * 1024
#: How long the index pass works before it lets others on the thread have their turn.
STEP_SECONDS: Final = 0.02
Write = Callable[[SpanBatch], Awaitable[None]]


class RecoveryReport(msgspec.Struct):
    """What a recovery found and did."""

    writers: int = 0
    spans: int = 0
    incomplete: int = 0
    already_stored: int = 0
    quarantined: int = 0
    damaged_records: int = 0
    damaged_bytes: int = 0
    torn_bytes: int = 0
    skipped_living: int = 0
    failed: list[str] = msgspec.field(default_factory=list)


def writers(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield each writer's folder below *root*, and whether its writer is alive."""
    for folder in _folders(root):
        lock = _lock(folder)
        if lock is not None:
            lock.release()
        yield folder, lock is None


async def recover(root: Path, write: Write, *, batch_spans: int = DEFAULT_BATCH) -> RecoveryReport:
    """Store what dead writers left in their journals, and remove the journals.

    *write* is a storage's ``write``. A journal whose storing fails stays for the next recovery and
    is named in ``failed``; the others go on.
    """
    report = RecoveryReport()
    for folder in _folders(root):
        await asyncio.sleep(0)
        lock = _lock(folder)
        if lock is None:
            report.skipped_living += 1
            continue
        try:
            await _replay(folder, write, batch_spans, report)
            remove_folder(folder)
            report.writers += 1
        except Exception as error:  # told in the report; the other journals are not its fault
            report.failed.append(f"{folder.name}: {type(error).__name__}: {error}")
        finally:
            lock.release()
    return report


def _folders(root: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(p for p in root.iterdir() if p.name.isalnum() and p.is_dir())
    return []


def _lock(folder: Path) -> FileLock | None:
    """Lock a writer's journal; None if its writer lives or another recoverer is at it."""
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None  # it vanished meanwhile, or belongs to somebody else
    try:
        lock = FileLock(descriptor)
    except OSError:
        return None  # locked by the living writer
    with contextlib.suppress(OSError):
        # Another recoverer may have finished and unlinked it between open and lock.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return lock
    lock.release()
    return None


class _Piece(msgspec.Struct, gc=False):
    """Neighbouring records of one segment, and the range of their numbers."""

    path: Path
    start: int
    end: int
    first: int
    last: int


class _Index(msgspec.Struct):
    """What lies where in a journal. Small: the spans themselves stay on disk until their turn."""

    pieces: list[_Piece] = msgspec.field(default_factory=list)
    known: Ranges = msgspec.field(default_factory=Ranges)
    sealed: list[Range] = msgspec.field(default_factory=list)
    stored: Ranges = msgspec.field(default_factory=Ranges)
    reach: list[int] = msgspec.field(default_factory=list)
    top: int = 0
    sealed_to: int = 0

    def note(self, path: Path, record: Record, opened: dict[str, Span]) -> None:
        if record.type == "s":
            seqs = [s.seq for s in record.spans if s.seq]
            for span in record.spans:
                opened.pop(span.span_id, None)
            if seqs:
                self.place(path, record.start, record.end, seqs)
            return
        if record.type == "r":
            self.seal(record.range)
        elif record.type == "c":
            self.stored.add(*record.range)
        self.top = max(self.top, record.range[1])

    def seal(self, sealed: Range) -> None:
        """Note a sealed range. One within another is a part that it was cut into: it counts instead."""
        first, last = sealed
        if self.sealed and last <= self.sealed_to:
            self.sealed = [
                r for r in self.sealed if r == sealed or not (r[0] <= first and last <= r[1])
            ]
        self.sealed.append(sealed)
        self.sealed_to = max(self.sealed_to, last)

    def place(self, path: Path, start: int, end: int, seqs: list[int]) -> None:
        first, last = min(seqs), max(seqs)
        self.top = max(self.top, last)
        if last - first < len(seqs):
            self.known.add(first, last)
        else:
            for seq in seqs:
                self.known.add(seq, seq)
        piece = self.pieces[-1] if self.pieces else None
        if piece is not None and piece.path == path and end - piece.start <= PIECE_BYTES:
            piece.end, piece.first = end, min(piece.first, first)
            piece.last = max(piece.last, last)
        else:
            self.pieces.append(_Piece(path, start, end, first, last))

    def sort(self) -> None:
        """Order the pieces by their numbers, so that those of a range are found quickly."""
        self.pieces.sort(key=lambda p: p.first)
        self.reach = list(itertools.accumulate((p.last for p in self.pieces), max))

    def load(self, ranges: Ranges, first: int, last: int) -> list[Span]:
        """Read the spans of *ranges*, which lie between *first* and *last*."""
        found: dict[int, Span] = {}
        low = bisect.bisect_left(self.reach, first)
        high = bisect.bisect_right(self.pieces, last, key=lambda p: p.first)
        chosen = [p for p in self.pieces[low:high] if p.last >= first]
        for piece in sorted(chosen, key=lambda p: (p.path, p.start)):
            with piece.path.open("rb") as file:
                file.seek(piece.start)
                data = file.read(piece.end - piece.start)
            for record in read_records(data, 0, Damage()):
                found.update({s.seq: s for s in record.spans if s.seq and s.seq in ranges})
        return [found[seq] for seq in sorted(found)]


async def _replay(folder: Path, write: Write, batch_spans: int, report: RecoveryReport) -> None:
    opened = _read_open(folder)
    index = await _index(folder, opened, report)
    with _Appender(folder) as log:
        _add_open(list(opened.values()), index, log, batch_spans, report)
        index.sort()
        pending = index.known.without(index.stored)
        report.already_stored += len(index.known) - len(pending)
        sealed = set(index.sealed)
        for first, last in _cut(pending, index.sealed, batch_spans):
            # Each span belongs to one range only, whatever the journal says.
            mine = pending.within(first, last)
            rows = index.load(mine, first, last)
            if not rows:
                continue
            pending = pending.without(mine)
            if (first, last) not in sealed:
                log.append(encode_range(first, last))
            batch = SpanBatch(rows, writer_id=folder.name, first_seq=first, last_seq=last)
            await _store(batch, write, log, Quarantine(folder.parent), report)


async def _store(
    batch: SpanBatch,
    write: Write,
    log: _Appender,
    quarantine: Quarantine,
    report: RecoveryReport,
) -> None:
    """Store a sealed range; in parts, and less what the storage refuses, where it refuses some."""
    await asyncio.sleep(0)  # a storage that writes without awaiting would keep the thread
    try:
        await write(batch)
        report.spans += len(batch)
    except PermanentError as error:
        if len(batch) > 1:
            parts = batch.parted(error.place)
            log.append(b"".join(encode_range(p.first_seq, p.last_seq) for p in parts))
            for part in parts:
                await _store(part, write, log, quarantine, report)
            return
        quarantine.add(batch.rows[0], error)
        report.quarantined += 1
    log.append(encode_stored(batch.first_seq, batch.last_seq))


async def _index(folder: Path, opened: dict[str, Span], report: RecoveryReport) -> _Index:
    """Read the segments, one at a time; forget of *opened* what has finished since."""
    index, began = _Index(), time.monotonic()
    for path in segments(folder):
        data = path.read_bytes()
        damage, end = Damage(), 0
        for record in read_records(data, 0, damage):
            end = record.end
            index.note(path, record, opened)
            if time.monotonic() - began > STEP_SECONDS:
                await asyncio.sleep(0)
                began = time.monotonic()
        if damage.records:
            _keep_damaged(path)
            report.damaged_records += damage.records
            report.damaged_bytes += damage.bytes
        elif end < len(data):
            report.torn_bytes += len(data) - end
            os.truncate(path, end)  # so that what we append can be read
    return index


def _keep_damaged(path: Path) -> None:
    """Keep a copy of a damaged segment: what we could not read, somebody else perhaps can."""
    corrupt = path.parent.parent / ".corrupt"
    with contextlib.suppress(OSError):
        corrupt.mkdir(mode=0o700, exist_ok=True)
        shutil.copy2(path, corrupt / f"{path.parent.name}-{path.name}")


def _read_open(folder: Path) -> dict[str, Span]:
    """Return the spans that were open when the file of them was last replaced, by id."""
    try:
        data = (folder / "open").read_bytes()
    except FileNotFoundError:
        return {}
    return {s.span_id: s for r in read_records(data, 0, Damage()) for s in r.spans}


def _add_open(
    spans: list[Span], index: _Index, log: _Appender, batch_spans: int, report: RecoveryReport
) -> None:
    """Journal the spans that were open when the writer died and did not finish since."""
    for start in range(0, len(spans), batch_spans):
        part = spans[start : start + batch_spans]
        numbered = [s.replace(seq=index.top + i) for i, s in enumerate(part, 1)]
        begin, end = log.append(encode_spans(numbered))
        index.place(log.path, begin, end, [s.seq for s in numbered if s.seq])
        report.incomplete += len(numbered)


def _cut(pending: Ranges, sealed: list[Range], batch_spans: int) -> list[Range]:
    """Cut what is pending: sealed ranges as they are, the rest into new ones between them."""
    cut = [r for r in dict.fromkeys(sealed) if pending.within(*r)]
    rest = pending.without(Ranges(cut))
    for first, last in rest:
        cut += [(at, min(last, at + batch_spans - 1)) for at in range(first, last + 1, batch_spans)]
    return sorted(cut)


class _Appender:
    """Appends to the dead writer's journal, in a segment of its own."""

    def __init__(self, folder: Path) -> None:
        numbers = [int(p.stem) for p in segments(folder)]
        self.path = folder / f"{max(numbers, default=0) + 1:06d}.log"
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def append(self, data: bytes) -> Range:
        """Write a record; return where it begins and ends."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._bytes += len(data)
        return self._bytes - len(data), self._bytes
