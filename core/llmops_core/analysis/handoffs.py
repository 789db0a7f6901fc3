"""Handoffs: who handed over to whom, how it ended, and how good it was.

Where handoffs were recorded as spans they are taken as they are. Elsewhere they follow from the runs:

1. a run directly inside another agent's run was handed its work by that agent, whatever its siblings;
2. runs below a workflow follow each other in time; overlapping ones are branches, each handed its
   work by the last sequential agent, and each hands over to whoever comes next;
3. the same agent again is no handoff;
4. a run that failed is a failed handoff, and another attempt is another handoff from the same
   sender: ``retried`` when it works. Who takes over in its stead has the same sender;
5. a transfer that failed, and whose target never ran, is a failed handoff.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from llmops_core.analysis.events import Event
from llmops_core.analysis.names import Aliases, fold_agent
from llmops_core.analysis.repair import SKEW_US, AgentRun, Partition

__all__ = ["Handoff", "Loop", "Status", "handoffs_of", "loops_of"]

#: ``pending``: the target has not started because the whole run waits for a human.
Status = Literal["ok", "failed", "retried", "pending"]

#: Handoffs between the same two agents in a row that make a loop.
LOOP: Final = 4


class Handoff(NamedTuple):
    """One handoff. Times are microseconds."""

    partition: str
    session_id: str | None
    source: str
    target: str
    mechanism: str
    status: Status
    confirmed: bool
    #: From the source's end (or its request) to the target's start; below zero for a run inside.
    gap_ms: float | None
    start: float
    #: What it leads to: the target's run, or the request where the target never ran.
    to_event: str
    source_span: str | None
    target_span: str | None
    #: The recorded handoff span, where there is one.
    span_id: str | None

    @property
    def key(self) -> str:
        """What tells this handoff from all others."""
        return f"{self.partition} {self.to_event} {self.source}"


class Loop(NamedTuple):
    """Two agents that hand over to each other again and again."""

    partition: str
    session_id: str | None
    agents: tuple[str, str]
    turns: int
    start: float


def handoffs_of(partition: Partition, aliases: Aliases) -> list[Handoff]:
    """Return the handoffs of a repaired partition, in order of time."""
    recorded = [pair for pair in partition.requests if pair[0].mechanism]
    if recorded:
        found = list(_Recorded(partition, aliases).handoffs([event for event, _ in recorded]))
    else:
        found = [*_structural(partition, aliases), *_refused(partition, aliases)]
    found.sort(key=lambda h: (h.start, h.to_event))
    return found


def loops_of(handoffs: Sequence[Handoff]) -> list[Loop]:
    """Return the stretches in which two agents alternate at least four handoffs, one partition's.

    An agent that gives one run several of its outputs, as crews do with all that was said before, has
    taken one turn.
    """
    loops: list[Loop] = []
    run: list[Handoff] = []
    for handoff in sorted(handoffs, key=lambda h: (h.start, h.to_event)):
        if run and _turn(handoff) == _turn(run[-1]):
            continue
        turned = run and (handoff.source, handoff.target) == (run[-1].target, run[-1].source)
        if not turned:
            loops += _loop(run)
            run = []
        run.append(handoff)
    return loops + _loop(run)


def _turn(handoff: Handoff) -> tuple[str, str, str]:
    return handoff.source, handoff.target, handoff.to_event


def _loop(run: list[Handoff]) -> list[Loop]:
    if len(run) < LOOP:
        return []
    first = run[0]
    agents = tuple(sorted((first.source, first.target)))
    return [Loop(first.partition, first.session_id, (agents[0], agents[1]), len(run), first.start)]


# ---- from runs alone ----


def _structural(partition: Partition, aliases: Aliases) -> Iterator[Handoff]:
    for top in partition.tops:
        yield from _sequence(partition, top, aliases)
    for parent in partition.runs:
        known: set[str] = set()
        for child in parent.children:
            yield _handoff(partition, parent, child, _status(child, known), "tool", aliases)


def _sequence(
    partition: Partition, runs: Sequence[AgentRun], aliases: Aliases
) -> Iterator[Handoff]:
    """Yield the handoffs of runs that follow each other below one workflow."""
    senders: list[AgentRun] = []
    failed: set[str] = set()
    for group in _groups(runs):
        done: dict[str, AgentRun] = {}
        for run in group:
            if [s.agent for s in senders] != [run.agent]:
                status = _status(run, failed)
                for sender in senders:
                    if sender.agent != run.agent:
                        yield _handoff(partition, sender, run, status, "edge", aliases)
            if not run.failed:
                done[run.agent] = run
        if done:
            senders = list(done.values())
            failed = set()


def _status(run: AgentRun, failed: set[str]) -> Status:
    """Return how a handoff to a run ended; *failed* remembers who failed since the last success."""
    if run.failed:
        failed.add(run.agent)
        return "failed"
    if run.agent in failed:
        failed.discard(run.agent)
        return "retried"
    return "ok"


def _groups(runs: Sequence[AgentRun]) -> Iterator[list[AgentRun]]:
    """Yield runs that overlap by more than the skew together, the rest alone."""
    group: list[AgentRun] = []
    until = 0.0
    for run in runs:
        if group and run.start > until - SKEW_US:
            yield group
            group = []
        until = max(until, run.end) if group else run.end
        group.append(run)
    if group:
        yield group


def _refused(partition: Partition, aliases: Aliases) -> Iterator[Handoff]:
    """Yield the transfers that failed and whose target never ran after them."""
    runs_of: dict[str, list[float]] = defaultdict(list)
    for run in partition.runs:
        runs_of[run.agent].append(run.start)
    ends = [run.start for run in partition.runs]  # in order
    for event, above in partition.requests:
        target = fold_agent(event.target or event.name.removeprefix("transfer_to_"))
        starts = runs_of.get(target, [])
        at = bisect.bisect_left(starts, event.start - SKEW_US)
        if not event.failed or at < len(starts):
            continue
        source = above
        if source is None:
            last = bisect.bisect_right(ends, event.start) - 1
            source = partition.runs[last] if last >= 0 else None
        if source is None or source.agent == target:
            continue
        yield _request(partition, event, source.agent, target, source, "failed", aliases)


def _handoff(
    partition: Partition,
    source: AgentRun,
    target: AgentRun,
    status: Status,
    mechanism: str,
    aliases: Aliases,
) -> Handoff:
    since = source.start if mechanism == "tool" else source.end
    return Handoff(
        partition=partition.name,
        session_id=partition.session_id,
        source=aliases.shown(source.agent),
        target=aliases.shown(target.agent),
        mechanism=mechanism,
        status=status,
        confirmed=True,
        gap_ms=(target.start - since) / 1000,
        start=target.start,
        to_event=target.event.event_id,
        source_span=source.event.span_id,
        target_span=target.event.span_id,
        span_id=None,
    )


# ---- recorded as spans ----


class _Recorded:
    """The handoffs of a partition that recorded them, and what became of each target's run."""

    def __init__(self, partition: Partition, aliases: Aliases) -> None:
        self._partition = partition
        self._aliases = aliases
        self._runs: dict[str, list[AgentRun]] = defaultdict(list)
        for run in partition.runs:
            self._runs[run.agent].append(run)
        self._waits = any(e.outcome == "interrupted" for e in partition.events.values())
        #: Pairs whose last handoff failed, and runs that a handoff led to.
        self._failed: set[tuple[str, str]] = set()
        self._answered: set[tuple[str, str]] = set()

    def handoffs(self, events: Sequence[Event]) -> Iterator[Handoff]:
        for event in events:
            pair = (fold_agent(event.agent or ""), fold_agent(event.target or ""))
            reached = None
            if event.confirmed:
                reached = _nearest(self._runs.get(pair[1], ()), event.end)
            failed = event.failed or not event.confirmed or (reached is not None and reached.failed)
            source = _last_until(self._runs.get(pair[0], ()), event.start + SKEW_US)
            waits = self._waits and not event.confirmed and not event.failed
            status: Status = "pending" if waits else self._status(pair, failed)
            handoff = _request(self._partition, event, *pair, source, status, self._aliases)
            if reached is not None:
                handoff = _leading_to(handoff, reached)
                self._answered.add((pair[0], reached.event.span_id))
            yield handoff
            if reached is not None and reached.failed:
                yield from self._attempts(handoff, reached, pair)

    def _status(self, pair: tuple[str, str], failed: bool) -> Status:
        if failed:
            self._failed.add(pair)
            return "failed"
        if pair in self._failed:
            self._failed.discard(pair)
            return "retried"
        return "ok"

    def _attempts(
        self, handoff: Handoff, run: AgentRun, pair: tuple[str, str]
    ) -> Iterator[Handoff]:
        """Yield the handoffs to further attempts of a failed run: no span was recorded for them."""
        for again in self._runs[pair[1]]:
            known = (pair[0], again.event.span_id)
            if again.start < run.end - SKEW_US or (again.attempt or 1) < 2:
                continue
            if known in self._answered:
                continue
            self._answered.add(known)
            status = self._status(pair, again.failed)
            gap_ms = (again.start - run.end) / 1000
            yield _leading_to(handoff, again)._replace(status=status, gap_ms=gap_ms)
            if status != "failed":
                return


