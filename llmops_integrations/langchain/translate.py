"""From LangChain's objects to plain span fields. Pure functions: no clock, no state, no callbacks.

Framework objects stop here. ``serialized`` and ``invocation_params`` are never stored whole: the
first holds the ``repr`` of a model, the second every argument of a call, and both may hold keys.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import ToolMessage

from llmops_core import describe_error
from llmops_integrations.langchain.reading import MAX_TEXT, bases, name_of, plain, text

__all__ = [
    "chain_outcome",
    "content_of_tool_output",
    "error_fields",
    "framework_of",
    "identity_fields",
    "is_placeholder",
    "outcome_of_error",
    "retriever_name",
    "tool_end_fields",
    "tool_start_fields",
    "with_questions",
]

MAX_ATTRIBUTES: Final = 32
_MAX_DEPTH: Final = 20  # of the path of nested functional tasks

#: Outcome by package and name of a class in the exception's MRO: LangGraph stays unimported, and a
#: class of the user's that merely has such a name is an error like any other.
_OUTCOMES: Final[Mapping[tuple[str, str], str]] = {
    ("langgraph", "ParentCommand"): "handed_off",
    ("langgraph", "GraphInterrupt"): "interrupted",
    ("langgraph", "GraphBubbleUp"): "interrupted",
    ("asyncio", "CancelledError"): "cancelled",
    ("concurrent", "CancelledError"): "cancelled",
    ("builtins", "KeyboardInterrupt"): "cancelled",
    ("builtins", "GeneratorExit"): "abandoned",
}

#: Tags and metadata that the frameworks set for themselves.
_INNER_TAGS: Final = ("seq:step:", "graph:step:", "map:key:", "langsmith:", "retry:attempt:")
_BRANCH_TAGS: Final = ("condition:", "branch:")
_INNER_METADATA: Final = ("langgraph_", "ls_", "lc_", "__", "checkpoint_")
_name_of_class: Final = type.__dict__["__name__"].__get__
_module_of_class: Final = type.__dict__["__module__"].__get__
_COLUMNS: Final = frozenset({"session_id", "thread_id", "user_id"})
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "langgraph_checkpoint_ns": "langgraph.checkpoint_ns",
    "langgraph_triggers": "langgraph.triggers",
    "langgraph_path": "langgraph.path",
    "langgraph_node": "langgraph.node",
    "checkpoint_id": "langgraph.checkpoint_id",
    "lc_source": "langchain.source",
    "__handoff_destination": "langgraph.handoff_destination",
}
_NODE_ATTRIBUTES: Final = frozenset({"langgraph.triggers", "langgraph.path"})


# ---- who and where ----


def framework_of(metadata: Mapping[str, Any]) -> str:
    """Return ``langgraph`` for a run of a graph or inside one, else ``langchain``."""
    if "langgraph_node" in metadata:
        return "langgraph"
    return (
        "langgraph"
        if plain(metadata.get("ls_integration")) in ("langgraph", "langchain_create_agent")
        else "langchain"
    )


def identity_fields(
    tags: Sequence[str] | None, metadata: Mapping[str, Any], *, of_node: bool = False
) -> dict[str, Any]:
    """Return session, thread, user, tags, attempt, step and attributes of a run.

    What only tells about a graph's node (its triggers and path) is left out below it: everything
    inside a node inherits its metadata.
    """
    fields: dict[str, Any] = {}
    thread = plain(metadata.get("thread_id"))
    session = plain(metadata.get("session_id")) or thread
    if session:
        fields["session_id"] = session
    if thread:
        fields["thread_id"] = thread
    user = plain(metadata.get("user_id"))
    if user:
        fields["user_id"] = user
    if tags:
        _add_tags(fields, tags)
    step = metadata.get("langgraph_step")
    if type(step) is int:
        fields["step"] = step
    attributes = _attributes(metadata, of_node)
    if attributes:
        fields["attributes"] = attributes
    return fields


def _add_tags(fields: dict[str, Any], tags: Sequence[str]) -> None:
    own = []
    for tag in tags:
        if type(tag) is not str:
            continue
        if not tag.startswith(_INNER_TAGS):
            prefix, _, number = tag.partition(":")
            if not (number.isdigit() and f"{prefix}:" in _BRANCH_TAGS):
                own.append(tag[:MAX_TEXT])
        elif tag.startswith("retry:attempt:"):
            number = tag.rpartition(":")[2]
            if number.isdigit():
                fields["attempt"] = int(number)
    if own:
        fields["tags"] = tuple(own)


def _attributes(metadata: Mapping[str, Any], of_node: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in metadata.items():
        if value is None or type(key) is not str:
            continue
        name = _attribute_name(key)
        if name is None:
            continue
        if type(value) is tuple:
            wanted = of_node and name in _NODE_ATTRIBUTES and _is_simple(value, 0)
            shown = _json(value) if wanted else None
        else:
            shown = plain(value)
        if shown is not None:
            found[name] = shown
            if len(found) == MAX_ATTRIBUTES:
                break
    return found


@functools.lru_cache(maxsize=1024)
def _attribute_name(key: str) -> str | None:
    """Return the attribute that a key of the metadata becomes; None if it becomes none."""
    name = _ATTRIBUTES.get(key)
    if name is None and key not in _COLUMNS and not key.startswith(_INNER_METADATA):
        return key[:MAX_TEXT]
    return name


# Cached, as a graph has few nodes and each starts often: two encodings cost more than all the rest.
@functools.lru_cache(maxsize=1024)
def _json(value: tuple[Any, ...]) -> str:
    return json.dumps(value, ensure_ascii=False)[:MAX_TEXT]


def _is_simple(value: tuple[Any, ...], depth: int) -> bool:
    """Whether a tuple holds scalars and such tuples alone: nothing of the user's is hashed."""
    if depth > _MAX_DEPTH or len(value) > MAX_ATTRIBUTES:
        return False
    return all(
        type(item) in (str, int, bool) or (type(item) is tuple and _is_simple(item, depth + 1))
        for item in value
    )


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


def chain_outcome(outputs: object) -> str:
    """Return a chain's outcome: a graph that waits for a human ends normally."""
    return "interrupted" if type(outputs) is dict and "__interrupt__" in outputs else "ok"


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
        package = str(_module_of_class(base)).partition(".")[0]
        outcome = _OUTCOMES.get((package, _name_of_class(base)))
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
