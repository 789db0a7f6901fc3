"""From LangChain's objects to plain span fields. Pure functions: no clock, no state, no callbacks.

Framework objects stop here. ``serialized`` and ``invocation_params`` are never stored whole: the
first holds the ``repr`` of a model, the second every argument of a call, and both may hold keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from langchain_core.messages import ToolMessage

from llmops_core import describe_error
from llmops_integrations.langchain.reading import MAX_TEXT, bases, class_name, name_of, text

__all__ = [
    "content_of_tool_output",
    "error_fields",
    "is_placeholder",
    "outcome_of_error",
    "retriever_name",
    "tool_end_fields",
    "tool_start_fields",
    "with_questions",
]

#: Outcome by package and name of a class in the exception's MRO: LangGraph stays unimported, and a
#: class of the user's that merely has such a name is an error like any other.
_OUTCOMES: Final[Mapping[tuple[str, str], str]] = {
    ("langgraph", "ParentCommand"): "handed_off",
    ("langgraph", "GraphInterrupt"): "interrupted",
    ("langgraph", "GraphBubbleUp"): "interrupted",
    ("asyncio", "CancelledError"): "cancelled",
    ("concurrent", "CancelledError"): "cancelled",
    ("builtins", "KeyboardInterrupt"): "cancelled",
    ("trio", "Cancelled"): "cancelled",
    ("greenlet", "GreenletExit"): "cancelled",
    ("builtins", "GeneratorExit"): "abandoned",
    ("llmops_core", "Interrupted"): "interrupted",
}


# ---- tools, retrievers, chains ----


def tool_start_fields(
    serialized: Mapping[str, Any] | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return kind, name and the model's call id of a tool run."""
    fields: dict[str, Any] = {"kind": "tool", "name": name_of(extra, serialized, "tool")}
    call_id = text(extra.get("tool_call_id"))
    if call_id:
        fields["tool_call_id"] = call_id
    return fields


def tool_end_fields(output: object) -> dict[str, Any]:
    """Return the outcome of a tool. An error that became a message is still the tool's error."""
    if not _is_tool_message(output):
        return {"outcome": "ok"}
    fields: dict[str, Any] = {"outcome": "ok"}
    if getattr(output, "status", None) == "error":
        fields["outcome"] = "error"
        fields["error_type"] = "ToolError"
        content = getattr(output, "content", None)
        if type(content) is str:
            fields["error_message"] = content[:MAX_TEXT]
    call_id = text(getattr(output, "tool_call_id", None))
    if call_id:
        fields["tool_call_id"] = call_id
    return fields


def content_of_tool_output(output: object) -> object:
    """Return a tool message's content: what the tool said, however it was called."""
    if _is_tool_message(output):
        return getattr(output, "content", None)
    return output


def _is_tool_message(output: object) -> bool:
    return any(base is ToolMessage for base in bases(output))


def retriever_name(
    serialized: Mapping[str, Any] | None, metadata: Mapping[str, Any], extra: Mapping[str, Any]
) -> str:
    """Return a retriever's name."""
    return name_of(extra, serialized, "") or text(metadata.get("ls_retriever_name")) or "retriever"


def with_questions(outputs: object, asked: tuple[Any, ...]) -> object:
    """Return a paused graph's output with what it asks, first, as its caller got it."""
    if not asked or (type(outputs) is dict and "__interrupt__" in outputs):
        return outputs
    rest = outputs if type(outputs) is dict else {} if outputs is None else {"output": outputs}
    return {"__interrupt__": list(asked), **rest}


def is_placeholder(inputs: object) -> bool:
    """Whether a chain's input is what LangChain puts there while the real one streams in."""
    if type(inputs) is not dict or len(inputs) != 1:
        return False
    only = inputs.get("input")
    return type(only) is str and not only  # not ==, which may be the user's


# ---- errors ----


def outcome_of_error(error: BaseException) -> str:
    """Return the outcome that an exception stands for: control flow is not an error."""
    for base in bases(error):
        module, name = class_name(base)
        outcome = _OUTCOMES.get((module.partition(".")[0], name))
        if outcome is not None:
            return outcome
    return "error"


def error_fields(error: BaseException) -> dict[str, Any]:
    """Return outcome, and type and message where it is an error."""
    outcome = outcome_of_error(error)
    if outcome != "error":
        return {"outcome": outcome}
    error_type, message = describe_error(error)
    return {"outcome": outcome, "error_type": error_type, "error_message": message}
