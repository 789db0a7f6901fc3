"""What becomes of CrewAI's events once they are in order: who is whose parent, and what is hidden.

One :class:`CrewTrees` for each monitor. It runs on the intake thread, so it needs no locks; the bus
is never touched here. It remembers a run after its end, as memory is saved in the background and
its events come late.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from llmops_integrations.crewai import handoffs, pauses
from llmops_integrations.crewai.nodes import Cause, Node, Nodes
from llmops_integrations.crewai.translate import START_OF
from llmops_integrations.crewai.translate_more import HIDDEN

if TYPE_CHECKING:
    from llmops_core.intake.ordering import Tell

__all__ = ["KICKOFFS", "CrewTrees", "SilentModel", "wait_key"]

#: What a program starts, which may be inside of nothing.
KICKOFFS: Final = ("crew_kickoff_started", "flow_started", "lite_agent_execution_started")

_DELEGATIONS: Final = {
    "delegate_work_to_coworker": "delegation",
    "ask_question_to_coworker": "question",
}


#: How long an end waits for a start that is late, and how many may.
WAIT_NS: Final = 5_000_000_000
MAX_EARLY: Final = 1_000
_SILENT: Final = "its calls are not on the event bus; emit llm_call_started and _completed"


class SilentModel(Exception):  # noqa: N818 - it says what is wrong
    """A model class whose calls CrewAI's event bus does not tell: no spans, no tokens, no cost."""


