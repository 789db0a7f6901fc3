"""What the callbacks have in common: whose child a run is, and how starts, ends and requests go out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar, cast
from uuid import UUID, uuid4

from langchain_core.runnables.config import var_child_runnable_config

from llmops_core import BreakerTripped, OpenRun, Recorder, enclosing_run, is_nested, late_here
from llmops_integrations.langchain import handoffs
from llmops_integrations.langchain.mapping import AGENT_RUN, EDGE, IN_AGENT, NODE, inherited_facts
from llmops_integrations.langchain.metadata import framework_of, identity_fields
from llmops_integrations.langchain.reading import name_of
from llmops_integrations.langchain.runs import ENDED, OpenRuns, Run, open_run_of

__all__ = ["PREBUILT_STEP", "Place", "Recording", "guarded"]

_Method = TypeVar("_Method", bound=Callable[..., None])

_FALLBACKS: Final = "RunnableWithFallbacks"
#: How ``create_react_agent`` names its model node and the function in it.
_PREBUILT_NODE: Final = "agent"
PREBUILT_STEP: Final = "call_model"


def guarded(method: _Method) -> _Method:
    """Let no failure of ours out: LangChain lets a BaseException of a handler end the user's run.

    KeyboardInterrupt and CancelledError pass: they are the user's, and merely arrive here.
    """
    where = method.__name__

    @functools.wraps(method)
    def call(self: Recording, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except BreakerTripped:  # the user asked for it
            self._refused(kwargs.get("run_id"))
            raise
        except (Exception, SystemExit) as error:
            self._recorder.report(where, error)

    return cast("_Method", call)


class Place(NamedTuple):
    """Where a run is: its parent as the framework knows it, the one that is stored, its facts.

    ``trace`` is None for a root. ``late`` is what a framework that tells late has open here;
    ``told_late``, whether the stored parent is its.
    """

    given: int | None
    parent: int | None
    facts: int
    trace: int | str | None = None
    late: object = None
    told_late: bool = False


_ROOT: Final = Place(None, None, 0)


class Recording:
    """The part of the handler that knows runs, and no callback. *_runs* are those of the monitor."""

    _recorder: Recorder
    _runs: OpenRuns

    def _start(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        fields: dict[str, Any],
        content: object,
        tags: list[str] | None,
        metadata: Mapping[str, Any],
    ) -> bool:
        """Start a run that is always stored: a model, a tool, a retriever.

        False if another handler of the monitor records it.
        """
        place = self._parent(parent_run_id)
        below = inherited_facts(place.facts)
        run = Run(fields["kind"], fields["name"], place.parent, place.given, below)
        run.trace, run.late, run.late_parent = place.trace, place.late, place.told_late
        run.model_known = "model" in fields
        if not self._runs.open(run_id.int, run, self):
            return False
        identity = identity_fields(tags, metadata)
        attributes = fields.get("attributes")
        if attributes and "attributes" in identity:
            attributes.update(identity.pop("attributes"))
        fields.update(identity)
        fields["framework"] = framework_of(metadata)
        fields["input"] = self._recorder.freeze(content)
        if run.kind == "llm" and self._is_in_edge(place.given):
            fields["_in_edge"] = True
        self._tell_start(run_id.int, run, place, fields)
        return True

    def _tell_start(
        self, run_id: int, run: Run, place: Place, fields: dict[str, Any], promotable: bool = False
    ) -> None:
        """Record a start; a root learns which trace it is in."""
        if place.told_late:
            fields["_late_parent"] = True
        trace = self._recorder.start(run_id, place.parent, fields, promotable)
        if place.parent is None:
            run.trace = trace or run_id

    def _refused(self, run_id: UUID | None) -> None:
        """Forget a run that a breaker refused: LangChain tells no end of it."""
        if run_id is not None:
            self._runs.close(run_id.int)

    def _is_in_edge(self, given: int | None) -> bool:
        """Whether a run is below an edge function: a model that routes makes no node an agent."""
        run = self._runs.get(given) if given is not None else None
        while run is not None and run.kind is None:
            if run.facts & EDGE:
                return True
            run = self._runs.get(run.given_parent) if run.given_parent is not None else None
        return False

    def _end(
        self,
        run_id: UUID,
        run: Run | None,
        fields: dict[str, Any],
        kind: str,
        extra: Mapping[str, Any],
    ) -> None:
        """End a run. One whose start never came still says what it was (langchain issue 39633)."""
        if run is ENDED:
            return
        if run is not None:
            fields["kind"], fields["name"] = run.kind, run.name
            if run.extra:
                fields.update(run.extra)
            self._recorder.end(run_id.int, run.parent, fields)
            return
        fields["kind"] = kind
        fields["name"] = fields.get("model") or name_of(extra, None, kind)
        fields["framework"] = "langchain"
        place = self._parent(extra.get("parent_run_id"))
        if place.told_late:
            fields["_late_parent"] = True
        self._recorder.end(run_id.int, place.parent, fields)

    def _ask(
        self,
        run_id: int,
        asked: Iterable[handoffs.Asked],
        run: Run | None,
        tool_call_id: str | None = None,
    ) -> None:
        """Record requests for a handoff. What moves inside an agent's own graph is none.

        If one cannot be read, the end of the run that asked is told all the same.
        """
        try:
            self._ask_each(run_id, asked, run, tool_call_id)
        except (Exception, SystemExit) as error:
            self._recorder.report("handoff", error)

    def _ask_each(
        self,
        run_id: int,
        asked: Iterable[handoffs.Asked],
        run: Run | None,
        tool_call_id: str | None,
    ) -> None:
        for request in asked:
            if run is not None and run.facts & IN_AGENT and request.mechanism == "send":
                continue
            fields: dict[str, Any] = {
                "target_agent": request.target,
                "handoff_mechanism": request.mechanism,
                "framework": "langgraph",
            }
            if request.to_parent:
                fields["_to_parent"] = True
            if request.passed is not None:
                fields["input"] = self._recorder.freeze(request.passed)
            if tool_call_id is not None:
                fields["tool_call_id"] = tool_call_id
            self._recorder.handoff(run_id, fields)

    def _note_prebuilt_agent(self, node_id: int | None) -> None:
        """A node ``agent`` that runs ``call_model`` is the inside of a prebuilt agent's graph.

        Nothing tells so before: the graph has been recorded as a chain or a workflow by then.
        """
        node = self._runs.get(node_id) if node_id is not None else None
        if node is None or not node.facts & NODE or node.name != _PREBUILT_NODE:
            return
        graph = self._runs.get(node.given_parent) if node.given_parent is not None else None
        if graph is None or graph.facts & AGENT_RUN or node.given_parent is None:
            return
        graph.facts |= AGENT_RUN
        graph.kind = "agent"
        self._recorder.promote(node.given_parent)

    def _point(self, run_id: UUID, fields: dict[str, Any]) -> None:
        run = self._runs.get(run_id.int)
        if run is not None and run.owner not in (None, self):
            return  # the handler that saw the run first records its events
        parent = run.parent if run is not None and run.kind is None else run_id.int
        fields["kind"] = "event"
        fields["outcome"] = "ok"
        fields["framework"] = "langchain"
        self._recorder.point(uuid4().int, parent, fields)

    def _parent(self, parent_run_id: UUID | None) -> Place:
        """Return where a run is that starts.

        Attempts of ``with_fallbacks`` are told a wrong parent: none, or the parent of the fallback
        run. The framework's own context, read and never set, knows the right one.
        """
        given = None if parent_run_id is None else parent_run_id.int
        config = var_child_runnable_config.get()
        if config and "callbacks" in config:
            within = getattr(config["callbacks"], "parent_run_id", None)
            # Mostly it is the very same object, and comparing two UUIDs is not free.
            if within is not None and within is not parent_run_id and within != parent_run_id:
                nearer = self._runs.get(within.int)
                if nearer is not None and (
                    given is None or (nearer.name == _FALLBACKS and nearer.given_parent == given)
                ):
                    given = within.int
        run = None if given is None else self._runs.get(given)
        if run is None:
            # The parent runs without us, or there is none: what is monitored begins here, or in
            # what another framework or a decorated function has open around it.
            return self._in_others(None, None, 0) if is_nested() else _ROOT
        if is_nested():
            return self._in_others(given, open_run_of(run, given), run.facts)
        return Place(given, run.parent if run.kind is None else given, run.facts, run.trace)

    def _in_others(self, given: int | None, own: OpenRun | None, facts: int) -> Place:
        around = enclosing_run(self._recorder, own)
        late = late_here()
        if around is None:
            return Place(given, None, facts, None, late)
        return Place(given, around.run_id, facts, around.trace, late, around.told_late)
