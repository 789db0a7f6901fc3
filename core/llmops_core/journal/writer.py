"""The journal of one writer: finished spans on disk before any plugin's code sees them.

A folder ``<root>/<writer>`` holds ``lock`` (held while the writer lives), segments ``000001.log``
..., and ``open`` (the spans that were open when it was last replaced). Written with ``os.write`` to
the page cache: it survives the death of the process at any moment, not a loss of power.

The intake thread appends, the storage's seals ranges and marks them stored; a lock orders the writes.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

from llmops_core.journal.folder import WriterFolder, write_all
from llmops_core.journal.format import (
    Damage,
    Range,
    encode_range,
    encode_spans,
    encode_stored,
    read_records,
    segments,
)
from llmops_core.journal.segment import Segment
from llmops_core.journal.state import STATE_FILE
from llmops_core.span import Span

__all__ = ["Journal", "new_writer_id"]

SEGMENT_BYTES: Final = 8 * 1024 * 1024


def new_writer_id() -> str:
    """Return a fresh writer id, ordered by time: it names the journal and the Parquet files."""
    return f"{time.time_ns() // 1_000_000:011x}{secrets.token_hex(4)}"


class Journal:
    """Appends records. Every method may raise ``OSError``; the caller counts and carries on."""

    def __init__(self, root: Path, writer_id: str, *, max_bytes: int) -> None:
        self.writer_id = writer_id
        self._root = root
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._segments: list[Segment] = []
        self._number = 0
        self._fd = -1
        self._stored_to = 0
        #: Whether somebody took the folder away and it cannot be made again; and how often it was.
        self.gone = False
        self.remade = 0
        #: Why the last segment grows beyond its size, as no new one could be made; the caller clears it.
        self.not_rotated: OSError | None = None
        self._place = WriterFolder(root, writer_id)
        try:
            self._rotate()
        except OSError:
            self.release()
            remove_folder(self.folder)
            raise

    @property
    def folder(self) -> Path:
        """Where the journal lies, or belongs."""
        return self._place.path

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
            if self.gone:  # what is written where nobody finds it is not journaled
                raise FileNotFoundError(errno.ENOENT, "the journal's folder is gone")
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
        try:
            if spans:
                self._place.replace("open", encode_spans(spans))
            else:
                self._place.remove("open")
        except OSError:
            self._place.remove("open")
            self.reap()
            raise
        self.reap()

    def read_range(self, first_seq: int, last_seq: int) -> list[Span]:
        """Read back the spans of a range, in order. For a delivery that fell behind."""
        with self._lock:
            stretches = [
                (self._open_again(s), *s.stretch(first_seq, last_seq))
                for s in self._segments
                if s.last_seq >= first_seq
            ]
            files = contextlib.ExitStack()
            for descriptor, _, _ in stretches:
                files.callback(_close, descriptor)
        found: dict[int, Span] = {}
        with files:
            for descriptor, start, end in stretches:
                data = b"" if descriptor < 0 else os.pread(descriptor, end - start, start)
                for record in read_records(data, 0, Damage()):
                    found.update((s.seq, s) for s in record.spans if s.seq)
        return [found[seq] for seq in sorted(found) if first_seq <= seq <= last_seq]

    def keep_place(self) -> bool:
        """Make the folder again if somebody took it away, with what is left; say whether that was so.

        A folder that was renamed gives back its segments; of a deleted one there is the segment that
        is written to. Raises while the folder cannot be made; until then nothing can be appended.
        """
        with self._lock:
            self._check_ours()
            old, active = self._place, self._segments[-1]
            in_place = self._fd < 0 or old.has(active.name)
            if in_place and old.is_in_place():
                self.gone = False
                return False
            self.gone = True
            old.step_aside()
            self._move_to(WriterFolder(self._root, self.writer_id))
            old.discard()
            self.gone = False
            self.remade += 1
            return True

    def _move_to(self, place: WriterFolder) -> None:
        *full, active = self._segments
        kept = [segment for segment in full if self._moved(segment, place, -1)]
        writing = self._fd >= 0 and self._moved(active, place, self._fd)
        self._leave_segment()
        self._place, self._segments = place, [*kept, active]
        if writing:
            self._fd = place.open(active.name, os.O_RDWR | os.O_APPEND)

    def _moved(self, segment: Segment, place: WriterFolder, descriptor: int) -> bool:
        try:
            place.take(segment.name, self._place, descriptor)
        except OSError:  # deleted: what of it is not in memory is missed when it is read back
            return False
        return True

    def _open_again(self, segment: Segment) -> int:
        """Open a segment for reading, or return -1 where it is gone; the caller closes it."""
        try:
            if segment is self._segments[-1] and self._fd >= 0:
                return os.dup(self._fd)
            return self._place.open(segment.name, os.O_RDONLY)
        except OSError:
            return -1

    def close(self, *, remove: bool) -> None:
        """Release the lock; with *remove*, everything is stored and the folder goes."""
        with self._lock:
            self._leave_segment()
            try:
                if remove and not self.gone:
                    remove_folder(self.folder)
            finally:
                self.release()

    def release(self) -> None:
        """Give up the descriptors without touching a file (a forked child: they are its parent's)."""
        self._leave_segment()
        self._place.release()

    def replace_state(self, data: bytes) -> None:
        """Replace the file in which the monitor says how it does."""
        self._check_ours()
        self._place.replace(STATE_FILE, data)

    def _rotate(self) -> None:
        name = f"{self._number + 1:06d}.log"
        # Read, too: of a segment that somebody deletes this descriptor is all that is left.
        descriptor = self._place.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._leave_segment()
        self._number += 1
        self._fd = descriptor
        self._segments.append(Segment(name))

    def _check_ours(self) -> None:
        if not self._place.held:
            raise OSError(errno.EBADF, "the journal is closed")  # it may be a recoverer's by now

    def _write(self, data: bytes, seqs: Range | None = None) -> None:
        self._check_ours()
        if self._fd < 0:
            self._rotate()
        elif self._segments[-1].bytes >= SEGMENT_BYTES:
            try:
                self._rotate()
            except OSError as error:  # a larger segment is better than none
                self.not_rotated = error
        segment = self._segments[-1]
        size = segment.bytes
        try:
            write_all(self._fd, data)
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
        _close(descriptor)

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
                    self._shrink(gone.pop(), note)
            for segment in gone:
                self._place.remove(segment.name)
                self._segments.remove(segment)

    def _shrink(self, segment: Segment, note: bytes) -> None:
        """Leave nothing but a note of a segment that is stored throughout. Needs no space.

        Killed between the two steps, the file begins with the note and a damaged record.
        """
        descriptor = self._place.open(segment.name, os.O_WRONLY)
        try:
            os.pwrite(descriptor, note, 0)  # over what is there
            os.ftruncate(descriptor, len(note))
        finally:
            os.close(descriptor)
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


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.close(descriptor)
