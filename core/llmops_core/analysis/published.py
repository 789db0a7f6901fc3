"""The published names, as thin fronts: ``AgentDetector``, ``HandoffAnalyzer``, ``ContextDriftDetector``.

Their methods are asynchronous, as published; they compute and never wait. *events* may be spans, an
Arrow table of stored spans, or plain records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_core.analysis.agents import Agent
from llmops_core.analysis.drift import Content, Drift
from llmops_core.analysis.edges import Level, efficiency, level, quality
from llmops_core.analysis.events import Event
from llmops_core.analysis.handoffs import Handoff
from llmops_core.analysis.importers import contents_of_records, events_from_records
from llmops_core.analysis.measures import spread_of
from llmops_core.analysis.multi_agent import Found, MultiAgent
from llmops_core.span import Span

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "AgentDetector", "ContextDriftDetector", "DriftAnalysis", "HandoffAnalyzer", "LostEntity",
    "ScoredHandoff",
]  # fmt: skip

_HIGH: Final = 0.4


class LostEntity(NamedTuple):
    """A value that did not arrive."""

    value: str
    entity_type: str


class ScoredHandoff(NamedTuple):
    """A handoff with the published score: 0.4 correctness, 0.3 efficiency, 0.3 success chain."""

    from_agent: str
    to_agent: str
    status: str
    correctness_score: float
    efficiency_score: float
    success_chain_score: float
    quality_score: float
    quality_level: Level
    handoff: Handoff


class DriftAnalysis(NamedTuple):
    """What one handoff lost, altered and added."""

    from_agent: str
    to_agent: str
    drift_score: float
    has_high_drift: bool
    lost_entities: tuple[LostEntity, ...]
    altered_entities: tuple[tuple[str, str], ...]
    added_entities: tuple[str, ...]
    drift: Drift


class AgentDetector:
    """Finds the agents of events, and their runs."""

    def __init__(self) -> None:
        self.agents: list[Agent] = []

    async def detect_agents(self, events: Any, auto_register: bool = False) -> list[Agent]:
        """Return the agents; with *auto_register* also keep them as ``agents``."""
        analysis, _ = _analysed(events)
        found = analysis.agents()
        if auto_register:
            self.agents = found
        return found

    async def detect_agent_operations(self, events: Any) -> list[Event]:
        """Return the events that are runs of agents, in order of time."""
        _, found = _analysed(events)
        return sorted(found.runs, key=lambda event: (event.start, event.event_id))


class HandoffAnalyzer:
    """Scores the handoffs of events; efficiency is relative to each pair of agents itself."""

    def __init__(self) -> None:
        self._scored: list[ScoredHandoff] = []

    async def analyze_handoffs(self, operations: Any, events: Any = None) -> list[ScoredHandoff]:
        """Return the handoffs of *events*, or of *operations* where there are none."""
        _, found = _analysed(operations if events is None else events)
        handoffs = [h for h in found.handoffs if h.status != "pending"]
        gaps: dict[tuple[str, str], list[float]] = {}
        chains: dict[str, list[bool]] = {}
        for handoff in handoffs:
            chains.setdefault(handoff.partition, []).append(handoff.status != "failed")
            if handoff.gap_ms is not None:
                gaps.setdefault((handoff.source, handoff.target), []).append(handoff.gap_ms)
        self._scored = [
            _scored(h, gaps.get((h.source, h.target), []), chains[h.partition]) for h in handoffs
        ]
        return self._scored

    def calculate_handoff_statistics(self) -> dict[str, Any]:
        """Return figures over what was analysed last; scores are None where there was nothing."""
        scored = self._scored
        count = len(scored)
        failed = sum(s.status == "failed" for s in scored)
        levels: dict[str, int] = {}
        for s in scored:
            levels[s.quality_level] = levels.get(s.quality_level, 0) + 1
        return {
            "total_handoffs": count,
            "failed_handoffs": failed,
            "retried_handoffs": sum(s.status == "retried" for s in scored),
            "success_rate": (count - failed) / count if count else None,
            "avg_quality_score": sum(s.quality_score for s in scored) / count if count else None,
            "quality_distribution": levels,
        }


class ContextDriftDetector:
    """Finds what gets lost between agents."""

    def __init__(self) -> None:
        self._analyses: list[DriftAnalysis] = []

    async def detect_drift(self, operations: Any, events: Any = None) -> list[DriftAnalysis]:
        """Return the drift of the handoffs of *events*, or of *operations* where there are none."""
        _, found = _analysed(operations if events is None else events)
        self._analyses = [
            DriftAnalysis(
                from_agent=row.source,
                to_agent=row.target,
                drift_score=row.drift or 0.0,
                has_high_drift=row.high,
                lost_entities=tuple(LostEntity(lost.value, lost.type) for lost in row.lost),
                altered_entities=tuple((c.value, c.becomes) for c in row.altered),
                added_entities=row.added,
                drift=row,
            )
            for row in found.drift
        ]
        return self._analyses

    def get_high_drift_handoffs(self, threshold: float = _HIGH) -> list[DriftAnalysis]:
        """Return those of the last analysis whose drift is above *threshold*, the worst first."""
        high = [a for a in self._analyses if a.drift_score > threshold]
        return sorted(high, key=lambda a: -a.drift_score)


def _scored(handoff: Handoff, gaps: Sequence[float], chain: Sequence[bool]) -> ScoredHandoff:
    correctness = 0.0 if handoff.status == "failed" else 1.0
    efficient = efficiency(handoff.gap_ms, *spread_of(gaps))
    together = sum(chain) / len(chain)
    score = quality(correctness, efficient, together)
    return ScoredHandoff(
        from_agent=handoff.source,
        to_agent=handoff.target,
        status=handoff.status,
        correctness_score=correctness,
        efficiency_score=efficient,
        success_chain_score=together,
        quality_score=score,
        quality_level=level(score),
        handoff=handoff,
    )


def _analysed(events: Any) -> tuple[MultiAgent, Found]:
    """Analyse spans, a table of them, events or plain records."""
    analysis = MultiAgent()
    if hasattr(events, "column_names"):
        table: pa.Table = events
        return analysis, analysis.add_arrow(table)
    given: list[Any] = list(events) if isinstance(events, Iterable) else []
    spans = [item for item in given if isinstance(item, Span)]
    if spans:
        return analysis, analysis.add_spans(spans)
    found = [item for item in given if isinstance(item, Event)]
    records = [item for item in given if isinstance(item, Mapping)]
    contents: dict[str, Content] = contents_of_records(records)
    return analysis, analysis.add_events([*found, *events_from_records(records)], contents)