class CrewTrees:
    """The open runs of one monitor. *report* takes a defect or a note, *freeze* copies content."""

    def __init__(
        self,
        freeze: Callable[[object], Any],
        report: Callable[[str, BaseException], None],
        skip: Callable[[], None],
    ) -> None:
        self._freeze = freeze
        self._report = report
        self._skip = skip
        self._nodes = Nodes()
        #: What came later than events wait for each other: ends before their start, and runs
        #: before the one around them.
        self._early: dict[int, tuple[str, int | None, dict[str, Any], Tell]] = {}
        self._orphans: dict[int, list[Node]] = {}
        #: Ends in error whose type is not known yet: the next event may tell.
        self._untyped: dict[int, list[tuple[Node, dict[str, Any], int]]] = {}

    def __call__(
        self, run_id: int, parent_id: int | None, fields: dict[str, Any], tell: Tell
    ) -> None:
        """Take one event. Called in order of time, on the intake thread."""
        kind = fields.pop("_type")
        self._give_up_waiting(tell.mono - WAIT_NS)
        if kind == "block_left":
            self._left(fields["_block"], tell)
        elif kind == "llm_stream_chunk":
            tell.mark(run_id)
        elif kind in START_OF:
            self._ended(kind, run_id, parent_id, fields, tell)
        elif fields.pop("_answers", False):
            fields.pop("_all", None)
            pauses.answered(self._nodes.get(parent_id), fields, tell)
        elif kind == pauses.SHOWN:
            pauses.shown(self._nodes.get(parent_id), run_id, fields, tell)
        elif fields.get("kind") == "event" or fields.get("_refused"):
            self._happened(run_id, parent_id, fields, tell)
        else:
            self._started(kind, run_id, parent_id, fields, tell)

    def settle(self, tell: Tell, *, closing: bool) -> None:
        """Tell the ends that wait in vain: for their start, or for who knows their error's type."""
        until = tell.mono + 1 if closing else tell.mono - WAIT_NS
        self._give_up_waiting(until)
        for root, failed in list(self._untyped.items()):
            if any(at < until for _, _, at in failed):
                self._settle_untyped(root, tell)

    # ---- starts ----

    def _started(
        self, kind: str, run_id: int, parent_id: int | None, fields: dict[str, Any], tell: Tell
    ) -> None:
        parent = self._nodes.get(parent_id)
        named = fields.pop("_subject", False)
        as_root = fields.pop("_as_root", None)
        if as_root is not None and parent is None:
            parent_id = None  # it was open before anybody listened
            fields.update(as_root)
        watched = fields.pop("_all", False) or named or (parent is not None and parent.watched)
        if named and parent is not None and not parent.watched:
            parent = parent_id = None  # what is around it is not monitored: it is a root
        node = Node(kind, run_id, parent, fields, watched=watched)
        node.block = fields.pop("_block", None)
        node.start_ns = tell.mono
        self._nodes.add(node)
        if not watched:
            return
        if parent is not None:
            pauses.went_on(parent, tell)
        orphans = self._orphans.pop(run_id, ())
        for orphan in orphans:
            orphan.parent, orphan.root = node, node.root
        if parent is None and parent_id is not None:
            _keep(self._orphans, parent_id, [*self._orphans.get(parent_id, ()), node])
        self._place(node, parent, parent_id, fields, tell, hide=not orphans)
        early = self._early.pop(run_id, None)
        if early is not None:
            what, end_parent, about, then = early
            self._ended(what, run_id, end_parent, about, then)

    def _place(
        self,
        node: Node,
        parent: Node | None,
        parent_id: int | None,
        fields: dict[str, Any],
        tell: Tell,
        *,
        hide: bool,
    ) -> None:
        """Tell a start, unless it is one that is hidden and that nothing waits for already."""
        if fields.pop(HIDDEN, False) and hide:
            node.hidden = True
            node.above = parent.stored() if parent is not None else parent_id
            self._skip()
            return
        self._settle_untyped(node.root, tell)
        self._arrange(node, parent, fields, tell)
        nearer = fields.pop("_nearer", None)
        if nearer is not None:
            above = nearer  # a decorated function, between the two
        elif parent is not None:
            above = parent.stored()
        else:
            above = parent_id
            if parent_id is not None:
                fields["_late_parent"] = True
        node.above = above
        fields["framework"] = "crewai"
        promotable = node.type == "method_execution_started"
        tell.start(node.run_id, above, fields, promotable=promotable)

    def _arrange(self, node: Node, parent: Node | None, fields: dict[str, Any], tell: Tell) -> None:
        """Let what is around a run have its say: its kind, its attempt, who handed off to it."""
        node.take(fields)
        node.resumes = fields.pop("_resumes", None)
        if fields["kind"] == "workflow" and parent is not None:
            node.kind = fields["kind"] = "chain"  # a crew in a flow's method, say
        elif fields["kind"] == "agent":
            self._agent_started(node, fields, tell)
        elif fields["kind"] == "llm":
            node.count_model_call()
        elif fields["kind"] == "tool":
            if fields.pop("_inner_tool", False) and node.nearest("tool", stop="agent"):
                node.kind = fields["kind"] = "chain"  # the call of a tool's own server
            else:
                self._tool_started(node, fields)
        elif node.type == "task_started":
            handoffs.to_task(node, fields, tell, self._freeze)

    def _agent_started(self, node: Node, fields: dict[str, Any], tell: Tell) -> None:
        node.model = fields.pop("_model", None)
        task = node.parent_stored()
        if task is not None and task.kind in ("task", "tool"):
            node.attempt = task.tries[node.name] = task.tries.get(node.name, 0) + 1
            if node.attempt > 1:
                fields["attempt"] = node.attempt
        if task is not None and task.kind == "task":
            crew = task.parent_stored()
            node.manager = crew is not None and crew.hierarchical
        if fields.pop("_remote", False):
            handoffs.to_remote(node, fields, tell)
            return
        tool = task if task is not None and task.kind == "tool" else None
        if tool is not None and tool.handed:
            fields["_handed"] = True  # a second try: the work was handed over once
        elif tool is not None and tool.name in _DELEGATIONS:
            handoffs.to_coworker(node, tool, _DELEGATIONS[tool.name], fields, tell, self._freeze)

    def _tool_started(self, node: Node, fields: dict[str, Any]) -> None:
        """Number the tries of a tool call: CrewAI calls a tool that failed again, as it was."""
        before = node.sibling
        if before is None or before.outcome != "error":
            return
        if before.name == node.name and before.given == node.given:
            node.attempt = fields["attempt"] = before.attempt + 1

    # ---- ends ----

    def _ended(
        self, kind: str, run_id: int, parent_id: int | None, fields: dict[str, Any], tell: Tell
    ) -> None:
        watched = fields.pop("_all", False)
        node = self._paired(kind, run_id)
        if node is None:
            if watched and run_id and not self._nodes.get(run_id):
                fields["_all"] = True
                self._early[run_id] = (kind, parent_id, fields, tell)
            return
        if not node.watched or node.ended:
            return
        node.ended = True
        node.outcome = fields.get("outcome")
        if node.hidden:
            self._learn_type(node, fields, tell)
            return
        self._finish(node, fields, tell)
        if node.outcome == "error":
            self._failed(node, fields, tell)
        else:
            self._tell_end(node, fields, tell, tell.mono)
        if node.run_id == node.root:
            self._settle_untyped(node.root, tell)

    def _paired(self, kind: str, run_id: int) -> Node | None:
        """Return the run that an end belongs to.

        CrewAI pairs by a stack: where a start in between never ended, the end names that one, and
        belongs to the nearest run around it that started as it should.
        """
        node = self._nodes.get(run_id)
        while node is not None and (node.type != START_OF[kind] or node.ended):
            if node.type == START_OF[kind] and node.run_id == run_id:
                return node  # the same end again
            node = node.parent
        return node

    def _give_up_waiting(self, until: int) -> None:
        """Tell the ends whose starts will not come: they began before anybody listened."""
        while self._early:
            run_id, (kind, parent_id, fields, tell) = next(iter(self._early.items()))
            if tell.mono >= until and len(self._early) < MAX_EARLY:
                return
            del self._early[run_id]
            self._end_unseen(kind, run_id, parent_id, fields, tell)

    def _end_unseen(
        self, kind: str, run_id: int, parent_id: int | None, fields: dict[str, Any], tell: Tell
    ) -> None:
        """An end whose start came before we listened is half a span; a hidden one is none."""
        if START_OF[kind] == "flow_started":
            return
        for private in [name for name in fields if name.startswith("_")]:
            del fields[private]
        named = START_OF[kind].removesuffix("_started")
        kinds = {
            "llm_call": "llm",
            "tool_usage": "tool",
            "task": "task",
            "crew_kickoff": "workflow",
        }
        found = "agent" if named.endswith("agent_execution") else kinds.get(named, "chain")
        fields.update(kind=found, name=named, framework="crewai")
        parent = self._nodes.get(parent_id)
        tell.end(run_id, parent.stored() if parent is not None else parent_id, fields)

    def _finish(self, node: Node, fields: dict[str, Any], tell: Tell) -> None:
        """Let what a run was have its say when it ends."""
        if node.type == "task_started":
            handoffs.remember_output(node, fields, tell.mono)
        elif node.type == "flow_started":
            self._flow_ended(node, fields)
        elif node.kind == "tool" and node.name in _DELEGATIONS and not node.handed:
            mechanism = _DELEGATIONS[node.name]
            handoffs.unanswered(node, mechanism, tell, self._freeze)
        elif node.kind == "agent" and node.outcome == "ok" and node.model and not node.model_calls:
            self._say_silent(node, fields)
        if node.kind in ("tool", "agent") and node.outcome == "error":
            fields.setdefault("attempt", node.attempt)
        pauses.ended_around(node, fields, tell)

    def _flow_ended(self, node: Node, fields: dict[str, Any]) -> None:
        flow_id, method = fields.pop("_paused", (None, None))
        if flow_id is not None:
            fields["wait_key"] = wait_key(flow_id, method)
            fields["thread_id"] = flow_id
            fields["attributes"] = {"crewai.flow_id": flow_id, "crewai.paused_method": method or ""}
        feedback = fields.pop("_feedback", None)
        if node.resumes is not None:
            fields["resume_key"] = wait_key(*node.resumes)
            fields["thread_id"] = node.resumes[0]
            if feedback is not None:
                fields["input"] = self._freeze({"resume": feedback})

    def _say_silent(self, node: Node, fields: dict[str, Any]) -> None:
        model = node.model or ""
        attributes = {**(fields.get("attributes") or {}), "crewai.silent_model": model}
        fields["attributes"] = attributes
        self._report(f"model {model}: {_SILENT}", SilentModel(model))

    def _tell_end(self, node: Node, fields: dict[str, Any], tell: Tell, at: int) -> None:
        fields["kind"], fields["name"] = node.kind, node.name
        tell.end(node.run_id, node.above, fields, at=at)

    # ---- errors ----

    def _failed(self, node: Node, fields: dict[str, Any], tell: Tell) -> None:
        """End a run in error, or let it wait for whoever knows the type of its error."""
        untyped = fields.pop("_untyped", None) is not None
        if self._carry(node, fields) and untyped:
            untyped = False
        if untyped:
            self._untyped.setdefault(node.root, []).append((node, fields, tell.mono))
            return
        self._learn_type(node, fields, tell)
        self._tell_end(node, fields, tell, tell.mono)

    def _carry(self, node: Node, fields: dict[str, Any]) -> bool:
        """Note where an error came from: one failure of a model ends five runs. True if it says
        the error's type.
        """
        root = self._nodes.get(node.root)
        if root is None:
            return False
        message, cause = fields.get("error_message"), root.cause
        if cause is None or cause.message != message or not cause.node.is_within(node):
            root.cause = Cause(message, node, None if "_untyped" in fields else "")
            return False
        about = {"crewai.error_from": f"{cause.node.kind} {cause.node.name}"}
        fields["attributes"] = {**(fields.get("attributes") or {}), **about}
        if cause.type:
            fields["error_type"] = cause.type
        return bool(cause.type)

    def _learn_type(self, node: Node, fields: dict[str, Any], tell: Tell) -> None:
        """A run around those that failed tells the exception itself: theirs had its text."""
        kind, message = fields.get("error_type"), fields.get("error_message")
        if kind is None or "_untyped" in fields:
            return
        root = self._nodes.get(node.root)
        if root is not None and root.cause is not None and root.cause.message == message:
            root.cause.type = kind
        left = []
        for failed, about, at in self._untyped.get(node.root, ()):
            if failed.is_within(node) and about["error_message"] == message:
                about["error_type"] = kind
                self._tell_end(failed, about, tell, at)
            else:
                left.append((failed, about, at))
        self._untyped[node.root] = left

    def _settle_untyped(self, root: int, tell: Tell) -> None:
        """Nothing will tell their type any more."""
        if not self._untyped:
            return
        for failed, about, at in self._untyped.pop(root, ()):
            self._tell_end(failed, about, tell, at)

    # ---- the rest ----

    def _happened(
        self, run_id: int, parent_id: int | None, fields: dict[str, Any], tell: Tell
    ) -> None:
        parent = self._nodes.get(parent_id)
        watched = fields.pop("_all", False) or (parent is not None and parent.watched)
        fields.pop("_subject", None)
        fields.pop("_block", None)
        if not watched:
            return
        if fields.pop("_refused", False) and parent is not None:
            # CrewAI tells of one refused call up to six times.
            if parent.refused == (fields["name"], parent.steps()):
                return
            parent.refused = (fields["name"], parent.steps())
        fields["framework"] = "crewai"
        tell.point(run_id, parent.stored() if parent is not None else parent_id, fields)

    def _left(self, block: object, tell: Tell) -> None:
        """A ``with`` block was left by a cancellation: CrewAI tells no ends then."""
        for node in self._nodes.open_roots():
            if node.block is block and not node.hidden:
                node.ended, node.outcome = True, "cancelled"
                self._settle_untyped(node.root, tell)
                self._tell_end(node, {"outcome": "cancelled"}, tell, tell.mono)


def _keep(table: dict[int, Any], key: int, value: Any) -> None:
    """Remember a value; forget the oldest if there are too many."""
    table[key] = value
    if len(table) > MAX_EARLY:
        table.pop(next(iter(table)))


def wait_key(flow_id: str | None, method: str | None) -> str:
    """Return what a flow's pause and its resume have in common, in whichever process they happen."""
    said = f"crewai\0{flow_id}\0{method or ''}".encode(errors="surrogatepass")
    return hashlib.blake2b(said, digest_size=16).hexdigest()
