"""Messages: their one canonical form, a cache of those that cannot have changed, and histories.

A history of 200 messages is handed to every node and every model call. Walking it each time costs
20 times what looking it up costs (``benchmarks/freeze.py``), so a message of plain text is frozen
once. A hit is checked field by field, as ``message.content = "new"`` must be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any, Final

import msgspec

from llmops_core.freeze.type_names import Fields, Message, layout_of, mro_of, type_name
from llmops_core.freeze.walk import CYCLE, PLANS, TOO_DEEP, PlanEntry, Walk, copy_value, stop

__all__ = [
    "FrozenBytes",
    "FrozenMessage",
    "FrozenToolCall",
    "Message",
    "MessageCache",
    "copy_message",
    "message_plan",
]

#: JSON of an empty message with its comma: the least that an omitted one takes.
EMPTY_MESSAGE_BYTES: Final = 73
#: What a message costs of the node limit, beside what is nested in it.
MESSAGE_NODES: Final = 3
LABEL_CHARS: Final = 128
CACHED_MESSAGES: Final = 2048
CACHED_BYTES: Final = 4_000_000
_SIZED_WHEN_OMITTED: Final = 50  # how many omitted messages are looked up for their size


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


class _Kept:
    """A frozen message, and what has to be unchanged for it to be used again."""

    __slots__ = ("calls", "content", "flat", "frozen", "message", "name", "rest", "size",
                 "values_of")  # fmt: skip

    def __init__(
        self,
        message: object,
        fields: Fields,
        flat: list[Any],
        values_of: Any,
        frozen: FrozenMessage,
        size: int,
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
        return None if calls else out
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
            walk.messages.keep(_Kept(value, fields, flat, values_of, out, size))
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


def _is_container(value: object) -> bool:
    kind = type(value)  # compared by identity: `in` would ask a hostile metaclass's __eq__
    return kind is list or kind is dict or kind is tuple


class MessageCache:
    """Frozen messages by identity, in two generations; shared by all threads without a lock.

    A hit in the old generation moves to the young one. When the young one is full it becomes the
    old one, so what was not used lately is let go, at the price of one dict operation.
    """

    def __init__(self) -> None:
        self._young: dict[int, _Kept] = {}
        self._old: dict[int, _Kept] = {}
        self._bytes = 0

    def look_up(self, message: object) -> _Kept | None:
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

    def keep(self, kept: _Kept) -> None:
        """Keep a frozen message for the next time."""
        if len(self._young) >= CACHED_MESSAGES or self._bytes > CACHED_BYTES:
            self._old, self._young, self._bytes = self._young, {}, 0
        self._young[id(kept.message)] = kept
        self._bytes += kept.size + 500

    def copy_history(
        self, walk: Walk, base: Any, value: Any, total: int, depth: int, entry: PlanEntry
    ) -> list[Any] | None:
        """Copy a sequence of messages; None if it holds anything else, or lies too deep.

        Beyond the budget the first message and the newest that fit are kept, with
        ``{"omitted_messages": n}`` between: they say what was asked and what came of it.
        *entry* is the plan of the first item.
        """
        key = id(value)
        if depth >= walk.depth or key in walk.path:
            return None
        before = (walk.text, walk.nodes, walk.cut)
        cut_before, walk.truncated = walk.truncated, False
        walk.path.add(key)
        out = self._copy_ends(walk, base, value, total, depth + 1, entry.values_of)
        walk.path.discard(key)
        if out is None:
            walk.text, walk.nodes, walk.cut = before
            walk.truncated = False
        walk.truncated = walk.truncated or cut_before
        return out

    def _copy_run(
        self, walk: Walk, items: Any, values_of: Any, depth: int
    ) -> list[FrozenMessage] | None:
        """Copy messages up to the one that does not fit; None if one of them is no message.

        The first half of the loop is what a long history costs: look-ups that C iterates, and a
        check of each message field by field.
        """
        out: list[FrozenMessage] = []
        append = out.append
        text = walk.text
        found = map(self._young.get, map(id, items))
        try:
            for item, kept, values in zip(items, found, map(values_of, items), strict=False):
                if (
                    kept is not None
                    and kept.message is item
                    and type(values) is dict
                    and values.get("content") is kept.content
                    and values.get("name") is kept.name
                    and ((calls := kept.calls) is None
                         or (not calls and values.get("tool_calls") is calls))
                    and (not kept.rest or kept.holds_rest(values))
                ):  # fmt: skip
                    if (size := kept.size) > text:
                        break
                    text -= size
                    append(kept.frozen)
                    continue
                walk.text = text
                frozen = _copy_whole(walk, item, depth)
                if frozen is None:
                    return None
                if frozen is _TOO_LARGE:
                    break
                text = walk.text
                append(frozen)
        except TypeError:  # no object of this framework: its fields cannot be read that way
            return None
        walk.text = text
        walk.nodes -= MESSAGE_NODES * len(out)
        return out

    def _copy_ends(
        self, walk: Walk, base: Any, value: Any, total: int, depth: int, values_of: Any
    ) -> list[Any] | None:
        """Copy the first message, in at most half of the budget, and the newest that fit."""
        half = walk.text // 2 if total > 1 else 0
        walk.text -= half
        left, cut = walk.text, walk.cut
        walk.nodes -= MESSAGE_NODES
        first = _copy_one(walk, base.__getitem__(value, 0), depth)
        left, walk.text = left - walk.text, walk.text + half
        if first is None or total == 1:
            return None if first is None else [first]
        first_cut, walk.truncated = walk.truncated, False
        room = max(walk.nodes // MESSAGE_NODES, 0)
        tail = base.__getitem__(value, slice(max(1, total - room), total))
        newest: list[Any] | None = self._copy_run(walk, tail[::-1], values_of, depth)
        if newest is None:
            return None
        if len(newest) == total - 1:
            if first_cut:  # the others left it more than a half
                walk.text, walk.cut = walk.text + left, cut
                first = _copy_one(walk, base.__getitem__(value, 0), depth)
            newest.reverse()
            return [first, *newest]
        if not newest:  # the last one says most; keep what fits of it
            newest = [_copy_one(walk, base.__getitem__(value, -1), depth)]
        walk.truncated = True
        omitted = total - 1 - len(newest)
        newest.reverse()
        if not omitted:
            return [first, *newest]
        walk.cut += omitted * EMPTY_MESSAGE_BYTES - 24 - len(str(omitted))
        some = base.__getitem__(value, slice(1, 1 + min(omitted, _SIZED_WHEN_OMITTED)))
        walk.cut += _content_bytes(values_of, some)
        return [first, {"omitted_messages": omitted}, *newest]


def _content_bytes(values_of: Any, messages: Any) -> int:
    """Return at least how many bytes of plain text the messages hold."""
    total = 0
    try:
        for values in map(values_of, messages):
            content = dict.get(values, "content")
            total += len(content) if type(content) is str else 0
    except TypeError:  # an object of another framework among them
        pass
    return total


_TOO_LARGE: Final = FrozenMessage(None, None, None, [], None)


def _copy_one(walk: Walk, item: Any, depth: int) -> FrozenMessage | None:
    """Copy one message, cut to the budget; None if it is none."""
    kind = type(item)
    entry = PLANS.get(id(kind)) or walk.plan_for(kind)
    out = entry.plan(walk, item, depth) if entry.values_of is not None else None
    if type(out) is FrozenMessage:
        return out
    if entry.values_of is not None:  # read by an integration, yet no message: never ask again
        PLANS[id(kind)] = entry._replace(values_of=None)
    return None


def _copy_whole(walk: Walk, item: Any, depth: int) -> FrozenMessage | None:
    """Copy one message if all of it fits; else leave the budget as it was."""
    before = (walk.text, walk.nodes, walk.cut)
    out = _copy_one(walk, item, depth)
    if walk.truncated or walk.nodes <= 0:
        walk.text, walk.nodes, walk.cut = before
        walk.truncated = False
        return None if out is None else _TOO_LARGE
    return out
