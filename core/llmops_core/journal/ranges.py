"""Sets of numbers that lie mostly side by side, held as sorted ranges that do not touch."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator

from llmops_core.journal.format import Range

__all__ = ["Ranges"]


class Ranges:
    """A set of whole numbers. Its size in memory is that of its gaps."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges: list[Range] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add the numbers from *first* to *last*; nothing if that is none."""
        if first > last:
            return
        low = bisect.bisect_left(self._ranges, first - 1, key=lambda r: r[1])
        high = bisect.bisect_right(self._ranges, last + 1, key=lambda r: r[0])
        if low < high:
            first = min(first, self._ranges[low][0])
            last = max(last, self._ranges[high - 1][1])
        self._ranges[low:high] = [(first, last)]

    def within(self, first: int, last: int) -> Ranges:
        """Return those of the numbers that lie between *first* and *last*."""
        low = bisect.bisect_left(self._ranges, first, key=lambda r: r[1])
        high = bisect.bisect_right(self._ranges, last, key=lambda r: r[0])
        found = Ranges()
        found._ranges = [(max(first, a), min(last, b)) for a, b in self._ranges[low:high]]
        return found

    def without(self, others: Ranges) -> Ranges:
        """Return the numbers that are not in *others*."""
        left = Ranges()
        for first, last in self._ranges:
            at = first
            for a, b in others.within(first, last):
                if at < a:
                    left._ranges.append((at, a - 1))
                at = b + 1
            if at <= last:
                left._ranges.append((at, last))
        return left

    def __contains__(self, number: int) -> bool:
        at = bisect.bisect_left(self._ranges, number, key=lambda r: r[1])
        return at < len(self._ranges) and self._ranges[at][0] <= number

    def __iter__(self) -> Iterator[Range]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self._ranges)
