"""Handoffs: from a request, an edge or a call, to one span that says what went over.

A *request* is explicit (a command, a transfer tool, a send) and is confirmed by the start of its
target; one that nobody answers is stored when its root ends, unconfirmed: an intended handoff that
never happened is worth knowing. An *edge* between two agents, an agent that runs inside a tool, and
the return to an agent that had handed off are inferred. Runs on the intake thread, for the tracer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from llmops_core.freeze.freezer import Frozen
from llmops_core.freeze.messages import FrozenMessage
from llmops_core.intake.fed import source_of
from llmops_core.intake.state import Run, Trace, nearest_agent

__all__ = ["Handoffs", "Request"]

#: Requests of one trace that may wait at once; more are a runaway, and are counted by the tracer.
MAX_PENDING: Final = 1_000
#: Ended agents that a run remembers as possible sources of an edge.
MAX_ENDED_AGENTS: Final = 32
#: What the prebuilt handoff tools say by themselves: nobody's words, so never part of a payload.
_SYNTHETIC: Final = ("Successfully transferred to ", "Successfully transferred back to ")
_SYNTHETIC_BACK: Final = "Transferring back to "

_INFERRED: Final = ("edge", "context", "return")

#: What starts a node that waits for several: LangGraph names the channel after all of them.
_JOIN: Final = re.compile(r'"join:([^":]+):')

Emit = Callable[[Run, dict[str, Any], int, int], None]


class Request:
    """A handoff on its way: who asked whom, when, and with what."""

    __slots__ = (
        "above",
        "asker",
        "carried",
        "fields",
        "held",
        "mechanism",
        "skipped",
        "source",
        "source_given",
        "start_ns",
        "target",
        "target_name",
    )

    def __init__(self, source: Run, target_name: str, mechanism: str, start_ns: int) -> None:
        self.source = source
        self.asker = source
        self.target_name = target_name
        self.mechanism = mechanism
        self.start_ns = start_ns
        self.fields: dict[str, Any] = {}
        #: What the source passed, and what its own model was given first: what it found out since,
        #: by its tools, is news to the target.
        self.carried: Frozen | None = None
        self.held = source.first_llm_input
        self.source_given = source.given
        self.target: Run | None = None
        self.above = source.parent or source
        #: The graph that a command to the parent graph leaves: its own nodes are not meant.
        self.skipped: Run | None = None


class Handoffs:
    """The handoffs of every open trace. *emit* is the tracer's: it makes the draft and counts it."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit

    # ---- requests ----

    def request(self, run: Run, fields: dict[str, Any], now_ns: int) -> bool:
        """Take a request made within *run*; False if it is no handoff, or already known."""
        source = outermost(run)
        target = fields.get("target_agent")
        mechanism = fields.get("handoff_mechanism") or "command"
        trace = run.trace
        if type(target) is not str or not target or target == agent_of(source):
            return False
        if source.kind == "workflow":
            return False  # a fan-out of what the caller gave: nobody hands anything off
        if _is_known(trace, source, target, mechanism):
            return False
        if len(trace.handoffs) >= MAX_PENDING:
            trace.lost_handoffs += 1
            return False
        request = Request(source, target, mechanism, now_ns)
        request.fields = {k: fields[k] for k in ("tool_call_id", "framework") if k in fields}
        request.asker = run
        if fields.get("_to_parent"):
            request.skipped = run.parent
        request.carried = carried(source.last_llm_output, fields.get("input"))
        trace.handoffs.append(request)
        return True

    def started(self, run: Run) -> None:
        """Confirm what waits for this run: every command to it, for one run answers them all, or
        the oldest send, for each send is a run of its own."""
        for request in run.trace.handoffs:
            if request.target is None and _answers(run, request):
                if request.mechanism == "send" and run.confirmed:
                    continue
                request.target = run
                _stand_beside(request, run)
                run.confirmed = (*run.confirmed, request)
                if request.mechanism == "send":
                    return

    def failed(self, run: Run) -> None:
        """Forget what was asked within a run that failed: a refused transfer moves nobody."""
        run.trace.handoffs = [
            r for r in run.trace.handoffs if r.target is not None or not _is_within(r.asker, run)
        ]

    def root_ended(self, trace: Trace, now_ns: int) -> None:
        """Store what was asked for and never started."""
        for request in trace.handoffs:
            if request.target is None:
                self._store(request, max(request.start_ns, now_ns), confirmed=False)
        trace.handoffs = [r for r in trace.handoffs if r.target is not None]

    # ---- ends ----

    def ended(self, run: Run, output: Any) -> None:
        """Store the handoffs to a run that has ended, and remember it as a source of edges."""
        if type(output) is Frozen:
            run.said = output
            if run.last_llm_output is None:
                run.last_llm_output = output  # an agent without a model says what its node returns
        _count_in_step(run)
        for request in run.confirmed:
            if request in run.trace.handoffs:
                run.trace.handoffs.remove(request)
            self._store(request, run.start_ns, confirmed=True)
        if run.kind == "agent" and not run.fields.get("_handed") and not run.confirmed:
            self._inside_a_tool(run)
        if run.kind in ("task", "agent") and is_agent(run) and run.parent is not None:
            if not run.confirmed:
                self._edge(run)
            remembered = (*run.parent.ended_agents, run)
            for old in remembered[:-MAX_ENDED_AGENTS]:
                old.forget_content()
            run.parent.ended_agents = remembered[-MAX_ENDED_AGENTS:]
        run.confirmed = ()

    def _edge(self, run: Run) -> None:
        """Infer the edge that led here: from the one node that ran in the step before, or from the
        plain function whose output this one was given.
        """
        assert run.parent is not None  # noqa: S101 - the caller checked
        source, mechanism = _step_before(run, run.parent), "edge"
        if source is None:
            source, mechanism = source_of(run), "context"
        if source is None or agent_of(source) == agent_of(run):
            return
        back = agent_of(run) in source.called_by
        request = Request(source, agent_of(run), "return" if back else mechanism, source.end_ns)
        request.carried = carried(source.last_llm_output, None)
        request.target = run
        self._store(request, run.start_ns, confirmed=True)

    def _inside_a_tool(self, run: Run) -> None:
        """An agent that runs inside another one's tool was handed the tool's arguments."""
        above = run.parent
        while above is not None and above.kind in ("chain", "task"):
            above = above.parent
        if above is None or above.kind != "tool":
            return
        caller: Run | None = above.parent
        while caller is not None and caller.kind != "agent":
            caller = caller.parent
        if caller is None:
            return
        request = Request(outermost(caller), agent_of(run), "tool", above.start_ns)
        request.carried = above.given
        request.held = request.source_given = None
        request.target = run
        self._store(request, run.start_ns, confirmed=True)

    def _store(self, request: Request, end_ns: int, *, confirmed: bool) -> None:
        source, target = request.source, request.target
        by, to = _names(source, target, request.target_name)
        fields: dict[str, Any] = {
            **request.fields,
            "kind": "handoff",
            "agent": by,
            "target_agent": to,
            "handoff_mechanism": request.mechanism,
            "handoff_confirmed": confirmed,
            "outcome": "handed_off" if confirmed else "incomplete",
            "framework": request.fields.get("framework") or source.fields.get("framework"),
            "input": request.carried,
        }
        fields["name"] = f"{by} → {to}"
        if target is not None:
            fields["output"] = received(target, request)
            if request.mechanism not in _INFERRED:  # a loop of edges returns nobody
                target.called_by |= {by}
        self._emit(request.above, fields, request.start_ns, max(end_ns, request.start_ns))


