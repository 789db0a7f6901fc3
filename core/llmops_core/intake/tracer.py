"""Pairs starts and ends into finished spans. The only place that knows that a span is open.

Runs on the intake thread alone, so it needs no locks. It yields *drafts*: dicts of span fields whose
``input`` and ``output`` are still frozen values; :mod:`llmops_core.intake.finish` makes them spans.

Parents come from run ids, never from attached context: a handler that serves many concurrent runs
sees them interleaved on any thread.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from llmops_core.clock import Clock
from llmops_core.config import Settings
from llmops_core.intake import agents, attempts
from llmops_core.intake.drafts import (
    INHERITED,
    NS_PER_MS,
    Draft,
    draft_of,
    handoff_draft,
    inherit,
    span_id_of,
)
from llmops_core.intake.handoffs import Handoffs, is_agent
from llmops_core.intake.queue import END, HANDOFF, MARK, POINT, PROMOTE, START, HostEvent
from llmops_core.intake.state import Run, Trace, closing_outcome
from llmops_core.intake.unseen import Unseen

__all__ = ["Draft", "Tracer", "span_id_of"]

#: How long an end waits for its start, a child for its parent, and an open child after its root
#: ended: CrewAI runs listeners in a pool, so arrival order is not event order.
GRACE_NS: Final = 5_000 * NS_PER_MS
#: Ended runs that are remembered: for children that start late, and so that twice is once.
MAX_ENDED: Final = 20_000
#: What of an ended run is still asked for: by what starts below it, and by edges between agents.
_REMEMBERED: Final = (*INHERITED, "agent", "name", "step", "framework")


class Tracer:
    """The table of open runs. Feed it events and the time; it appends drafts to :attr:`finished`."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.finished: list[Draft] = []
        self.made = 0
        #: Moves whenever what is open changes.
        self.version = 0
        self.skipped: dict[str, int] = {}
        self.notes: dict[str, int] = {}
        self._open: dict[int, Run] = {}
        self._ended: OrderedDict[int, Run] = OrderedDict()
        self._early_ends: dict[int, HostEvent] = {}
        self._unseen = Unseen(clock, MAX_ENDED)
        self._over_limit: dict[int, Trace] = {}
        self._lingering: set[Trace] = set()
        self._idle_checked_ns = 0
        self._handoffs = Handoffs(self._emit_handoff)

    @property
    def open_count(self) -> int:
        """Spans that are open now, and ends that wait for their start."""
        return len(self._open) + len(self._early_ends)

    @property
    def pending_held(self) -> int:
        """Finished spans that wait for their parent's start."""
        return self._unseen.held

    def feed(self, event: HostEvent) -> None:
        """Take one event, in the order in which events were put."""
        what = event[0]
        if what == START:
            self._start(event)
        elif what == END:
            self._end(event)
        elif what == MARK:
            self._mark(event)
        elif what == POINT:
            self._point(event)
        elif what == HANDOFF:
            self._handoff(event)
        elif what == PROMOTE:
            run = self._open.get(event[1])
            if run is not None:
                agents.promote(run)

    # ---- starts ----

    def _start(self, event: HostEvent) -> Run | None:
        _, run_id, parent_id, mono, _wall, fields, _, promotable = event
        if run_id in self._open:
            self._note("duplicate_start")
            return None
        before = self._ended.get(run_id)
        if before is not None:
            self._note("restarted_run")
        run = Run(run_id, fields, mono, promotable)
        run.starts = before.starts + 1 if before else 1
        run.span_id = span_id_of(run_id, run.starts)
        trace = self._place(run, parent_id, event)
        if trace is None:
            return None
        if mono > trace.last_ns:
            trace.last_ns = mono
        inherit(run)
        attempts.started(run)
        if self._unseen.awaited.get(run_id, trace) is not trace:
            self.finished += self._unseen.found(run)
        self._open[run_id] = run
        trace.open[run_id] = run
        trace.ended = trace.ended and trace.root is not None
        self.version += 1
        self._tell(run)
        self._settle(run)
        return run

    def _tell(self, run: Run) -> None:
        agents.run_started(run)
        if run.kind == "llm":
            agents.model_started(run)
        if run.trace.handoffs:
            self._handoffs.started(run)

    def _settle(self, run: Run) -> None:
        """End a run at once if its end came first; make room if too many are open."""
        early = self._early_ends.pop(run.run_id, None)
        if early is not None:
            self._end(early)
        elif len(self._open) > self.settings.open_spans:
            self._evict_idlest()

    def _place(self, run: Run, parent_id: int | None, event: HostEvent) -> Trace | None:
        """Find or make the run's trace; None where the trace has all the spans it may have."""
        parent = None
        if parent_id is not None:
            parent = self._open.get(parent_id) or self._ended.get(parent_id)
            full = self._over_limit.get(parent_id)
            if parent is None and full is not None:
                self._skip_over_limit(run.run_id, full)
                return None
        if parent is not None:
            trace = parent.trace
        elif parent_id is None:
            trace = self._adopt(run, event)
        else:
            trace = self._unseen.trace_of(parent_id, run, event)
            run.awaited_parent = parent_id
        if trace.spans >= self.settings.trace_spans and trace.root is not run:
            self._skip_over_limit(run.run_id, trace)
            return None
        run.trace, run.parent = trace, parent
        trace.spans += 1
        return trace

    def _adopt(self, run: Run, event: HostEvent) -> Trace:
        # A root that joins others in one trace (monitoring_trace) brings its id.
        named = run.fields.pop("_trace_id", None)
        trace = Trace(named or f"{run.run_id:032x}", event[3], event[4])
        trace.root = run
        run.remote_parent = run.fields.pop("_remote_parent", None)
        return trace

    def _handoff(self, event: HostEvent) -> None:
        run = self._open.get(event[1]) or self._ended.get(event[1])
        if run is None:
            self._note("handoff_of_unknown_run")
        elif self._handoffs.request(run, event[5], event[3]):
            run.trace.last_ns = max(run.trace.last_ns, event[3])
        elif run.trace.lost_handoffs:
            run.trace.lost_handoffs -= 1
            self._note("handoff_limit")

    def _emit_handoff(self, above: Run, fields: Draft, start_ns: int, end_ns: int) -> None:
        self._emit(above, handoff_draft(above, fields, start_ns, end_ns))

    def _skip_over_limit(self, run_id: int, trace: Trace) -> None:
        self.made += 1
        self.skipped["span_limit"] = self.skipped.get("span_limit", 0) + 1
        trace.over_limit += 1
        self._over_limit[run_id] = trace
        if len(self._over_limit) > self.settings.open_spans:
            self._over_limit.pop(next(iter(self._over_limit)))

    # ---- ends ----

    def _end(self, event: HostEvent) -> None:
        _, run_id, _parent, mono, _, fields, _, _ = event
        run = self._open.get(run_id)
        if run is None:
            self._end_without_start(event)
            return
        outcome = fields.get("outcome") or "ok"
        if outcome == "ok" and run.open_streams:
            # A sync chain whose stream is left early reports success, then its model GeneratorExit.
            outcome = "abandoned"
        self._close(run, mono, fields, outcome)

    def _end_without_start(self, event: HostEvent) -> None:
        run_id = event[1]
        if self._over_limit.pop(run_id, None) is not None:
            return
        if run_id in self._ended:
            self._note("late_end" if self._ended[run_id].closed_by_us else "duplicate_end")
            return
        if run_id in self._early_ends:
            self._note("duplicate_end")
            return
        if "_start" in event[5]:  # refused under overload, then failed: its start comes along
            self._end_alone(event)
            return
        self._early_ends[run_id] = event
        if len(self._early_ends) > self.settings.open_spans:
            self._end_alone(self._early_ends.pop(next(iter(self._early_ends))))

    def _end_alone(self, event: HostEvent) -> None:
        """Make a span of an end whose start never came: better half a span than none."""
        fields = dict(event[5])
        start = fields.pop("_start", None)
        if start is None:
            self._note("end_without_start")
        mono = start[0] if start else event[3]
        run = self._start((START, event[1], event[2], mono, event[4], fields, 0, False))
        if run is None:
            return
        run.start_known = start is not None
        self._close(run, event[3], {}, fields.get("outcome") or "ok")

    def _mark(self, event: HostEvent) -> None:
        run = self._open.get(event[1])
        if run is None or run.first_token_ns is not None:
            return
        run.first_token_ns = event[3]
        run.trace.last_ns = max(run.trace.last_ns, event[3])
        above = run.parent
        while above is not None:
            above.open_streams += 1
            above = above.parent

    def _point(self, event: HostEvent) -> None:
        run = self._start((START, *event[1:]))
        if run is not None:
            self._close(run, event[3], {}, event[5].get("outcome") or "ok")

    def _close(self, run: Run, mono: int, fields: dict[str, Any], outcome: str) -> None:
        trace = run.trace
        del self._open[run.run_id]
        self.version += 1
        trace.open.pop(run.run_id, None)
        if mono > trace.last_ns:
            trace.last_ns = mono
        if run.first_token_ns is not None:
            above = run.parent
            while above is not None:
                above.open_streams -= 1
                above = above.parent
        attempts.ended(run, outcome)
        draft = draft_of(run, mono, fields, outcome)
        run.outcome = outcome
        run.end_ns = mono
        if run.kind == "llm":
            agents.model_ended(run, fields.get("output"))
        elif run.kind in ("task", "agent"):
            self._handoffs.ended(run, fields.get("output"))
        for agent in run.ended_agents:
            agent.forget_content()
        run.ended_agents = ()
        run.tries = run.nodes_in_step = run.failed = None
        if outcome == "error" and trace.handoffs and trace.root is not run:
            self._handoffs.failed(run)
        self._remember(run)
        self._emit(run, draft)
        if trace.root is run or (
            trace.root is None and trace.awaited is None and not _has_top(trace)
        ):
            self._tree_ended(trace, mono)
        elif not trace.open:
            self._lingering.discard(trace)

    def _tree_ended(self, trace: Trace, mono: int) -> None:
        """The root has ended, or the last run below a root that nobody saw."""
        self._handoffs.root_ended(trace, mono)
        trace.ended = True
        if trace.open:
            self._lingering.add(trace)
        else:
            self._lingering.discard(trace)

    def _emit(self, run: Run, draft: Draft) -> None:
        trace = run.trace
        self.made += 1
        if trace.awaited is not None:
            trace.held.append((draft, run))  # its trace id is not known before its parent starts
        else:
            self.finished.append(draft)

    def _remember(self, run: Run) -> None:
        get = run.fields.get
        run.fields = {name: get(name) for name in _REMEMBERED}
        if run.parent is None or not is_agent(run):
            run.forget_content()
        self._ended[run.run_id] = run
        if run.starts > 1:
            self._ended.move_to_end(run.run_id)
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    # ---- time passes ----

    def sweep(self) -> None:
        """Close what will not end any more. Called about once a second."""
        now = self.clock.monotonic_ns()
        for run_id in [i for i, e in self._early_ends.items() if now - e[3] >= GRACE_NS]:
            self._end_alone(self._early_ends.pop(run_id))
        for trace in self._unseen.since(now - GRACE_NS):
            self._give_up_waiting(trace)
        for trace in [t for t in self._lingering if now - t.last_ns >= GRACE_NS]:
            self._close_tree(trace)
        if now - self._idle_checked_ns >= 10 * GRACE_NS:
            self._idle_checked_ns = now
            limit = int(self.settings.idle_seconds * 1_000 * NS_PER_MS)
            for trace in {run.trace for run in self._open.values()}:
                if now - trace.last_ns >= limit:
                    self._close_tree(trace)

    def close_all(self) -> None:
        """Close everything: the monitor closes. What is still open becomes ``incomplete``."""
        for run_id in list(self._early_ends):
            self._end_alone(self._early_ends.pop(run_id))
        for trace in list(self._unseen.awaited.values()):
            self._give_up_waiting(trace)
        for trace in {run.trace for run in self._open.values()}:
            self._close_tree(trace)

    def open_drafts(self) -> list[Draft]:
        """Return what is open now as drafts with the outcome ``incomplete``. Changes nothing."""
        return [
            draft_of(run, max(run.trace.last_ns, run.start_ns), {}, "incomplete")
            for run in self._open.values()
        ]

    def _give_up_waiting(self, trace: Trace) -> None:
        """The parent never came: its children keep its id as their trace's, as if it were a root."""
        self.finished += self._unseen.give_up(trace)
        if not _has_top(trace):
            self._tree_ended(trace, trace.last_ns)

    def _close_tree(self, trace: Trace) -> None:
        """Close every open run of a tree, children first, no later than the last known event."""
        for run in reversed(list(trace.open.values())):
            run.closed_by_us = True
            self._close(run, max(trace.last_ns, run.start_ns), {}, closing_outcome(run))
        self._lingering.discard(trace)

    def _evict_idlest(self) -> None:
        """Close whole trees, the idlest first, until a tenth of the table is free."""
        target = self.settings.open_spans - self.settings.open_spans // 10
        traces = sorted({run.trace for run in self._open.values()}, key=lambda t: t.last_ns)
        for trace in traces:
            if len(self._open) <= target:
                break
            self._note("evicted_tree")
            self._close_tree(trace)

    def _note(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1


def _has_top(trace: Trace) -> bool:
    """Whether a run is open that hangs directly below the parent that nobody saw."""
    return any(run.awaited_parent is not None for run in trace.open.values())
