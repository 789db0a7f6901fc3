"""One file of a living writer's journal: how large it is, how far it goes, where to look for a range."""

from __future__ import annotations

import bisect
from typing import Final

__all__ = ["Segment"]

MARK_BYTES: Final = 64 * 1024


class Segment:
    """The name of a segment, and what lies where in it. Not thread-safe."""

    __slots__ = ("_marks", "bytes", "last_seq", "name")

    def __init__(self, name: str) -> None:
        self.name = name
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
