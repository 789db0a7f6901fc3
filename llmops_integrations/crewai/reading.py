"""Read values of CrewAI's objects without calling anything of a type that is not known."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any, Final

from llmops_core import describe_error, know

if TYPE_CHECKING:
    from llmops_core.freeze.freezer import Fields, Message

__all__ = [
    "BLOCKED",
    "MAX_TEXT",
    "Said",
    "class_name",
    "count",
    "error_fields",
    "messages",
    "read",
    "register",
    "run_id_of",
    "said",
    "text",
]

#: What CrewAI says where a hook refused a model call.
BLOCKED: Final = "LLM call blocked by before_llm_call hook"
MAX_TEXT: Final = 1_000  # characters of a name or an attribute
MAX_ARGUMENTS: Final = 100_000  # characters of a tool call's arguments that are parsed
MAX_MESSAGES: Final = 2_000


def text(value: Any) -> str | None:
    """Return a non-empty text without blanks around it, bounded; anything else as None.

    Roles that come from YAML end in a line break.
    """
    return (value[:MAX_TEXT].strip() or None) if type(value) is str else None


def read(value: Any, *path: str) -> Any:
    """Return ``value.a.b`` for ``path`` ``a, b``; None where anything on the way is missing."""
    for name in path:
        if value is None:
            return None
        value = getattr(value, name, None)
    return value


def count(value: object) -> int | None:
    """Return a number of tokens; anything else as None."""
    return value if type(value) is int and value >= 0 else None


def run_id_of(event_id: Any) -> int | None:
    """Return the 128 bits of an event's id, which is a UUID as text."""
    if type(event_id) is not str:
        return None
    try:
        return int(event_id.replace("-", ""), 16) & ((1 << 128) - 1)
    except ValueError:
        return None


def class_name(value: object) -> str:
    """Return ``module.Name`` of a value's class."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def error_fields(error: Any, default: str) -> dict[str, Any]:
    """Return outcome, type and message of what an event calls its error: an exception, or its text.

    A text does not tell the type: it is *default* until something does.
    """
    if isinstance(error, BaseException):
        kind, message = describe_error(error)
        fields = {"outcome": "error", "error_type": kind, "error_message": message}
        if message == BLOCKED:  # by a hook of somebody's: if ours, a breaker's type comes along
            fields["_untyped"] = message
        return fields
    message = error[:MAX_TEXT] if type(error) is str else ""
    return {
        "outcome": "error",
        "error_type": default,
        "error_message": message,
        "_untyped": message,
    }


# ---- messages ----


class Said:
    """A message in the form that every framework's messages have."""

    __slots__ = ("call_id", "content", "name", "role", "tool_calls")

    def __init__(
        self, role: Any, content: Any, name: Any = None, tool_calls: Any = (), call_id: Any = None
    ) -> None:
        self.role = role
        self.content = content
        self.name = name
        self.tool_calls = tool_calls
        self.call_id = call_id


def _reader(value: object, fields: Fields) -> Message:
    get = fields.get
    return fields.message(
        get("role"), get("content"), get("name"), get("tool_calls"), get("call_id")
    )


def register() -> None:
    """Teach the freezer our message. Called on import of the integration; repeating it is free."""
    know("llmops_integrations.crewai.reading", "Said", _reader)


def messages(given: Any) -> Any:
    """Return the messages of a model call, which CrewAI tells as a text or as a list of dicts."""
    if type(given) is not list:
        return given
    found: list[Any] = []
    for message in given[:MAX_MESSAGES]:
        if type(message) is dict and "role" in message:
            found.append(
                Said(
                    message["role"],
                    message.get("content"),
                    message.get("name"),
                    _calls(message.get("tool_calls")),
                    message.get("tool_call_id"),
                )
            )
        else:
            found.append(message)
    return found + given[MAX_MESSAGES:]


def said(response: Any) -> Any:
    """Return what a model answered: a message of text, or one with tool calls."""
    if type(response) is str:
        return Said("assistant", response)
    if type(response) is list and response:
        calls = _calls(response)
        if calls:
            return Said("assistant", "", None, calls)
    return response


def _calls(given: Any) -> tuple[dict[str, Any], ...]:
    """Return tool calls as ``{id, name, args}``; CrewAI has OpenAI's form for every provider."""
    if type(given) is not list:
        return ()
    found = []
    for call in given[:100]:
        if type(call) is not dict:
            continue
        function = call.get("function")
        about = function if type(function) is dict else call
        name = _unquoted(about.get("name"))
        if type(name) is not str:
            continue
        arguments = _parsed(_unquoted(about.get("arguments", about.get("input"))))
        found.append({"id": _unquoted(call.get("id")), "name": name, "args": arguments})
    return tuple(found)


def _unquoted(value: Any) -> Any:
    """Return a text as it was: deep in a message CrewAI tells a text as Python would write it."""
    if type(value) is not str or not 2 <= len(value) <= MAX_ARGUMENTS:
        return value
    if value[0] not in "'\"" or value[-1] != value[0]:
        return value
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return found if type(found) is str else value


def _parsed(arguments: Any) -> Any:
    if type(arguments) is not str or len(arguments) > MAX_ARGUMENTS or arguments[:1] != "{":
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
