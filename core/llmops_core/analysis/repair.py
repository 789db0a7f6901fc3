"""Repair: events as they come, into runs of agents that hang where they belong.

Exports lose parents, repeat and shuffle spans, spell a name in several ways, wrap agents into chains
and have skewed clocks. What was repaired is counted: :class:`Quality` says how far to trust the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from llmops_core.analysis.events import Event
from llmops_core.analysis.names import Aliases, is_participant, speaker

__all__ = ["SKEW_US", "AgentRun", "Partition", "Quality", "repair"]

#: Overlaps below this are clocks that differ, not agents that run side by side.
SKEW_US: Final = 10_000

#: Kinds that hold others together. The rest only work for an agent.
_CONTAINERS: Final = frozenset(("workflow", "agent"))


class Quality(NamedTuple):
    """What was wrong with the events of a partition, and a score from 0 to 1."""

    events: int
    duplicates: int
    orphans: int
    reattached: int
    inverted: int
    aliases: int
    incomplete: int

    @property
    def score(self) -> float:
        """1 where nothing had to be repaired; what could not be repaired counts double."""
        if not self.events:
            return 1.0
        lost = self.orphans - self.reattached
        faults = self.duplicates + self.orphans + lost + self.inverted + self.aliases
        return max(0.0, 1 - (faults + self.incomplete) / self.events)

    def __add__(self, other: object) -> Quality:
        if not isinstance(other, Quality):
            return NotImplemented
        return Quality(*(a + b for a, b in zip(self, other, strict=True)))


class AgentRun:
    """One run of an agent: where it hangs, and what it did itself."""

    __slots__ = (
        "agent", "attempt", "children", "cost_usd", "end", "event", "failed", "parent",
        "partition", "start", "tokens", "tools",
    )  # fmt: skip

    def __init__(self, event: Event, agent: str) -> None:
        self.event = event
        self.agent = agent
        self.partition = event.partition
        self.start = event.start
        self.end = max(event.start, event.end)
        self.failed = event.failed
        self.attempt = event.attempt
        #: The agent's run that it hangs below; None below a workflow.
        self.parent: AgentRun | None = None
        self.children: list[AgentRun] = []
        self.tools: list[str] = []
        self.tokens = 0
        self.cost_usd = 0.0


class Partition(NamedTuple):
    """The runs of one partition, as trees, and the events that were requests for a handoff."""

    name: str
    session_id: str | None
    #: By workflow: runs that no agent's run is above, in order of time.
    tops: list[list[AgentRun]]
    runs: list[AgentRun]
    requests: list[tuple[Event, AgentRun | None]]
    #: Every event by its span id, repeated ones once.
    events: dict[str, Event]
    #: The agent's run that each span belongs to.
    owner: dict[str, AgentRun]
    quality: Quality


def repair(events: Iterable[Event], aliases: Aliases | None = None) -> list[Partition]:
    """Return the repaired partitions of *events*, in the order in which they first come."""
    aliases = Aliases() if aliases is None else aliases
    by_partition: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_partition[event.partition].append(event)
    return [_partition(name, found, aliases) for name, found in by_partition.items()]


def _partition(name: str, found: Sequence[Event], aliases: Aliases) -> Partition:
    known: dict[str, Event] = {}
    inverted = incomplete = 0
    for event in found:
        if event.span_id not in known:
            known[event.span_id] = event
            inverted += event.end < event.start
            incomplete += event.outcome == "incomplete" and event.kind != "handoff"
    before = aliases.folded
    runs = {
        span_id: AgentRun(event, aliases.add(agent))
        for span_id, event in known.items()
        if (agent := _agent(event)) is not None
    }
    orphans = {
        e.span_id for e in known.values() if e.parent_id is not None and e.parent_id not in known
    }
    parents = _Parents(known, orphans)
    owner: dict[str, AgentRun] = {}
    requests: list[tuple[Event, AgentRun | None]] = []
    tops: dict[str | None, list[AgentRun]] = defaultdict(list)
    for span_id, event in known.items():
        above, workflow = _above(event, parents, runs)
        run = runs.get(span_id)
        if run is not None:
            owner[span_id] = run
            _hang(run, above, tops[workflow])
        elif above is not None:
            owner[span_id] = above
            _work(above, event)
        if event.kind == "handoff":
            requests.append((event, above))
    ordered = sorted(runs.values(), key=_by_time)
    for run in ordered:
        run.children.sort(key=_by_time)
    for top in tops.values():
        top.sort(key=_by_time)
    requests.sort(key=lambda pair: (pair[0].start, pair[0].event_id))
    quality = Quality(
        events=len(found),
        duplicates=len(found) - len(known),
        orphans=len(orphans),
        reattached=parents.reattached,
        inverted=inverted,
        aliases=aliases.folded - before,
        incomplete=incomplete,
    )
    session = next((e.session_id for e in found if e.session_id), None)
    filled = [top for top in tops.values() if top]
    filled.sort(key=lambda top: _by_time(top[0]))
    return Partition(name, session, filled, ordered, requests, known, owner, quality)


def _agent(event: Event) -> str | None:
    """Return the name of the agent that an event is a run of, None for anything else."""
    if event.kind == "agent":
        return event.agent or event.name
    if event.kind == "chain" and event.mechanism == "node":
        return event.agent
    if event.kind == "message" and is_participant(event.name):
        return speaker(event.name)
    return None


def _by_time(run: AgentRun) -> tuple[float, float, str]:
    return (run.start, run.attempt or 0, run.event.event_id)


def _hang(run: AgentRun, above: AgentRun | None, top: list[AgentRun]) -> None:
    """Hang a run below the run above it; the same agent inside itself is one run."""
    while above is not None and above.agent == run.agent:
        if above.parent is None:
            break
        above = above.parent
    if above is not None and above.agent != run.agent:
        run.parent = above
        above.children.append(run)
    else:
        top.append(run)


def _work(run: AgentRun, event: Event) -> None:
    if event.kind in ("tool", "retriever"):
        run.tools.append(event.name)
    elif event.kind in ("llm", "embedding"):
        run.tokens += event.tokens
        run.cost_usd += event.cost_usd


def _above(
    event: Event, parents: _Parents, runs: dict[str, AgentRun]
) -> tuple[AgentRun | None, str | None]:
    """Return the agent's run above an event, and the workflow, through whatever wraps it."""
    seen = {event.span_id}
    at = parents.of(event)
    while at is not None and at.span_id not in seen:
        run = runs.get(at.span_id)
        if run is not None:
            return run, None
        if at.kind == "workflow" and parents.of(at) is None:
            return None, at.span_id
        seen.add(at.span_id)
        at = parents.of(at)
    return None, None