# ---- which ----


def _count_in_step(run: Run) -> None:
    """Remember which nodes of a graph ran in a step; the two last steps are enough."""
    graph, step = run.parent, run.fields.get("step")
    if graph is None or type(step) is not int:
        return
    if graph.nodes_in_step is None:
        graph.nodes_in_step = {}
    graph.nodes_in_step.setdefault(step, set()).add(run.fields.get("name"))
    for old in [s for s in graph.nodes_in_step if s < step - 1]:
        del graph.nodes_in_step[old]


def _is_known(trace: Trace, source: Run, target: str, mechanism: str) -> bool:
    """Whether a request is one that waits already.

    A transfer tool is seen when it starts, and again when its command is raised: as a command, or
    as a send where a model called several at once. A command may name a node twice.
    """
    for known in trace.handoffs:
        if known.source is not source or known.target_name != target or known.target is not None:
            continue
        if known.mechanism == "transfer" and mechanism != "transfer":
            return True
        if known.mechanism == mechanism == "command":
            return True
    return False


def _is_within(run: Run, outer: Run) -> bool:
    above: Run | None = run
    while above is not None:
        if above is outer:
            return True
        above = above.parent
    return False


def _step_before(run: Run, graph: Run) -> Run | None:
    """Return the agent that ran alone in the step before, or the last of those that a join names.

    Of several that ran side by side nothing tells which edge led here: none is better than a wrong
    one.
    """
    step = run.fields.get("step")
    if type(step) is not int:
        return None
    before = [s for s in graph.ended_agents if s.fields.get("step") == step - 1]
    triggers = (run.fields.get("attributes") or {}).get("langgraph.triggers") or ""
    joined = _JOIN.search(triggers)
    if joined:
        names = joined[1].split("+")
        before = [s for s in before if s.fields.get("name") in names]
    elif len((graph.nodes_in_step or {}).get(step - 1, ())) != 1:
        return None
    return max(before, key=lambda s: s.end_ns, default=None)


