"""The handoffs that lost most, of any number of them."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmops_core.analysis.drift import Drift

__all__ = ["Worst"]


class Worst:
    """Keeps the worst rows that it was given, a bounded number of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[tuple[int, float, int], int, Drift]] = []
        self._count = 0

    def add(self, row: Drift, everything: bool = False) -> None:
        """Take a row; one that lost, altered and added nothing only with *everything*."""
        harm = sum(lost.reacquired for lost in row.lost)
        faults = len(row.lost) + len(row.altered) + len(row.added)
        faults += len(row.swapped) + len(row.flipped)
        if not faults and not everything:
            return
        self._count += 1
        # Of equal rows the earlier one is kept.
        item = ((harm, row.drift or 0.0, faults), -self._count, row)
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, item)
        else:
            heapq.heappushpop(self._kept, item)

    def rows(self) -> list[Drift]:
        """Return the rows, the worst first."""
        return [row for _, _, row in sorted(self._kept, reverse=True)]