class _Parents:
    """The parent of each event; a lost one is the smallest container that spans the event."""

    def __init__(self, known: dict[str, Event], orphans: set[str]) -> None:
        self._known = known
        self._orphans = orphans
        self._found: dict[str, Event | None] = {}
        self.reattached = 0
        self._containers: list[Event] = []
        self._starts: list[float] = []
        if orphans:
            self._containers = sorted(
                (
                    e
                    for e in known.values()
                    if e.kind in _CONTAINERS or (e.kind == "chain" and e.mechanism == "node")
                ),
                key=lambda e: (e.start, -e.end),
            )
            self._starts = [e.start for e in self._containers]

    def of(self, event: Event) -> Event | None:
        """Return the parent of an event, or None for a root."""
        if event.span_id not in self._orphans:
            return self._known.get(event.parent_id) if event.parent_id else None
        if event.span_id not in self._found:
            self._found[event.span_id] = self._containing(event)
            self.reattached += self._found[event.span_id] is not None
        return self._found[event.span_id]

    def _containing(self, event: Event) -> Event | None:
        """Return the container that began last and ends after the event, within the skew.

        Looks back over a bounded number of containers: those further back span everything since.
        """
        last = bisect_right(self._starts, event.start + SKEW_US)
        for at in range(last - 1, max(-1, last - 257), -1):
            other = self._containers[at]
            if other.span_id == event.span_id or other.end < event.end - SKEW_US:
                continue
            # Of two that span the same, neither is in the other.
            if other.end - other.start > event.end - event.start and self._is_above(other, event):
                return other
        return None

    def _is_above(self, other: Event, event: Event) -> bool:
        """Whether making *other* the parent of *event* makes no circle."""
        seen = set()
        at: Event | None = other
        while at is not None and at.span_id not in seen:
            if at.span_id == event.span_id:
                return False
            seen.add(at.span_id)
            at = self._known.get(at.parent_id) if at.parent_id else None
        return True
