"""Agents: what each does, how often, how well and at what cost, over any number of partitions."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from llmops_core.analysis.handoffs import Handoff
from llmops_core.analysis.measures import Measure, quantile, share
from llmops_core.analysis.names import Aliases, fold_agent
from llmops_core.analysis.repair import AgentRun, Partition
from llmops_core.analysis.rows import to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Agent", "AgentTotals", "agents_to_arrow"]

#: Roles by what their names have in them, the first that fits.
_ROLES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("router", ("rout", "supervis", "orchestrat", "dispatch", "triage", "coordinat", "manager")),
    ("classifier", ("classif", "intent", "categor")),
    ("reviewer", ("review", "critic", "valid", "verif", "judge", "check", "audit", "quality")),
    ("planner", ("plan", "strateg")),
    ("retriever", ("retriev", "search", "research", "lookup", "surfer", "knowledge", "browse")),
    ("generator", ("writ", "generat", "respond", "answer", "summar", "draft", "translat", "report")),
    ("executor", ("execut", "code", "coder", "terminal", "runner")),
)  # fmt: skip
_TOOL_ROLES: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("retriever", ("search", "retriev", "find", "lookup", "get_", "fetch", "query", "read")),
    ("executor", ("run", "exec", "python", "shell", "write", "send", "create", "update", "delete")),
)  # fmt: skip


class Agent(NamedTuple):
    """One agent over everything that was analysed."""

    agent: str
    role: str
    invocations: int
    success: Measure
    latency_p50_ms: Measure
    latency_p95_ms: Measure
    tokens: int
    cost_usd: float
    #: Agents that it handed over to or was handed work by, the most frequent first.
    collaborators: tuple[str, ...]
    tools: tuple[str, ...]
    #: All the names that it went by.
    names: tuple[str, ...]
    partitions: int


class _Total:
    __slots__ = (
        "collaborators", "cost_usd", "failed", "latencies", "partitions", "runs", "targets",
        "tokens", "tools",
    )  # fmt: skip

    def __init__(self) -> None:
        self.runs = self.failed = self.tokens = self.partitions = 0
        self.cost_usd = 0.0
        self.latencies = array("d")
        self.tools: Counter[str] = Counter()
        self.collaborators: Counter[str] = Counter()
        self.targets: Counter[str] = Counter()


class AgentTotals:
    """Collects partitions one by one; holds one number per run, and no content."""

    def __init__(self, aliases: Aliases) -> None:
        self._aliases = aliases
        self._totals: dict[str, _Total] = {}
        #: How handoffs write the names of those that never ran, which have no alias.
        self._written: dict[str, str] = {}

    def add(self, partition: Partition, handoffs: Iterable[Handoff]) -> None:
        """Count the runs of a partition, and who worked with whom."""
        seen = set()
        for run in partition.runs:
            seen.add(run.agent)
            self._run(self._totals.setdefault(run.agent, _Total()), run)
        for agent in seen:
            self._totals[agent].partitions += 1
        for handoff in handoffs:
            source, target = self._key(handoff.source), self._key(handoff.target)
            if source in self._totals:
                self._totals[source].collaborators[target] += 1
                self._totals[source].targets[target] += 1
            if target in self._totals:
                self._totals[target].collaborators[source] += 1

    def _key(self, name: str) -> str:
        key = fold_agent(name)
        self._written.setdefault(key, name)
        return key

    def rows(self) -> list[Agent]:
        """Return the agents, the most often invoked first."""
        found = [self._row(key, total) for key, total in self._totals.items()]
        return sorted(found, key=lambda row: (-row.invocations, row.agent))

    def _run(self, total: _Total, run: AgentRun) -> None:
        total.runs += 1
        total.failed += run.failed
        total.tokens += run.tokens
        total.cost_usd += run.cost_usd
        if run.event.kind != "message":
            total.latencies.append((run.end - run.start) / 1000)
        total.tools.update(run.tools)

    def _row(self, key: str, total: _Total) -> Agent:
        return Agent(
            agent=self._aliases.shown(key),
            role=_role(self._aliases.shown(key), total),
            invocations=total.runs,
            success=share(total.runs - total.failed, total.runs),
            latency_p50_ms=quantile(total.latencies, 0.5),
            latency_p95_ms=quantile(total.latencies, 0.95),
            tokens=total.tokens,
            cost_usd=total.cost_usd,
            collaborators=tuple(
                self._aliases.shown(k, self._written[k]) for k, _ in _ranked(total.collaborators)
            ),
            tools=tuple(name for name, _ in _ranked(total.tools)),
            names=self._aliases.spellings(key),
            partitions=total.partitions,
        )


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _role(name: str, total: _Total) -> str:
    """Return what an agent is for: by its name, else its tools, else what it does."""
    lowered = name.casefold()
    for role, marks in _ROLES:
        if any(mark in lowered for mark in marks):
            return role
    for role, marks in _TOOL_ROLES:
        if any(mark in tool.casefold() for tool in total.tools for mark in marks):
            return role
    if len(total.targets) >= 2 and not total.tools:
        return "router"
    return "specialist" if total.tools else "generator"


def agents_to_arrow(rows: Sequence[Agent]) -> pa.Table:
    """Return agents as a table."""
    return to_arrow(rows, Agent)
