"""From CrewAI's events to plain span fields. Pure functions: no clock, no state, no bus.

A reader gets an event, its source and ``freeze``, and reads fields by plain attribute access: events
hold live agents, tasks and crews, which are never stored whole. Names that begin with ``_`` are for
:mod:`~llmops_integrations.crewai.trees` alone and are no columns.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmops_integrations.crewai.reading import (
    MAX_TEXT,
    class_name,
    count,
    error_fields,
    messages,
    read,
    said,
    text,
)

__all__ = ["READERS", "START_OF", "Reader", "usage_fields"]

Freeze = Callable[[object], Any]
#: None where there is nothing to tell.
Read = Callable[[Any, Any, Freeze], dict[str, Any] | None]

START: Final = "start"
END: Final = "end"
POINT: Final = "point"
MARK: Final = "mark"

#: How often a person can be asked about one answer after another.
MAX_QUESTIONS: Final = 1_000
#: How much of a task's description is its name where it has none.
TASK_NAME_CHARS: Final = 60


class Reader:
    """How one type of event is read: whether it starts a run, ends one, or only happens."""

    __slots__ = ("read", "what")

    def __init__(self, what: str, read: Read) -> None:
        self.what = what
        self.read = read


#: Readers by the event's ``type``.
READERS: Final[dict[str, Reader]] = {}
#: The type of the start that an end belongs to.
START_OF: Final[dict[str, str]] = {}


def _starts(*types: str) -> Callable[[Read], Read]:
    def register(function: Read) -> Read:
        for kind in types:
            READERS[kind] = Reader(START, function)
        return function

    return register


def _ends(start: str, *types: str) -> Callable[[Read], Read]:
    def register(function: Read) -> Read:
        for kind in types:
            READERS[kind] = Reader(END, function)
            START_OF[kind] = start
        return function

    return register


def _failures(start: str, default: str, *types: str) -> None:
    """Register ends that tell an error and nothing else."""

    def failed(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
        return error_fields(event.error, default)

    _ends(start, *types)(failed)


# ---- crews ----


@_starts("crew_kickoff_started")
def crew_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": "workflow", "name": text(event.crew_name) or "crew"}
    if event.inputs:
        fields["input"] = freeze(event.inputs)
    process = text(read(source, "process", "value"))
    if process:
        fields["attributes"] = {"crewai.process": process}
        fields["_hierarchical"] = process == "hierarchical"
    return fields


@_ends("crew_kickoff_started", "crew_kickoff_completed")
def crew_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    """The crew's total is a measurement: the token columns are its model calls'."""
    raw = read(event.output, "raw")
    fields = {"outcome": "ok", "output": freeze(event.output if raw is None else raw)}
    total = count(read(event, "total_tokens"))
    if total:
        fields["measurements"] = {"crewai.total_tokens": float(total)}
    return fields


_failures("crew_kickoff_started", "CrewError", "crew_kickoff_failed")


@_starts("crew_train_started", "crew_test_started")
def exercise_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    doing = "train" if event.type == "crew_train_started" else "test"
    fields: dict[str, Any] = {"kind": "workflow"}
    fields["name"] = f"{text(event.crew_name) or 'crew'} ({doing})"
    if event.inputs:
        fields["input"] = freeze(event.inputs)
    return fields


def _ok(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"outcome": "ok"}


_ends("crew_train_started", "crew_train_completed")(_ok)
_ends("crew_test_started", "crew_test_completed")(_ok)
_failures("crew_train_started", "CrewError", "crew_train_failed")
_failures("crew_test_started", "CrewError", "crew_test_failed")


# ---- tasks and agents ----


@_starts("task_started")
def task_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    task = event.task
    described = read(task, "description")
    name = text(read(task, "name"))
    if name is None:
        shown = described[:TASK_NAME_CHARS] if type(described) is str else ""
        name = " ".join(shown.split()) or None
    fields: dict[str, Any] = {"kind": "task", "name": name or "task"}
    context = event.context
    given = {"description": described, "context": context} if context else described
    fields["input"] = freeze(given)
    role = text(read(task, "agent", "role"))
    if role:
        fields["agent"] = role
    fields["_task"] = str(read(task, "id"))
    if type(context) is str and context:
        fields["_context"] = context
        fed = read(task, "context")
        if type(fed) is list:
            fields["_fed_by"] = tuple(str(read(one, "id")) for one in fed)
    return fields


@_ends("task_started", "task_completed")
def task_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    raw = read(event.output, "raw")
    return {
        "outcome": "ok",
        "output": freeze(raw),
        "_raw": raw,
        "_by": text(read(event.output, "agent")),
    }


@_ends("task_started", "task_failed")
def task_failed(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields = error_fields(event.error, "TaskError")
    kind = read(event, "error_type")  # since 1.15
    if isinstance(kind, type):
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        fields["error_type"] = f"{module}{kind.__qualname__}"
        del fields["_untyped"]
    return fields


@_starts("agent_execution_started")
def agent_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    role = text(read(event.agent, "role")) or "agent"
    return {
        "kind": "agent",
        "name": role,
        "agent": role,
        "input": freeze(event.task_prompt),
        "_model": _model_class(event.agent),
        "_asks": _questions(event),
    }


def _questions(event: Any) -> int:
    """Return how often a person may be asked about the answer: once where the crew is trained."""
    if read(event.task, "human_input") is not True:
        return 0
    return 1 if read(event.agent, "crew", "_train") is True else MAX_QUESTIONS


def _model_class(agent: Any) -> str | None:
    model = read(agent, "llm")
    return None if model is None or type(model) is str else class_name(model)


@_ends("agent_execution_started", "agent_execution_completed")
def agent_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"outcome": "ok", "output": freeze(event.output)}


_failures("agent_execution_started", "AgentError", "agent_execution_error")


def agent_shows(event: Any, source: Any, freeze: Freeze) -> dict[str, Any] | None:
    """An agent's answer is shown: with ``human_input`` a person is asked about it then."""
    answer = event.formatted_answer
    if type(answer).__name__ != "AgentFinish":
        return None
    return {"input": freeze(read(answer, "output"))}


