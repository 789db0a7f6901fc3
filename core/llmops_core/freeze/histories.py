"""Histories: a list of messages as its first message, its newest ones, and a count of the others.

The same history comes by several times: as the state of a node, as the prompt of its model, as the
state of the next node. The second time its copy is kept with everything that it was made from, and
used again while all of that is the very same (:class:`_KeptHistory`); so it is also encoded once.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from operator import is_
from typing import Any, Final

from llmops_core.freeze.message_cache import KeptMessage, MessageCache
from llmops_core.freeze.messages import FrozenMessage
from llmops_core.freeze.walk import PLANS, PlanEntry, Walk

__all__ = ["HistoryCache"]

#: JSON of an empty message with its comma: the least that an omitted one takes.
EMPTY_MESSAGE_BYTES: Final = 73
#: What a message costs of the node limit, beside what is nested in it.
MESSAGE_NODES: Final = 3
#: How many omitted messages are looked up for their size.
_SIZED_WHEN_OMITTED: Final = 16
#: Histories that are kept; all are forgotten when there are more.
_KEPT_HISTORIES: Final = 64
_TOO_LARGE: Final = FrozenMessage(None, None, None, [], None)


class _KeptHistory:
    """A copied history, what it cost, and what has to be unchanged for it to be used again."""

    __slots__ = ("calls", "contents", "copy", "cost", "empty", "items",
                 "names", "odd", "sizes", "truncated")  # fmt: skip

    def __init__(
        self, items: list[Any], sizes: list[int], kept: list[KeptMessage], copy: list[Any]
    ) -> None:
        #: The messages that were copied. Those that were measured are not held, as they may be of
        #: any size: all that the copy tells of them is their size.
        self.items = items
        self.sizes = sizes
        self.contents = [one.content for one in kept]
        self.names = [one.name for one in kept]
        self.calls = [one.calls for one in kept]
        #: Tool calls that were empty, and have to be so still.
        self.empty = [one.calls for one in kept if not one.flat]
        self.odd = [(place, one) for place, one in enumerate(kept) if one.rest]
        for place, one in self.odd:
            if one.flat:  # compared call by call
                self.calls[place] = dict(one.rest)["tool_calls"]
        self.copy = copy
        self.cost = (0, 0, 0)
        self.truncated = False

    def holds(self, items: list[Any], measured: list[Any], values_of: Callable[[Any], Any]) -> bool:
        """Whether these are the same messages, and none of them has changed.

        As :meth:`KeptMessage.holds` for each, but by loops that C runs.
        """
        if len(items) != len(self.items) or not all(map(is_, items, self.items)):
            return False
        if measured and _content_sizes(values_of, measured) != self.sizes:
            return False
        try:
            values = list(map(values_of, items))
        except TypeError:  # no object of this framework
            return False
        get, calls = dict.get, self.calls
        return (
            all(map(is_, map(type, values), repeat(dict)))
            and all(map(is_, map(get, values, repeat("content")), self.contents))
            and all(map(is_, self.names, map(get, values, repeat("name"))))
            and all(map(is_, calls, map(get, values, repeat("tool_calls"))))
            and not any(self.empty)
            and all(one.holds_rest(values[place]) for place, one in self.odd)
        )


class HistoryCache(MessageCache):
    """Frozen messages and whole histories; shared by all threads without a lock."""

    def __init__(self) -> None:
        super().__init__()
        #: By the newest message, the count and the budget; None for a history that came by once.
        self._histories: dict[tuple[int, int, int, int], _KeptHistory | None] = {}

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
        seen = (id(base.__getitem__(value, -1)), total, walk.text, walk.nodes)
        before = (walk.text, walk.nodes, walk.cut)
        again = seen in self._histories
        if again:
            out = self._use_again(walk, base, value, total, seen, entry.values_of)
            if out is not None:
                return out
        cut_before, walk.truncated = walk.truncated, False
        walk.path.add(key)
        out = self._copy_ends(walk, base, value, total, depth + 1, entry.values_of)
        walk.path.discard(key)
        if out is None:
            walk.text, walk.nodes, walk.cut = before
            walk.truncated = False
        elif again:
            self._keep_history(walk, base, value, total, seen, before, out, entry.values_of)
        else:
            if len(self._histories) >= _KEPT_HISTORIES:
                self._histories.clear()
            self._histories[seen] = None
        walk.truncated = walk.truncated or cut_before
        return out

    def _use_again(
        self,
        walk: Walk,
        base: Any,
        value: Any,
        total: int,
        seen: tuple[int, int, int, int],
        values_of: Any,
    ) -> list[Any] | None:
        """Return the copy that was kept of a history, if it is certain that nothing has changed."""
        kept = self._histories.get(seen)
        if kept is None:
            return None
        copied = len(kept.items)
        items, measured = _copied(base, value, total, copied), _measured(base, value, total, copied)
        if not kept.holds(items, measured, values_of):
            self._histories[seen] = None
            return None
        text, nodes, cut = kept.cost
        walk.text -= text
        walk.nodes -= nodes
        walk.cut += cut
        walk.truncated = walk.truncated or kept.truncated
        return kept.copy

    def _keep_history(
        self,
        walk: Walk,
        base: Any,
        value: Any,
        total: int,
        seen: tuple[int, int, int, int],
        before: tuple[int, int, int],
        out: list[Any],
        values_of: Any,
    ) -> None:
        """Keep a copied history that came by before, if each message in it is kept."""
        copies = [copy for copy in out if type(copy) is FrozenMessage]
        items = _copied(base, value, total, len(copies))
        kept = [one for one in map(self.look_up, items) if one is not None]
        if len(kept) != len(copies) or not all(map(is_, (one.frozen for one in kept), copies)):
            return
        sizes = _content_sizes(values_of, _measured(base, value, total, len(copies)))
        found = _KeptHistory(items, sizes, kept, out)
        found.cost = (before[0] - walk.text, before[1] - walk.nodes, walk.cut - before[2])
        found.truncated = walk.truncated
        self._histories[seen] = found

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
        measured = _measured(base, value, total, 1 + len(newest))
        walk.cut += sum(_content_sizes(values_of, measured))
        return [first, {"omitted_messages": omitted}, *newest]


def _copied(base: Any, value: Any, total: int, copied: int) -> list[Any]:
    """Return the messages that a copy of so many was made from."""
    newest = base.__getitem__(value, slice(1 + total - copied, total))
    return [base.__getitem__(value, 0), *newest]


def _measured(base: Any, value: Any, total: int, copied: int) -> Any:
    """Return the omitted messages that are looked up for their size."""
    return base.__getitem__(value, slice(1, 1 + min(total - copied, _SIZED_WHEN_OMITTED)))


def _content_sizes(values_of: Any, messages: Any) -> list[int]:
    """Return at least how many bytes of plain text each of the messages holds."""
    sizes = []
    try:
        for values in map(values_of, messages):
            content = dict.get(values, "content")
            sizes.append(len(content) if type(content) is str else 0)
    except TypeError:  # an object of another framework among them
        pass
    return sizes


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
