"""The traces of runs whose parent was not seen to start.

Only where a framework's events overtake each other (``_late_parent``) is the parent awaited, and what
its children finish held. Elsewhere it will not come: it ran without us, and its children keep its id
as their trace's, as if it were a root.
"""

from __future__ import annotations

from llmops_core.clock import Clock
from llmops_core.intake.drafts import INHERITED, Draft, inherit
from llmops_core.intake.queue import HostEvent
from llmops_core.intake.state import Run, Trace, nearest_agent

__all__ = ["Unseen"]


class Unseen:
    """Finds and keeps traces by the id of the parent that nobody saw; *most* of those given up."""

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        #: Parents that may still come.
        self.awaited: dict[int, Trace] = {}
        self._given_up: dict[int, Trace] = {}

    @property
    def held(self) -> int:
        """Finished spans that wait for their parent's start."""
        return sum(len(trace.held) for trace in list(self.awaited.values()))

    def trace_of(self, parent_id: int, run: Run, event: HostEvent) -> Trace:
        """Find or open the trace of a child whose parent was not seen."""
        late = run.fields.pop("_late_parent", False)
        trace = self.awaited.get(parent_id) or self._given_up.get(parent_id)
        if trace is None:
            trace = Trace(f"{parent_id:032x}", event[3], event[4])
            if late:
                trace.awaited = parent_id
                trace.since_ns = self._clock.monotonic_ns()
                self.awaited[parent_id] = trace
            else:
                self._remember(parent_id, trace)
        return trace

    def since(self, ns: int) -> list[Trace]:
        """Return the traces that have waited since before *ns*."""
        return [trace for trace in self.awaited.values() if trace.since_ns <= ns]

    def found(self, parent: Run) -> list[Draft]:
        """The awaited parent has started: its early children join it, and what they had finished.

        Returns the drafts that were held.
        """
        adopted = self.awaited.pop(parent.run_id)
        for run in adopted.open.values():
            _join(run, parent)
        parent.trace.open.update(adopted.open)
        parent.trace.spans += adopted.spans
        parent.trace.last_ns = max(parent.trace.last_ns, adopted.last_ns)
        agent, agent_span = nearest_agent(parent, including=True)
        for draft, run in adopted.held:
            _join(run, parent)  # it has ended, and may get children yet
            draft["trace_id"] = parent.trace.trace_id
            for name in INHERITED:
                if draft.get(name) is None:
                    draft[name] = parent.fields.get(name)
            if draft.get("agent_span_id") is None:
                draft["agent_span_id"] = agent_span
                draft["agent"] = draft.get("agent") or agent
        return [draft for draft, _ in adopted.held]

    def give_up(self, trace: Trace) -> list[Draft]:
        """Wait no longer for a trace's parent; return the drafts that were held."""
        if trace.awaited is not None:
            self.awaited.pop(trace.awaited, None)
            self._remember(trace.awaited, trace)
            trace.awaited = None
        held, trace.held = trace.held, []
        return [draft for draft, _ in held]

    def _remember(self, parent_id: int, trace: Trace) -> None:
        self._given_up[parent_id] = trace
        while len(self._given_up) > self._most:
            self._given_up.pop(next(iter(self._given_up)))


def _join(run: Run, parent: Run) -> None:
    run.trace = parent.trace
    if run.awaited_parent == parent.run_id:
        run.parent, run.awaited_parent = parent, None
        inherit(run)
