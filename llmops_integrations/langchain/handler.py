"""The callback handler: LangChain's and LangGraph's lifecycle events, recorded as spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from llmops_core import BreakerTripped, Monitor, default_monitor
from llmops_integrations.langchain import handoffs, translate, translate_model
from llmops_integrations.langchain.mapping import EDGE, NODE, TASK
from llmops_integrations.langchain.metadata import identity_fields
from llmops_integrations.langchain.outlines import Outlines
from llmops_integrations.langchain.reading import MAX_TEXT, count, name_of, text
from llmops_integrations.langchain.recording import PREBUILT_STEP, Recording, guarded
from llmops_integrations.langchain.runs import Run, runs_of
from llmops_integrations.langchain.translate import is_placeholder

__all__ = ["LLMOpsCallbackHandler", "guarded"]

_NOTHING: Final[Mapping[str, Any]] = {}


class LLMOpsCallbackHandler(Recording, BaseCallbackHandler):
    """Records every run below a call that is given this handler in ``config={"callbacks": [...]}``.

    One object serves any number of concurrent runs, threads and event loops. Of a run it keeps what
    its end will not say, until it ends; of those that never end, at most 100,000. Its methods copy
    what the framework hands them, within a budget, and put one small tuple on a queue: they never
    block, never change a value, and raise only where the user set breakers and one stops the run.

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
        self._recorder = self.monitor.recorder
        #: Lets LangChain pass on what a breaker raises; without breakers nothing here raises.
        self.raise_error = self._recorder.stops
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
            place = self._parent(parent_run_id)
            given = place.given
            name: str | None = kwargs.get("name")
            if type(name) is not str or not name or len(name) > MAX_TEXT:
                name = name_of(kwargs, serialized, "") or None
            runs = self._runs
            named = bool(runs.agents) and runs.is_named_agent(name, given)
            about = metadata or _NOTHING
            values = tuple(about.values())
            outline = self._outlines.find(
                name, tags or (), about, values, kwargs, given is not None, place.facts, named
            )
            kind = outline.kind
            run = Run(kind, outline.name, place.parent, given, outline.facts)
            run.trace, run.late, run.late_parent = place.trace, place.late, place.told_late
            if not runs.open(key, run, self):
                return
            if kind is None:
                self._recorder.skip()
                if name == PREBUILT_STEP:
                    self._note_prebuilt_agent(given)
                return
            fields = outline.fill(values)
            if outline.reading.has_session:
                run.thread = fields.get("thread_id")
            if type(inputs) is not dict or len(inputs) != 1 or not is_placeholder(inputs):
                fields["input"] = self._recorder.freeze(inputs)
            self._tell_start(key, run, place, fields, outline.promotable)
        except BreakerTripped:
            self._refused(run_id)
            raise
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
        if self.raise_error:
            self._recorder.check(run_id.int)
        try:
            run = self._runs.get(run_id.int)
            if run is None or run.streamed or not translate_model.has_text(token, chunk):
                return
            run.streamed = True
            self._recorder.mark(run_id.int)
        except (Exception, SystemExit) as error:
            self._recorder.report("on_llm_new_token", error)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if self.raise_error:
            self._recorder.check(run_id.int)
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
        about = metadata or _NOTHING
        first = self._start(run_id, parent_run_id, fields, content, tags, about)
        asked = handoffs.asked_by_tool(about, inputs) if first else None
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


def _lone(batch: Sequence[Any]) -> object:
    """Return the only prompt of a call: LangChain makes one run of each."""
    return batch[0] if len(batch) == 1 else batch
