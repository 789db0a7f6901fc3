"""What the tracer keeps of an open run and of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmops_core.freeze.freezer import Frozen

if TYPE_CHECKING:
    from llmops_core.intake.handoffs import Request

__all__ = ["Run", "Trace", "closing_outcome", "nearest_agent"]


class Trace:
    """One tree of runs: a clock pair, the runs that are open, and when it last moved."""

    __slots__ = (
        "awaited",
        "ended",
        "handoff_count",
        "handoffs",
        "held",
        "last_ns",
        "lost_handoffs",
        "mono_ns",
        "open",
        "over_limit",
        "root",
        "since_ns",
        "spans",
        "trace_id",
        "wall_ns",
    )

    def __init__(self, trace_id: str, mono_ns: int, wall_ns: int) -> None:
        self.trace_id = trace_id
        # One pair for the whole tree: wall clocks step, durations must not.
        self.mono_ns = mono_ns
        self.wall_ns = wall_ns
        self.last_ns = mono_ns
        self.root: Run | None = None
        self.open: dict[int, Run] = {}
        self.spans = 0
        self.over_limit = 0
        self.ended = False
        self.awaited: int | None = None
        self.since_ns = mono_ns
        self.handoffs: list[Request] = []
        self.handoff_count = 0
        self.lost_handoffs = 0
        self.held: list[tuple[dict[str, Any], Run]] = []

    def wall_us(self, mono_ns: int) -> int:
        """Return UTC microseconds of a monotonic reading."""
        return (self.wall_ns + mono_ns - self.mono_ns) // 1000


class Run:
    """One run between its start and its end, and shortly afterwards."""

    __slots__ = (
        "awaited_parent",
        "called_by",
        "closed_by_us",
        "confirmed",
        "end_ns",
        "ended_agents",
        "failed",
        "fields",
        "first_llm_input",
        "first_token_ns",
        "has_agent",
        "inner_agent",
        "kind",
        "last_llm_output",
        "nodes_in_step",
        "open_streams",
        "outcome",
        "parent",
        "promotable",
        "remote_parent",
        "retry_key",
        "run_id",
        "said",
        "span_id",
        "start_known",
        "start_ns",
        "starts",
        "trace",
        "tries",
        "wraps",
    )

    trace: Trace

    def __init__(
        self, run_id: int, fields: dict[str, Any], start_ns: int, promotable: bool
    ) -> None:
        self.run_id = run_id
        self.fields = fields
        self.kind: str = fields.get("kind") or "chain"
        self.start_ns = start_ns
        self.start_known = True
        self.promotable = promotable
        self.span_id = ""
        self.starts = 1
        self.parent: Run | None = None
        self.awaited_parent: int | None = None
        self.first_token_ns: int | None = None
        self.has_agent = False
        #: The span of another process, or of another library, that a root is a child of.
        self.remote_parent: str | None = None
        self.open_streams = 0
        self.outcome: str | None = None
        self.closed_by_us = False
        self.end_ns = 0
        self.retry_key: tuple[Any, Any] | None = None
        self.tries: dict[tuple[Any, Any], int] | None = None
        #: Plain functions that failed in this run: what each was given, and which try it was.
        self.failed: dict[Any, tuple[Frozen | None, int]] | None = None
        self.nodes_in_step: dict[int, set[Any]] | None = None
        # What handoffs need to know; tuples until somebody has something to remember.
        self.inner_agent: str | None = None
        #: The agent whose own run this node holds; "" if it holds several.
        self.wraps: str | None = None
        self.first_llm_input: Frozen | None = None
        self.last_llm_output: Frozen | None = None
        #: What an agent that is a plain function returned.
        self.said: Frozen | None = None
        self.confirmed: Sequence[Request] = ()
        self.ended_agents: Sequence[Run] = ()
        self.called_by: frozenset[str] = frozenset()

    @property
    def given(self) -> Frozen | None:
        """The run's own input, while it is open."""
        given = self.fields.get("input")
        return given if type(given) is Frozen else None

    def forget_content(self) -> None:
        """Let go of the texts that only handoffs need."""
        self.first_llm_input = self.last_llm_output = self.said = None


def nearest_agent(run: Run, *, including: bool = False) -> tuple[str | None, str | None]:
    """Return name and span id of the nearest enclosing agent.

    Read at the end of a run, not at its start: a node becomes an agent when it calls a model, and
    what ran in it before belongs to it as well.
    """
    above: Run | None = run if including else run.parent
    named: str | None = None
    while above is not None:
        if above.kind == "agent":
            return named or above.fields.get("agent") or above.fields.get("name"), above.span_id
        named = named or above.fields.get("agent")
        above = above.parent
    return named, None


def closing_outcome(run: Run) -> str:
    """Return how a run that never ended is closed: as the ended run above it, if that was stopped."""
    above = run.parent
    while above is not None:
        if above.outcome in ("cancelled", "abandoned"):
            return above.outcome
        above = above.parent
    return "incomplete"
