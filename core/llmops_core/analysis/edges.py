"""Edges: the handoffs from one agent to another over everything that was analysed, and how good.

The published score of a handoff is 0.4 correctness + 0.3 efficiency + 0.3 success chain:
*correctness* is 1 where the target succeeded, *efficiency* compares its gap with the median of the
same edge, in MADs, and the *success chain* is the share of the handoffs of its partition that
succeeded. Beside it stand measures that need no weights.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from llmops_core.analysis.drift import Drift
from llmops_core.analysis.handoffs import Handoff, loops_of
from llmops_core.analysis.measures import Measure, mean, quantile, share, spread_of
from llmops_core.analysis.rows import to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Edge", "EdgeTotals", "Level", "edges_to_arrow", "efficiency", "level", "quality"]

Level = Literal["EXCELLENT", "GOOD", "ACCEPTABLE", "POOR", "FAILED"]

#: A gap of this many MADs above the median of its edge is no longer efficient at all.
_SLOWEST_MADS: Final = 6.0


class Edge(NamedTuple):
    """All handoffs from one agent to another."""

    source: str
    target: str
    handoffs: int
    failed: int
    retried: int
    #: Requests whose target never started.
    dropped: int
    success: Measure
    gap_p50_ms: Measure
    #: The published score, its mean over the handoffs, and its level.
    quality: Measure
    level: Level | None
    #: The target hands straight back.
    bounced: Measure
    #: Entities that arrived, of those that were to be kept.
    retention: Measure
    #: Unsupported entities a handoff.
    additions: Measure
    #: Handoffs after which a lost value was asked for or fetched again.
    reacquired: Measure
    loops: int


def quality(correctness: float, efficient: float, chain: float) -> float:
    """Return the published score of a handoff."""
    return 0.4 * correctness + 0.3 * efficient + 0.3 * chain


def level(score: float) -> Level:
    """Return the published level of a score."""
    for least, name in ((0.9, "EXCELLENT"), (0.7, "GOOD"), (0.5, "ACCEPTABLE"), (0.3, "POOR")):
        if score > least or (score == least and least < 0.9):
            return name  # type: ignore[return-value]
    return "FAILED"


def efficiency(gap_ms: float | None, middle: float, spread: float) -> float:
    """Return 1 for a gap up to the median of its edge, down to 0 six MADs above it."""
    if gap_ms is None:
        return 0.0
    # Gaps that are all alike have no spread; a millisecond or a tenth more is still alike.
    least = max(spread, 0.1 * abs(middle), 1.0)
    return min(1.0, max(0.0, 1 - (gap_ms - middle) / (_SLOWEST_MADS * least)))


class _Total:
    __slots__ = (
        "additions",
        "bounced",
        "chains",
        "correct",
        "drifted",
        "dropped",
        "failed",
        "gaps",
        "kept",
        "known",
        "loops",
        "n",
        "reacquired",
        "retried",
    )  # fmt: skip

    def __init__(self) -> None:
        self.n = self.failed = self.retried = self.dropped = self.bounced = self.loops = 0
        self.kept = self.known = self.drifted = self.reacquired = 0
        self.gaps, self.chains, self.correct = array("d"), array("d"), array("d")
        self.additions = array("d")


class EdgeTotals:
    """Collects the handoffs of partitions one by one; holds three numbers per handoff."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], _Total] = defaultdict(_Total)

    def add(self, handoffs: Sequence[Handoff]) -> None:
        """Count the handoffs of one partition; those that wait with it are not decided yet."""
        handoffs = [h for h in handoffs if h.status != "pending"]
        if not handoffs:
            return
        chain = sum(h.status != "failed" for h in handoffs) / len(handoffs)
        for at, handoff in enumerate(handoffs):
            total = self._totals[handoff.source, handoff.target]
            total.n += 1
            total.failed += handoff.status == "failed"
            total.retried += handoff.status == "retried"
            total.dropped += not handoff.confirmed
            total.correct.append(0.0 if handoff.status == "failed" else 1.0)
            total.gaps.append(float("nan") if handoff.gap_ms is None else handoff.gap_ms)
            total.chains.append(chain)
            following = handoffs[at + 1] if at + 1 < len(handoffs) else None
            total.bounced += following is not None and (
                (following.source, following.target) == (handoff.target, handoff.source)
            )
        for loop in loops_of(handoffs):
            for pair in (loop.agents, loop.agents[::-1]):
                self._totals[pair[0], pair[1]].loops += 1

    def add_drift(self, rows: Iterable[Drift]) -> None:
        """Count what arrived."""
        for row in rows:
            total = self._totals[row.source, row.target]
            total.known += row.n
            total.kept += row.n - round((row.drift or 0.0) * row.n)
            total.drifted += 1
            total.additions.append(len(row.added))
            total.reacquired += any(lost.reacquired for lost in row.lost)

    def rows(self) -> list[Edge]:
        """Return the edges, the most frequent first."""
        found = [_row(*pair, total) for pair, total in self._totals.items() if total.n]
        return sorted(found, key=lambda row: (-row.handoffs, row.source, row.target))


def _row(source: str, target: str, total: _Total) -> Edge:
    gaps = [gap for gap in total.gaps if gap == gap]
    middle, spread = spread_of(gaps)
    scores = [
        quality(correct, efficiency(gap if gap == gap else None, middle, spread), chain)
        for correct, gap, chain in zip(total.correct, total.gaps, total.chains, strict=True)
    ]
    measured = mean(scores)
    return Edge(
        source=source,
        target=target,
        handoffs=total.n,
        failed=total.failed,
        retried=total.retried,
        dropped=total.dropped,
        success=share(total.n - total.failed, total.n),
        gap_p50_ms=quantile(gaps, 0.5),
        quality=measured,
        level=level(measured.value) if measured.value is not None else None,
        bounced=share(total.bounced, total.n),
        retention=share(total.kept, total.known),
        additions=mean(total.additions),
        reacquired=share(total.reacquired, total.drifted),
        loops=total.loops,
    )


def edges_to_arrow(rows: Sequence[Edge]) -> pa.Table:
    """Return edges as a table."""
    return to_arrow(rows, Edge)