# ---- who ----


def agent_of(run: Run) -> str:
    """Return the agent that a run works for: the one it wraps, its own, else its name."""
    wrapped = run.wraps if run.kind == "task" else None
    return wrapped or run.fields.get("agent") or run.fields.get("name") or "unknown"


def is_agent(run: Run) -> bool:
    """Whether a run is an agent, or the node around one."""
    return run.kind == "agent" or (run.has_agent and run.inner_agent is not None)


def outermost(run: Run) -> Run:
    """Return the topmost run that works for the same agent: the node around a prebuilt agent.

    The handoff hangs beside it: below the node it would outlive its own parent.
    """
    name, _ = nearest_agent(run, including=True)
    top = run
    while top.kind not in ("task", "agent") and top.parent is not None:
        top = top.parent
    above: Run | None = top
    while above is not None and above.parent is not None:
        if above.kind in ("task", "agent") and (name is None or agent_of(above) == name):
            top = above
            if name is None:
                break
        above = above.parent
    if top.kind == "agent" and top.parent is not None and top.parent.kind == "task":
        return top.parent
    return top


def _stand_beside(request: Request, target: Run) -> None:
    """Hang an answered request beside its target, and let its source be no run around both.

    Agents of a graph inside a node all bear that node's name, so by names alone the source of what
    they hand each other is that node.
    """
    if target.parent is request.asker:
        return  # its own tool called it: the source is around both
    request.above = target.parent or request.above
    above = target.parent
    while above is not None and above is not request.source:
        above = above.parent
    if above is None:
        return
    run = request.asker
    while run.parent is not None and run.parent is not target.parent:
        run = run.parent
    request.source = run


def _names(source: Run, target: Run | None, asked: str) -> tuple[str, str]:
    """Return who hands off to whom; nodes that work for one agent go by their own names."""
    if target is None:
        return agent_of(source), asked
    by, to = agent_of(source), agent_of(target)
    if by == to:
        return source.fields.get("name") or by, target.fields.get("name") or to
    return by, to


def _answers(run: Run, request: Request) -> bool:
    if run.kind not in ("task", "agent") or run is request.source:
        return False
    if request.skipped is not None and run.parent is request.skipped:
        return False
    if request.target_name not in (run.fields.get("name"), run.fields.get("agent")):
        return False
    if run.parent is request.asker:
        return True  # a transfer function that calls its target itself
    above: Run | None = request.asker
    while above is not None:
        if run.parent is above.parent:
            return run is not above and above.parent is not None
        above = above.parent
    return False


# ---- what ----


def carried(said: Frozen | None, passed: Any) -> Frozen | None:
    """Join a source's last output and what it passed along into one frozen value."""
    given = passed if type(passed) is Frozen and passed.value not in (None, {}, []) else None
    if given is None or said is None:
        return given or said
    return Frozen(
        {"output": said.value, "passed": given.value},
        said.truncated or given.truncated,
        said.cut_bytes + given.cut_bytes,
        said.weight + given.weight,
    )


def received(target: Run, request: Request) -> Frozen | None:
    """Return what the target's first model call was given and the source's own was not."""
    first = target.first_llm_input or target.given
    held = request.held or request.source_given
    if first is None:
        return None
    if type(first.value) is dict and held is not None and type(held.value) is dict:
        known = held.value
        left = {k: v for k, v in first.value.items() if k not in known or known[k] != v}
        return Frozen(left, first.truncated, first.cut_bytes, first.weight)
    if type(first.value) is not list:
        return first
    # One of each: who says the same again says something.
    known_once = list(held.value) if held is not None and type(held.value) is list else []
    calls = request.fields.get("tool_call_id")
    news = []
    for message in first.value:
        if message in known_once:
            known_once.remove(message)
        elif not _is_synthetic(message, calls):
            news.append(message)
    return Frozen(news, first.truncated, first.cut_bytes, first.weight)


def _is_synthetic(message: Any, tool_call_id: str | None) -> bool:
    """Whether a message is the framework's own: it says that there was a handoff, and no more."""
    if type(message) is not FrozenMessage:
        return False
    content = message.content
    if message.role == "tool":
        if tool_call_id is not None and message.tool_call_id == tool_call_id:
            return True
        return type(content) is str and content.startswith(_SYNTHETIC)
    if message.role != "assistant":
        return False
    if not content and message.tool_calls:
        return True  # the call itself: its arguments are in the handoff's input
    return type(content) is str and content.startswith(_SYNTHETIC_BACK)