READERS["agent_logs_execution"] = Reader(POINT, agent_shows)


@_starts("lite_agent_execution_started")
def lite_agent_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    about = event.agent_info if type(event.agent_info) is dict else {}
    role = text(about.get("role")) or "agent"
    return {
        "kind": "agent",
        "name": role,
        "agent": role,
        "input": freeze(messages(event.messages)),
        "_model": _model_class(source),
    }


_ends("lite_agent_execution_started", "lite_agent_execution_completed")(agent_ended)
_failures("lite_agent_execution_started", "AgentError", "lite_agent_execution_error")


@_starts("agent_reasoning_started")
def reasoning_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": "chain", "name": "reasoning"}
    if type(event.attempt) is int and event.attempt > 1:
        fields["attempt"] = event.attempt
    return fields


@_ends("agent_reasoning_started", "agent_reasoning_completed")
def reasoning_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    ready = "true" if event.ready is True else "false"
    return {
        "outcome": "ok",
        "output": freeze(event.plan),
        "attributes": {"crewai.ready": ready},
    }


_failures("agent_reasoning_started", "AgentError", "agent_reasoning_failed")


@_starts("agent_evaluation_started")
def evaluation_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"kind": "chain", "name": "evaluation"}


_ends("agent_evaluation_started", "agent_evaluation_completed")(_ok)
_failures("agent_evaluation_started", "AgentError", "agent_evaluation_failed")


# ---- models ----


@_starts("llm_call_started")
def model_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    model = text(event.model) or text(read(source, "model"))
    fields: dict[str, Any] = {"kind": "llm", "name": model or "llm"}
    if model:
        fields["model"] = model
    provider = text(read(source, "provider"))
    # A class of the user's inherits "openai" from the base class.
    if provider and type(source).__module__.startswith("crewai."):
        fields["provider"] = provider
    fields["input"] = freeze(messages(event.messages))
    tools = _tool_names(event.tools)
    if tools:
        fields["attributes"] = {"crewai.tools": tools}
    return fields


def _tool_names(tools: Any) -> str | None:
    if type(tools) is not list:
        return None
    names = []
    for tool in tools[:100]:
        about = tool.get("function", tool) if type(tool) is dict else None
        name = about.get("name") if type(about) is dict else None
        if type(name) is str:
            names.append(name[:100])
    return json.dumps(names, ensure_ascii=False) if names else None


@_ends("llm_call_started", "llm_call_completed")
def model_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields = usage_fields(event.usage)
    fields["outcome"] = "ok"
    fields["output"] = freeze(said(event.response))
    for column in ("finish_reason", "response_id"):  # since 1.14
        value = text(read(event, column))
        if value:
            fields[column] = value
    return fields


_failures("llm_call_started", "LLMError", "llm_call_failed")


