"""Stored content as text that people would read: messages without roles, JSON as ``key: value``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["readable"]

#: Keys of a message that say how it travelled, not what it says.
_ENVELOPE: Final = frozenset(
    ("role", "type", "id", "tool_call_id", "response_metadata", "usage_metadata")
)
#: Who says what an agent is for: nothing that is handed over.
_INSTRUCTIONS: Final = ("system", "developer")
_DEEPEST: Final = 12


def readable(text: str | None) -> str:
    """Return stored content as text, without system messages.

    Content that is no JSON, or was cut inside it, stays as it is.
    """
    if not text:
        return ""
    value = _parsed(text) if text[0] in "{[" else None
    return "\n".join(_lines(value, "", 0)) if value else text


def _parsed(text: str) -> Any:
    """Return what JSON text holds, None for text that is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _lines(value: Any, label: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        if "role" in value and "content" in value:
            if value["role"] not in _INSTRUCTIONS:
                yield from _message(value, depth)
            return
        for key, item in value.items():
            yield from _lines(item, str(key), depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _lines(item, label, depth + 1)
    elif isinstance(value, str) and value[:1] in ("{", "[") and (inner := _parsed(value)):
        yield from _lines(inner, label, depth + 1)
    elif value is not None and value != "":
        shown = value if isinstance(value, str) else json.dumps(value)
        yield f"{label}: {shown}" if label and label not in _TEXTS else shown


#: Keys whose value is text that somebody wrote: the key is no label of it.
_TEXTS: Final = frozenset(
    ("content", "text", "output", "input", "passed", "messages", "question", "task_description")
)


def _message(message: dict[str, Any], depth: int) -> Iterator[str]:
    yield from _lines(message["content"], "content", depth + 1)
    for call in message.get("tool_calls") or ():
        if isinstance(call, dict):
            yield from _lines(call.get("args"), "", depth + 1)
    for key, item in message.items():
        if key not in ("content", "tool_calls", "name") and key not in _ENVELOPE:
            yield from _lines(item, key, depth + 1)
