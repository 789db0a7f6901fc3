"""Agents, handoffs and drift over any number of spans, a bounded part of them at a time.

Add whole traces, as spans or as an Arrow table, as many at once as fit into memory; what stays are a
few numbers per run and handoff. Nothing is ever matched across traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_core.analysis.agents import Agent, AgentTotals
from llmops_core.analysis.drift import (
    CONTENT_COLUMNS,
    CONTENT_KINDS,
    Content,
    Drift,
    contents_of,
    drift_of,
)
from llmops_core.analysis.edges import Edge, EdgeTotals
from llmops_core.analysis.events import (
    COLUMNS,
    Event,
    events_from_arrow,
    events_from_spans,
)
from llmops_core.analysis.handoffs import Handoff, Loop, handoffs_of, loops_of
from llmops_core.analysis.names import Aliases
from llmops_core.analysis.repair import Partition, Quality, repair

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.analysis.equivalence import Equivalences
    from llmops_core.scanner import EntityExtractor
    from llmops_core.span import Span

__all__ = ["ALL_COLUMNS", "Found", "MultiAgent"]

#: The columns that all analyses of this module read.
ALL_COLUMNS: Final = (*COLUMNS, *CONTENT_COLUMNS)


class Found(NamedTuple):
    """What one part held: its handoffs and loops, and their drift if content was read."""

    handoffs: list[Handoff]
    loops: list[Loop]
    drift: list[Drift]
    #: The events that are runs of agents.
    runs: list[Event]


class MultiAgent:
    """Adds up what it is given. Not safe for several threads; make one for each, or lock."""

    def __init__(
        self,
        *,
        extractors: Iterable[EntityExtractor] = (),
        equivalences: Equivalences | None = None,
        drift: bool = True,
    ) -> None:
        self._aliases = Aliases()
        self._extractors = tuple(extractors)
        self._equivalences = equivalences
        self._with_drift = drift
        self._agents = AgentTotals(self._aliases)
        self._edges = EdgeTotals()
        self.quality = Quality(0, 0, 0, 0, 0, 0, 0)

    def add_spans(self, spans: Sequence[Span]) -> Found:
        """Add whole traces as spans, and return what they held."""
        contents = contents_of(spans) if self._with_drift else {}
        return self.add_events(events_from_spans(spans), contents)

    def add_arrow(self, table: pa.Table) -> Found:
        """Add whole traces as a table of stored spans, and return what they held."""
        contents = _contents(table) if self._with_drift else {}
        return self.add_events(events_from_arrow(table), contents)

    def add_events(
        self, events: Iterable[Event], contents: dict[str, Content] | None = None
    ) -> Found:
        """Add whole partitions as events; without content there is no drift."""
        found = Found([], [], [], [])
        for partition in repair(events, self._aliases):
            handoffs, drift = self._add(partition, contents or {})
            found.handoffs.extend(handoffs)
            found.loops.extend(loops_of(handoffs))
            found.drift.extend(drift)
            found.runs.extend(run.event for run in partition.runs)
        return found

    def agents(self) -> list[Agent]:
        """Return the agents of all that was added."""
        return self._agents.rows()

    def edges(self) -> list[Edge]:
        """Return the edges of all that was added."""
        return self._edges.rows()

    def _add(
        self, partition: Partition, contents: dict[str, Content]
    ) -> tuple[list[Handoff], list[Drift]]:
        handoffs = handoffs_of(partition, self._aliases)
        self._agents.add(partition, handoffs)
        self._edges.add(handoffs)
        self.quality += partition.quality
        drift: list[Drift] = []
        if contents and handoffs:
            drift = drift_of(
                partition,
                handoffs,
                contents,
                extractors=self._extractors,
                equivalences=self._equivalences,
            )
            self._edges.add_drift(drift)
        return handoffs, drift


def _contents(table: pa.Table) -> dict[str, Content]:
    """Return the content of a table's spans of the kinds that drift reads."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = ("span_id", *CONTENT_COLUMNS)
    if not set(names) <= set(table.column_names):
        return {}
    kinds = table["kind"].cast(pa.string())
    kept = table.select(names).filter(pc.is_in(kinds, value_set=pa.array(CONTENT_KINDS)))
    return {row[0]: Content(row[1], row[2], bool(row[3]), bool(row[4])) for row in _rows(kept)}


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