def usage_fields(usage: Any) -> dict[str, Any]:
    """Return token counts: parts are included in the totals, whatever the provider's convention.

    Anthropic's own form, which LiteLLM passes on, counts cached tokens beside its input tokens;
    every other form counts them in.
    """
    if type(usage) is not dict:
        return {"usage_source": "missing"}
    read_tokens = _first(
        usage, "cached_prompt_tokens", "cached_tokens", "cache_read_input_tokens"
    ) or _detail(usage, "prompt_tokens_details", "cached_tokens")
    write_tokens = _first(usage, "cache_creation_tokens", "cache_creation_input_tokens")
    into = _first(usage, "prompt_tokens", "prompt_token_count", "input_tokens")
    additive = "prompt_tokens" not in usage and (
        "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage
    )
    if additive and into is not None:
        into += (read_tokens or 0) + (write_tokens or 0)
    counts = {
        "input_tokens": into,
        "output_tokens": _first(
            usage, "completion_tokens", "candidates_token_count", "output_tokens"
        ),
        "cache_read_tokens": read_tokens,
        "cache_write_tokens": write_tokens,
        "reasoning_tokens": _first(usage, "reasoning_tokens")
        or _detail(usage, "completion_tokens_details", "reasoning_tokens"),
    }
    fields: dict[str, Any] = {name: n for name, n in counts.items() if n is not None}
    fields["usage_source"] = "provider" if fields else "missing"
    return fields


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    return next((n for name in names if (n := count(usage.get(name))) is not None), None)


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return count(details.get(name)) if type(details) is dict else None


def _mark(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {}


READERS["llm_stream_chunk"] = Reader(MARK, _mark)


# ---- tools ----


def tool_name(name: Any) -> str:
    """Return a tool's name in one form: ReAct starts say ``Delegate work to coworker``."""
    return "_".join((text(name) or "tool").lower().split())


@_starts("tool_usage_started")
def tool_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    arguments = event.tool_args
    fields: dict[str, Any] = {"kind": "tool", "name": tool_name(event.tool_name)}
    if type(arguments) is str and arguments[:1] == "{":
        with contextlib.suppress(ValueError, RecursionError):
            arguments = json.loads(arguments)
    fields["input"] = freeze(arguments)
    return fields


@_ends("tool_usage_started", "tool_usage_finished")
def tool_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    """A tool that reports a failure is its own error, though it returned (since 1.15.30)."""
    fields: dict[str, Any] = {"outcome": "ok", "output": freeze(event.output)}
    failure = read(event, "failure")
    if failure is not None:
        message = read(failure, "message")
        fields.update(error_fields(message, text(read(failure, "code")) or "ToolError"))
        fields.pop("_untyped", None)
    if event.from_cache is True:
        fields["attributes"] = {"crewai.from_cache": "true"}
    return fields


_failures("tool_usage_started", "ToolError", "tool_usage_error")


def tool_refused(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    """A tool that does not exist, or whose arguments do not fit: it has no start."""
    unknown = event.type == "tool_selection_error"
    fields = error_fields(event.error, "UnknownTool" if unknown else "InvalidToolInput")
    fields.pop("_untyped", None)
    fields.update(kind="tool", name=tool_name(event.tool_name), _refused=True)
    fields["input"] = freeze(event.tool_args)
    return fields


READERS["tool_selection_error"] = Reader(POINT, tool_refused)
READERS["tool_validate_input_error"] = Reader(POINT, tool_refused)


# ---- guardrails ----


@_starts("llm_guardrail_started")
def guardrail_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    name = text(read(event, "guardrail_name"))  # since 1.14
    if name is None and type(event.guardrail) is str:
        head = event.guardrail.lstrip()[:MAX_TEXT]
        name = head[4:].partition("(")[0] if head.startswith("def ") else text(head[:60])
    fields: dict[str, Any] = {"kind": "guardrail", "name": text(name) or "guardrail"}
    if type(event.retry_count) is int and event.retry_count > 0:
        fields["attempt"] = event.retry_count + 1
    return fields


@_ends("llm_guardrail_started", "llm_guardrail_completed")
def guardrail_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    """What a guardrail refuses is an error of the guardrail's; the task tries again."""
    if event.success:
        return {"outcome": "ok", "output": freeze(event.result)}
    fields = error_fields(event.error, "GuardrailRejected")
    fields.pop("_untyped", None)
    if type(event.retry_count) is int:
        fields["attempt"] = event.retry_count + 1
    return fields


_failures("llm_guardrail_started", "GuardrailError", "llm_guardrail_failed")
