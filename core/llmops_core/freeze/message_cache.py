"""A cache of frozen messages that cannot have changed.

A history of 200 messages is handed to every node and every model call. Walking it each time costs
20 times what looking it up costs (``benchmarks/freeze.py``), so a message of plain text is frozen
once. A hit is checked field by field, as ``message.content = "new"`` must be noticed.

The cache holds the live message, so it takes only one that is small as a whole: what was not copied
of it (audio, a parsed object, a tool's artifact) would stay alive for as long.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, Final

from llmops_core.freeze.messages import FrozenMessage
from llmops_core.freeze.type_names import Fields, layout_of, type_name
from llmops_core.freeze.walk import CYCLE, TOO_DEEP, PlanEntry, Walk, copy_value, stop

__all__ = ["KeptMessage", "MessageCache", "message_plan"]

CACHED_MESSAGES: Final = 2048
CACHED_BYTES: Final = 4_000_000
#: What a cached message may hold beside the text that was copied of it, and of how many values.
_HELD_TEXT: Final = 16_000
_HELD_VALUES: Final = 256


class KeptMessage:
    """A frozen message, and what has to be unchanged for it to be used again."""

    __slots__ = ("calls", "content", "flat", "frozen", "message", "name", "rest", "size",
                 "values_of", "weight")  # fmt: skip

    def __init__(
        self,
        message: object,
        fields: Fields,
        flat: list[Any],
        values_of: Any,
        frozen: FrozenMessage,
        size: int,
        weight: int,
    ) -> None:
        self.message = message  # strong: an id is only unique among the living
        self.values_of = values_of
        reads = dict(fields.reads)
        # The three by name, not in a loop: that is a third of the price of a hit.
        self.content = reads.pop("content", None)
        self.name = reads.pop("name", None)
        self.calls = reads.pop("tool_calls", None)
        self.flat = flat
        if flat:
            reads["tool_calls"], self.calls = self.calls, None
        if _is_container(self.content):  # empty now; it may be filled
            reads["content"] = self.content
        self.rest = tuple(reads.items())
        self.frozen = frozen
        self.size = size
        self.weight = weight

    def holds(self, values: Any) -> bool:
        """Whether every field that was read still holds the same object, and is still empty."""
        calls = self.calls
        return (
            type(values) is dict  # __dict__ can be assigned
            and values.get("content") is self.content
            and values.get("name") is self.name
            and (calls is None or (not calls and values.get("tool_calls") is calls))
            and (not self.rest or self.holds_rest(values))
        )

    def holds_rest(self, values: dict[str, Any]) -> bool:
        """The same for the fields without a place of their own."""
        for name, value in self.rest:
            if values.get(name) is not value:
                return False
            if name == "tool_calls":
                flat = _flatten(value)
                if (
                    flat is None
                    or len(flat) != len(self.flat)
                    or not all(map(is_, flat, self.flat))
                ):
                    return False
            elif value and _is_container(value):
                return False
        return True


def _flatten(calls: Any) -> list[Any] | None:
    """List every object inside tool calls whose arguments are plain; None for any others.

    Equal lists, object by object, mean equal calls: comparing them costs a tenth of a walk.
    """
    out: list[Any] = []
    if type(calls) is not list:
        return out if calls is None or (_is_container(calls) and not calls) else None
    try:
        for call in calls:
            args = dict.get(call, "args") if type(call) is dict else None
            if type(args) is not dict:
                return None
            out += (call, *call, *call.values(), *args, *args.values())
    except RuntimeError:  # another thread changes it
        return None
    return out


def _is_plain(flat: list[Any], calls: Any) -> bool:
    """Whether nothing in a flattened list can change but the dicts that were flattened."""
    known = {id(call) for call in calls or ()} | {
        id(dict.get(call, "args")) for call in calls or ()
    }
    return all(_is_leaf(value) or id(value) in known for value in flat)


def _is_leaf(value: object) -> bool:
    kind = type(value)
    return value is None or kind is str or kind is int or kind is float or kind is bool


def message_plan(cls: type, reader: Callable[[Any, Fields], Any]) -> PlanEntry:
    """Plan a class that an integration knows how to read."""
    layout = layout_of(cls)
    values_of = layout.values.__get__ if layout.values is not None else None
    marker = f"<{type_name(cls)}>"

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        kept = walk.messages.look_up(value)
        if kept is not None and kept.size <= walk.text:
            walk.text -= kept.size
            return kept.frozen
        key = id(value)
        if depth >= walk.depth or key in walk.path:
            return stop(walk, CYCLE if key in walk.path else TOO_DEEP)
        fields = Fields(value, layout)
        try:
            parts = reader(value, fields)
        except Exception:  # an integration's reader that a new version surprises costs one value
            parts = marker
        # Taken before the copy: a change in between then differs from it, and is walked next time.
        flat = _fixed_calls(fields)
        walk.path.add(key)
        before, cut = walk.text, walk.truncated
        walk.truncated = False
        out = copy_value(walk, parts, depth)
        if type(out) is FrozenMessage and not walk.truncated and flat is not None:
            size = before - walk.text
            weight = _weigh([fields.values, fields.slots()], size + _HELD_TEXT)
            if weight is not None:
                walk.messages.keep(KeptMessage(value, fields, flat, values_of, out, size, weight))
        walk.truncated = walk.truncated or cut
        walk.path.discard(key)
        return out

    return PlanEntry(plan, cls, values_of)


def _fixed_calls(fields: Fields) -> list[Any] | None:
    """Return the flattened tool calls of a message that can be kept; None if it cannot.

    It can while each field that was read holds the same object, and that object cannot change or is
    an empty container, whose emptiness is looked at; and tool calls are compared item by item.
    """
    if not fields.fixed:
        return None
    flat: list[Any] | None = []
    for name, value in fields.reads:
        if name == "tool_calls":
            flat = _flatten(value)
            if flat is None or not _is_plain(flat, value):
                return None
        elif not _is_leaf(value) and not (_is_container(value) and not value):
            return None
    return flat


def _weigh(todo: list[Any], most: int) -> int | None:  # noqa: C901 - as copy_pairs
    """Return the bytes of all text inside containers; None for more, or for more than plain data.

    Every new message passes here; *todo* is used up.
    """
    left, room = most, _HELD_VALUES
    try:
        for found in todo:  # which grows meanwhile
            room -= len(found)
            if room < 0:  # also where a container holds itself
                return None
            if type(found) is dict:
                for key in found:
                    if type(key) is not str:
                        return None
                    left -= len(key)
            for value in found.values() if type(found) is dict else found:
                if value is None:
                    continue
                kind = type(value)
                if kind is str or kind is bytes:
                    left -= len(value)
                elif kind is dict or kind is list or kind is tuple or kind is set:
                    if value:
                        todo.append(value)
                elif kind is int:
                    left -= value.bit_length() >> 3
                elif kind is not bool and kind is not float:
                    return None
    except RuntimeError:  # another thread changes it
        return None
    return most - left if left >= 0 else None


def _is_container(value: object) -> bool:
    kind = type(value)  # compared by identity: `in` would ask a hostile metaclass's __eq__
    return kind is list or kind is dict or kind is tuple


class MessageCache:
    """Frozen messages by identity, in two generations; shared by all threads without a lock.

    A hit in the old generation moves to the young one. When the young one is full it becomes the
    old one, so what was not used lately is let go, at the price of one dict operation.
    """

    def __init__(self) -> None:
        self._young: dict[int, KeptMessage] = {}
        self._old: dict[int, KeptMessage] = {}
        self._bytes = 0

    def look_up(self, message: object) -> KeptMessage | None:
        """Return what was kept of a message, if it is certain that it has not changed."""
        key = id(message)
        kept = self._young.get(key)
        if kept is None:
            kept = self._old.get(key)
            if kept is None:
                return None
            self.keep(kept)
        if kept.message is message and kept.holds(kept.values_of(message)):
            return kept
        return None

    def keep(self, kept: KeptMessage) -> None:
        """Keep a frozen message for the next time."""
        if len(self._young) >= CACHED_MESSAGES or self._bytes > CACHED_BYTES:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._young[id(kept.message)] = kept
        self._bytes += kept.weight + 500
