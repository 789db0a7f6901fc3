"""Messages and binary data: their one canonical form."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llmops_core.freeze.type_names import Message, mro_of
from llmops_core.freeze.walk import Walk, copy_value

__all__ = [
    "FrozenBytes",
    "FrozenMessage",
    "FrozenToolCall",
    "Message",
    "copy_message",
]

LABEL_CHARS: Final = 128


class FrozenBytes:
    """Binary data: how many bytes there were, and the first few of them.

    No struct, so that encoding asks what to make of it: hashing the head is the intake's work.
    """

    __slots__ = ("head", "size")

    def __init__(self, size: int, head: bytes) -> None:
        self.size = size
        self.head = head


class FrozenToolCall(msgspec.Struct, frozen=True, gc=False):
    """A tool call inside a message; encodes with its keys in this order."""

    id: Any
    name: Any
    args: Any


class FrozenMessage(msgspec.Struct, frozen=True, gc=False):
    """A message in the form that it has in every framework; encodes with its keys in this order."""

    role: Any
    content: Any
    name: Any
    tool_calls: list[Any]
    tool_call_id: Any


def copy_message(walk: Walk, message: Message, depth: int) -> FrozenMessage:
    """Copy the parts of a message within the budget."""
    below = depth + 1
    calls = message.tool_calls
    # Who speaks comes first, so that a long content cannot take its place.
    role = _copy_label(walk, message.role, below)
    name = _copy_label(walk, message.name, below)
    call_id = _copy_label(walk, message.tool_call_id, below)
    content = copy_value(walk, message.content, below)
    copied = _copy_calls(walk, calls, below) if calls is not None else []
    return FrozenMessage(role, content, name, copied, call_id)


def _copy_label(walk: Walk, value: Any, depth: int) -> Any:
    """Copy a name or an id: kept whole while it is short, however little text is left."""
    if value is None or (type(value) is str and len(value) <= LABEL_CHARS):
        return value
    return copy_value(walk, value, depth)


def _copy_calls(walk: Walk, calls: Any, depth: int) -> list[Any]:
    base: Any = next((base for base in mro_of(type(calls)) if base is list or base is tuple), None)
    if base is None:
        return [copy_value(walk, calls, depth)]
    out: list[Any] = []
    for call in base.__getitem__(calls, slice(0, max(walk.nodes, 0))):
        walk.nodes -= 4
        if any(base is dict for base in mro_of(type(call))):
            call_id, name = (_copy_label(walk, dict.get(call, n), depth) for n in ("id", "name"))
            args = copy_value(walk, dict.get(call, "args"), depth + 1)
            out.append(FrozenToolCall(call_id, name, args))
        else:
            out.append(copy_value(walk, call, depth + 1))
    omitted = base.__len__(calls) - len(out)
    if omitted:
        walk.truncated = True
        walk.cut += 2 * omitted - 22 - len(str(omitted))
        out.append({"omitted_items": omitted})
    return out
