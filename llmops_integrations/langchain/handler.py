"""The callback handler: LangChain's and LangGraph's lifecycle events, recorded as spans."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables.config import var_child_runnable_config

from llmops_core import Monitor, Recorder, default_monitor, enclosing_call
from llmops_integrations.langchain import handoffs, translate, translate_model
from llmops_integrations.langchain.mapping import (
    AGENT_RUN,
    EDGE,
    IN_AGENT,
    NODE,
    TASK,
    inherited_facts,
)
from llmops_integrations.langchain.metadata import framework_of, identity_fields
from llmops_integrations.langchain.outlines import Outlines
from llmops_integrations.langchain.reading import MAX_TEXT, count, name_of, text
from llmops_integrations.langchain.runs import Run, runs_of
from llmops_integrations.langchain.translate import is_placeholder

__all__ = ["LLMOpsCallbackHandler", "guarded"]

_Method = TypeVar("_Method", bound=Callable[..., None])

_NOTHING: Final[Mapping[str, Any]] = {}
_FALLBACKS: Final = "RunnableWithFallbacks"
#: How ``create_react_agent`` names its model node and the function in it.
_PREBUILT_NODE: Final = "agent"
_PREBUILT_STEP: Final = "call_model"


def guarded(method: _Method) -> _Method:
    """Let no failure of ours out: LangChain lets a BaseException of a handler end the user's run.

    KeyboardInterrupt and CancelledError pass: they are the user's, and merely arrive here.
    """
    where = method.__name__

    @functools.wraps(method)
    def call(self: LLMOpsCallbackHandler, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except (Exception, SystemExit) as error:
            self._recorder.report(where, error)

    return cast("_Method", call)


class LLMOpsCallbackHandler(BaseCallbackHandler):
    """Records every run below a call that is given this handler in ``config={"callbacks": [...]}``.

    One object serves any number of concurrent runs, threads and event loops. Of a run it keeps what
    its end will not say, until it ends; of those that never end, at most 100,000. Its methods copy
    what the framework hands them, within a budget, and put one small tuple on a queue: they never
    block, never change a value, and never raise.

    ``inline`` (default): on an async call the methods run on the event loop's own thread, some tens
    of microseconds each, in order. ``inline=False`` makes LangChain call them in its thread pool:
    dearer, but it lets other handlers that are not inline see async model starts
    (langchain issue 39633).

    ``on_text``, ``on_agent_action`` and ``on_agent_finish`` are left alone: what they tell is in
    the runs around them.
    """

    raise_error = False

    def __init__(self, monitor: Monitor | None = None, *, inline: bool = True) -> None:
        """Attach to *monitor*; without one to the default monitor, which is opened here."""
        super().__init__()
        self.run_inline = inline
        self.monitor = default_monitor() if monitor is None else monitor
        self._recorder: Recorder = self.monitor.recorder
        self._runs = runs_of(self.monitor)
        self._outlines = Outlines()

    def __copy__(self) -> LLMOpsCallbackHandler:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> LLMOpsCallbackHandler:
        """Return itself: a model that is copied deeply takes its callbacks along."""
        return self

    # ---- chains, graphs, nodes ----

    # These two are called most, so they guard themselves: a wrapper costs as much as the freeze.

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            key = run_id.int
            given, parent, above = self._parent(parent_run_id)
            name: str | None = kwargs.get("name")
            if type(name) is not str or not name or len(name) > MAX_TEXT:
                name = name_of(kwargs, serialized, "") or None
            runs = self._runs
            named = bool(runs.agents) and runs.is_named_agent(name, given)
            about = metadata or _NOTHING
            values = tuple(about.values())
            outline = self._outlines.find(
                name, tags or (), about, values, kwargs, given is not None, above, named
            )
            kind = outline.kind
            run = Run(kind, outline.name, parent, given, outline.facts)
            runs.open(key, run, self)
            if kind is None:
                self._recorder.skip()
                if name == _PREBUILT_STEP:
                    self._note_prebuilt_agent(given)
                return
            fields = outline.fill(values)
            if outline.reading.has_session:
                run.thread = fields.get("thread_id")
            if type(inputs) is not dict or len(inputs) != 1 or not is_placeholder(inputs):
                fields["input"] = self._recorder.freeze(inputs)
            self._recorder.start(key, parent, fields, outline.promotable)
        except (Exception, SystemExit) as error:
            self._recorder.report("on_chain_start", error)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        try:
            run = self._runs.close(run_id.int)
            plain = type(outputs) is dict  # most are, and ask for nothing
            if run is None:
                interrupted = False
            elif run.kind is None:
                if run.facts & EDGE and run.parent is not None:
                    self._ask(run.parent, handoffs.asked_by_edge(outputs), run)
                return
            else:
                if not plain and run.facts & (NODE | TASK):
                    self._ask(run_id.int, handoffs.asked_by_outputs(outputs), run)
                interrupted = run.interrupted
            outcome = "ok"
            if interrupted or (plain and "__interrupt__" in outputs):
                outcome = "interrupted"
                if run is not None:
                    outputs = translate.with_questions(outputs, run.asked)
            fields = {"outcome": outcome, "output": self._recorder.freeze(outputs)}
            # A streamed chain starts with a placeholder and tells its input when it ends.
            inputs = kwargs.get("inputs")
            if inputs is not None and not is_placeholder(inputs):
                fields["input"] = self._recorder.freeze(inputs)
            self._end(run_id, run, fields, "chain", kwargs)
        except (Exception, SystemExit) as error:
            self._recorder.report("on_chain_end", error)

    @guarded
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.close(run_id.int)
        if run is not None and run.kind is None:
            return
        fields = translate.error_fields(error)
        if run is not None and fields["outcome"] == "handed_off":
            self._ask(run_id.int, handoffs.asked_by_error(error), run)
        if run is not None and run.facts & NODE and fields["outcome"] == "interrupted":
            # The graph around an interrupted node ends normally, and its outputs do not tell.
            graph = self._runs.get(run.given_parent) if run.given_parent is not None else None
            if graph is not None:
                graph.interrupted = True
        self._end(run_id, run, fields, "chain", kwargs)

    # ---- models ----

    @guarded
    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        about = metadata or _NOTHING
        fields = translate_model.model_start_fields(serialized, about, kwargs)
        self._start(run_id, parent_run_id, fields, _lone(messages), tags, about)

    @guarded
    def on_llm_start(
        self,
        serialized: dict[str, Any] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        about = metadata or _NOTHING
        fields = translate_model.model_start_fields(serialized, about, kwargs)
        self._start(run_id, parent_run_id, fields, _lone(prompts), tags, about)

    # Called for each token: they guard themselves, as the two above.

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any
    ) -> None:
        try:
            run = self._runs.get(run_id.int)
            if run is None or run.streamed or not translate_model.has_text(token, chunk):
                return
            run.streamed = True
            self._recorder.mark(run_id.int)
        except (Exception, SystemExit) as error:
            self._recorder.report("on_llm_new_token", error)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        try:
            run = self._runs.get(run_id.int)
            if run is None or run.streamed or type(event) is not dict:
                return
            if event.get("event") == "content-block-delta":
                run.streamed = True
                self._recorder.mark(run_id.int)
        except (Exception, SystemExit) as error:
            self._recorder.report("on_stream_event", error)

    @guarded
    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.close(run_id.int)
        fields = translate_model.model_end_fields(response)
        fields["outcome"] = "ok"
        fields["output"] = self._recorder.freeze(translate_model.model_output(response))
        if run is None or not run.model_known:
            model = fields["model"] = translate_model.response_model(response)
            if run is not None and model:
                run.name = model
        self._end(run_id, run, fields, "llm", kwargs)

    @guarded
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.close(run_id.int)
        fields = translate.error_fields(error)
        said = translate_model.model_output(kwargs.get("response"))
        if said is not None:  # what was streamed before it failed, or was left
            fields.update(translate_model.model_end_fields(kwargs["response"]))
            fields["output"] = self._recorder.freeze(said)
        self._end(run_id, run, fields, "llm", kwargs)

    # ---- tools ----

    @guarded
    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        fields = translate.tool_start_fields(serialized, kwargs)
        content = input_str if inputs is None else inputs
        self._start(run_id, parent_run_id, fields, content, tags, metadata or _NOTHING)
        asked = handoffs.asked_by_tool(metadata or _NOTHING, inputs)
        if asked is not None:
            self._ask(run_id.int, (asked,), None, fields.get("tool_call_id"))

    @guarded
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.close(run_id.int)
        fields = translate.tool_end_fields(output)
        fields["output"] = self._recorder.freeze(translate.content_of_tool_output(output))
        self._end(run_id, run, fields, "tool", kwargs)

    @guarded
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.close(run_id.int)
        self._end(run_id, run, translate.error_fields(error), "tool", kwargs)

    # ---- retrievers ----

    @guarded
    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        about = metadata or _NOTHING
        name = translate.retriever_name(serialized, about, kwargs)
        fields = {"kind": "retriever", "name": name}
        self._start(run_id, parent_run_id, fields, query, tags, about)

    @guarded
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.close(run_id.int)
        fields = {"outcome": "ok", "output": self._recorder.freeze(documents)}
        self._end(run_id, run, fields, "retriever", kwargs)

    @guarded
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        run = self._runs.close(run_id.int)
        self._end(run_id, run, translate.error_fields(error), "retriever", kwargs)

    # ---- events ----

    @guarded
    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        fields = identity_fields(kwargs.get("tags"), kwargs.get("metadata") or _NOTHING)
        fields["name"] = text(name) or "event"
        fields["input"] = self._recorder.freeze(data)
        self._point(run_id, fields)

    @guarded
    def on_retry(self, retry_state: Any, *, run_id: UUID, **kwargs: Any) -> None:
        fields: dict[str, Any] = {"name": "retry"}
        attempt = count(getattr(retry_state, "attempt_number", None))
        if attempt is not None:
            fields["attempt"] = attempt
        self._point(run_id, fields)

    # ---- shared ----

    def _start(
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        fields: dict[str, Any],
        content: object,
        tags: list[str] | None,
        metadata: Mapping[str, Any],
    ) -> None:
        """Start a run that is always stored: a model, a tool, a retriever."""
        given, parent, above = self._parent(parent_run_id)
        below = inherited_facts(above)
        run = Run(fields["kind"], fields["name"], parent, given, below)
        run.model_known = "model" in fields
        self._runs.open(run_id.int, run, self)
        identity = identity_fields(tags, metadata)
        attributes = fields.get("attributes")
        if attributes and "attributes" in identity:
            attributes.update(identity.pop("attributes"))
        fields.update(identity)
        fields["framework"] = framework_of(metadata)
        fields["input"] = self._recorder.freeze(content)
        if run.kind == "llm" and self._is_in_edge(given):
            fields["_in_edge"] = True
        self._recorder.start(run_id.int, parent, fields)

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
        if run is not None:
            fields["kind"], fields["name"] = run.kind, run.name
            if run.extra:
                fields.update(run.extra)
            self._recorder.end(run_id.int, run.parent, fields)
            return
        fields["kind"] = kind
        fields["name"] = fields.get("model") or name_of(extra, None, kind)
        fields["framework"] = "langchain"
        _, parent, _ = self._parent(extra.get("parent_run_id"))
        self._recorder.end(run_id.int, parent, fields)

    def _ask(
        self,
        run_id: int,
        asked: Iterable[handoffs.Asked],
        run: Run | None,
        tool_call_id: str | None = None,
    ) -> None:
        """Record requests for a handoff. What moves inside an agent's own graph is none."""
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

    def _parent(self, parent_run_id: UUID | None) -> tuple[int | None, int | None, int]:
        """Return the parent as the framework knows it, the one that is stored, and its facts.

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
            # The parent runs without us, or there is none: what is monitored begins here, or with
            # the decorated function around it.
            return None, enclosing_call(self._recorder, None), 0
        stored = run.parent if run.kind is None else given
        return given, enclosing_call(self._recorder, stored), run.facts


def _lone(batch: Sequence[Any]) -> object:
    """Return the only prompt of a call: LangChain makes one run of each."""
    return batch[0] if len(batch) == 1 else batch
