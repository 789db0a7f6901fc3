"""The journal of one writer: finished spans on disk before any plugin's code sees them.

A folder ``<root>/<writer>`` holds ``lock`` (held while the writer lives), segments ``000001.log``
..., and ``open`` (the spans that were open when it was last replaced). Written with ``os.write`` to
the page cache: it survives the death of the process at any moment, not a loss of power.

The intake thread appends, the storage's seals ranges and marks them stored; a lock orders the writes.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

from llmops_core.journal.format import (
    Damage,
    Range,
    encode_range,
    encode_spans,
    encode_stored,
    read_records,
    segments,
)
from llmops_core.journal.state import STATE_FILE
from llmops_core.span import Span

__all__ = ["Journal", "new_writer_id"]

SEGMENT_BYTES: Final = 8 * 1024 * 1024
MARK_BYTES: Final = 64 * 1024


def new_writer_id() -> str:
    """Return a fresh writer id, ordered by time: it names the journal and the Parquet files."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(4)}"


class _Segment:
    __slots__ = ("_marks", "bytes", "last_seq", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self.last_seq = 0
        # (first seq, offset) of a record now and then, to read a range without all before it.
        self._marks: list[tuple[int, int]] = []

    def take(self, first_seq: int, last_seq: int, size: int) -> None:
        """Note the record of spans that was just written."""
        offset = self.bytes - size
        if not self._marks or offset - self._marks[-1][1] >= MARK_BYTES:
            self._marks.append((first_seq, offset))
        self.last_seq = last_seq

    def stretch(self, first_seq: int, last_seq: int) -> tuple[int, int]:
        """Return where records begin and end that hold what is here of a range."""
        low = bisect.bisect_right(self._marks, first_seq, key=lambda m: m[0])
        high = bisect.bisect_right(self._marks, last_seq, key=lambda m: m[0])
        start = self._marks[low - 1][1] if low else 0
        return start, self._marks[high][1] if high < len(self._marks) else self.bytes


class Journal:
    """Appends records. Every method may raise ``OSError``; the caller counts and carries on."""

    def __init__(self, root: Path, writer_id: str, *, max_bytes: int) -> None:
        self.folder = root / writer_id
        self.writer_id = writer_id
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._segments: list[_Segment] = []
        self._number = 0
        self._fd = -1
        self._stored_to = 0
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made under a hidden name and locked before it appears: a recoverer that saw the folder
        # first would take its writer for dead.
        hidden = root / f".{writer_id}"
        hidden.mkdir(mode=0o700)
        self._lock_fd = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(self.folder)
            self._rotate()
        except OSError:
            self.release()
            shutil.rmtree(hidden, ignore_errors=True)
            raise

    @property
    def size(self) -> int:
        """Bytes of the segments on disk."""
        return sum(s.bytes for s in self._segments)

    @property
    def full(self) -> bool:
        """Whether the byte cap is reached: new spans then stay in memory only."""
        return self.size >= self._max_bytes

    def append(self, spans: Sequence[Span]) -> int:
        """Write one record of spans; return its size in bytes."""
        return self.append_records(spans, spans[0].seq or 0, spans[-1].seq or 0)

    def append_records(self, spans: Sequence[Any], first_seq: int, last_seq: int) -> int:
        """Write one record of spans, or of tuples of their values; return its size in bytes."""
        data = encode_spans(spans)
        with self._lock:
            self._write(data, (first_seq, last_seq))
        return len(data)

    def seal(self, first_seq: int, last_seq: int) -> None:
        """Note that a range will be written as one batch, so that a replay cuts it the same way."""
        with self._lock:
            self._write(encode_range(first_seq, last_seq))

    def seal_parts(self, parts: Sequence[Range]) -> None:
        """Note that a sealed range will be written in parts: all of them, or none, are noted."""
        with self._lock:
            self._write(b"".join(encode_range(*part) for part in parts))

    def mark_stored(self, first_seq: int, last_seq: int) -> None:
        """Note that a range is stored. Ranges are stored in order."""
        with self._lock:
            self._stored_to = max(self._stored_to, last_seq)
            self._write(encode_stored(first_seq, last_seq))

    def replace_open(self, spans: Sequence[Span]) -> None:
        """Replace the file of open spans, then drop the segments that are stored throughout.

        In this order: while a segment is there, recovery knows that a span of the file of open
        spans has finished since. So a file that cannot be replaced goes before a segment does.
        """
        path = self.folder / "open"
        try:
            if spans:
                self._replace(path, encode_spans(spans))
            else:
                path.unlink(missing_ok=True)
        except OSError:
            path.unlink(missing_ok=True)
            self.reap()
            raise
        self.reap()

    def read_range(self, first_seq: int, last_seq: int) -> list[Span]:
        """Read back the spans of a range, in order. For a delivery that fell behind."""
        with self._lock:
            segments = [s for s in self._segments if s.last_seq >= first_seq]
            stretches = [(s.path, *s.stretch(first_seq, last_seq)) for s in segments]
        found: dict[int, Span] = {}
        for path, start, end in stretches:
            if start == end:
                continue
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(start)
                for record in read_records(file.read(end - start), 0, Damage()):
                    found.update((s.seq, s) for s in record.spans if s.seq)
        return [found[seq] for seq in sorted(found) if first_seq <= seq <= last_seq]

    def close(self, *, remove: bool) -> None:
        """Release the lock; with *remove*, everything is stored and the folder goes."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            if remove:
                remove_folder(self.folder)
            self.release()

    def release(self) -> None:
        """Give up the descriptors without touching a file (a forked child: they are its parent's)."""
        for name in ("_fd", "_lock_fd"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
                setattr(self, name, -1)

    def replace_state(self, data: bytes) -> None:
        """Replace the file in which the monitor says how it does."""
        self._check_ours()
        self._replace(self.folder / STATE_FILE, data)

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = self.folder / f".{path.name}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
        temporary.rename(path)

    def _rotate(self) -> None:
        path = self.folder / f"{self._number + 1:06d}.log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._leave_segment()
        self._number += 1
        self._fd = descriptor
        self._segments.append(_Segment(path))

    def _check_ours(self) -> None:
        if self._lock_fd < 0:
            raise OSError(errno.EBADF, "the journal is closed")  # it may be a recoverer's by now

    def _write(self, data: bytes, seqs: Range | None = None) -> None:
        self._check_ours()
        if self._fd < 0 or self._segments[-1].bytes >= SEGMENT_BYTES:
            self._rotate()
        segment = self._segments[-1]
        size = segment.bytes
        try:
            _write_all(self._fd, data)
            segment.bytes += len(data)
            if seqs is not None:
                segment.take(*seqs, len(data))
        except BaseException:
            # Half a record would only cost a resynchronisation, but a full disk leaves many; and
            # whoever is interrupted here writes the record again.
            segment.bytes = size
            try:
                os.ftruncate(self._fd, size)
            except OSError:  # its size is not what we think: nothing more is written to it
                self._leave_segment()
            raise

    def _leave_segment(self) -> None:
        descriptor, self._fd = self._fd, -1
        if descriptor < 0:
            return
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def reap(self) -> None:
        """Drop the segments that are stored throughout. For when the open spans are as before."""
        with self._lock:
            self._check_ours()
            active = self._segments[-1]
            if active.bytes >= SEGMENT_BYTES // 4 and active.last_seq <= self._stored_to:
                self._rotate()
            *old, _ = self._segments
            gone = list(itertools.takewhile(lambda s: s.last_seq <= self._stored_to, old))
            left = self._segments[len(gone) :]
            if gone and self._stored_to and not any(s.last_seq for s in left):
                # What stays must tell how far the numbers went: a recoverer numbers on from there.
                note = encode_stored(1, self._stored_to)
                try:
                    self._write(note)
                except OSError:  # a full disk, perhaps of these very segments
                    _shrink(gone.pop(), note)
            for segment in gone:
                segment.path.unlink(missing_ok=True)
                self._segments.remove(segment)


def _shrink(segment: _Segment, note: bytes) -> None:
    """Leave nothing but a note of a segment that is stored throughout. Needs no space.

    Killed between the two steps, the file begins with the note and a damaged record.
    """
    with segment.path.open("r+b", buffering=0) as file:
        file.write(note)
        file.truncate(len(note))
    segment.bytes = len(note)


def remove_folder(folder: Path) -> None:
    """Remove a journal that is stored throughout. May be cut short after any step.

    The file of open spans goes first: only the segments tell that its spans are stored. Then the
    segments, oldest first, as a range is noted stored after its spans; the lock last.
    """
    for name in ("open", ".open.tmp", STATE_FILE, f".{STATE_FILE}.tmp"):
        (folder / name).unlink(missing_ok=True)
    for path in segments(folder):
        path.unlink(missing_ok=True)
    (folder / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