def _leading_to(handoff: Handoff, run: AgentRun) -> Handoff:
    event = run.event
    return handoff._replace(target_span=event.span_id, to_event=event.event_id, start=run.start)


def _nearest(runs: Sequence[AgentRun], start: float) -> AgentRun | None:
    """Return the run that starts where a handoff ends; within the skew before it, or any time after.

    The nearest, not the first: short runs follow each other faster than clocks differ.
    """
    at = bisect.bisect_left(runs, start, key=lambda run: run.start)
    after = runs[at] if at < len(runs) else None
    before = runs[at - 1] if at else None
    if before is None or start - before.start > SKEW_US:
        return after
    if after is None or start - before.start < after.start - start:
        return before
    return after


def _last_until(runs: Sequence[AgentRun], start: float) -> AgentRun | None:
    at = bisect.bisect_right(runs, start, key=lambda run: run.start)
    return runs[at - 1] if at else None


def _request(
    partition: Partition,
    event: Event,
    source: str,
    target: str,
    run: AgentRun | None,
    status: Status,
    aliases: Aliases,
) -> Handoff:
    confirmed = bool(event.confirmed)
    return Handoff(
        partition=partition.name,
        session_id=partition.session_id,
        source=aliases.shown(source, event.agent),
        target=aliases.shown(target, event.target),
        mechanism=event.mechanism or "transfer",
        status=status,
        confirmed=confirmed,
        gap_ms=(event.end - event.start) / 1000 if confirmed else None,
        start=event.start,
        to_event=event.event_id,
        source_span=run.event.span_id if run is not None else None,
        target_span=None,
        span_id=event.span_id,
    )


def all_handoffs(partitions: Iterable[Partition], aliases: Aliases) -> list[Handoff]:
    """Return the handoffs of several partitions, which never mix."""
    return [h for partition in partitions for h in handoffs_of(partition, aliases)]
