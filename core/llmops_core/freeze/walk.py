"""The walk that copies plain containers within a budget of text, nodes and depth.

Runs on the host's thread, so every line here is paid by the user's program. Exact builtins are told
by ``type(value) is ...`` and everything else goes to a plan made once for each class
(:mod:`llmops_core.freeze.types`). Nothing here calls a method that a user can define.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice, repeat
from operator import is_
from typing import Any, Final, NamedTuple

import msgspec

from llmops_core.freeze.type_names import type_name

__all__ = [
    "CYCLE",
    "FLAT_ENTRIES",
    "HEADS_BYTES",
    "PLANS",
    "TOO_DEEP",
    "PlanEntry",
    "Walk",
    "copy_dict",
    "copy_head",
    "copy_list",
    "copy_pairs",
    "copy_sequence",
    "copy_value",
    "cut_text",
    "keep_int",
    "keep_text",
    "measure_flat",
    "snapshot",
    "stop",
]

CYCLE: Final = "<cycle>"
TOO_DEEP: Final = "<too deep>"

KEY_CHARS: Final = 256  # a key is a name; longer ones are cut, so that keys cannot eat the text
HEAD_BYTES: Final = 4096  # enough of a binary value to tell its type by magic bytes
HEADS_BYTES: Final = 65_536  # all heads of one value together
DECIMAL_BITS: Final = 2048  # 617 digits; CPython lets nobody set its own limit below 640
_RETRIES: Final = 4
_SIZED_WHEN_OMITTED: Final = 32
#: What a key costs beside its length once the text is spent: enough for some thirty bare names.
_SPENT_KEY: Final = 32
#: Dicts of so many entries are first looked at as a whole (:func:`measure_flat`).
FLAT_ENTRIES: Final = 32

_MIN: Final = -(2**63 - 1)
_MAX: Final = 2**63 - 1


class Walk:
    """What is left of the budget, and what was cut, during one freeze."""

    __slots__ = ("cut", "depth", "floor", "heads", "messages", "nodes", "path", "plan_for", "text",
                 "truncated")  # fmt: skip

    def __init__(
        self,
        text: int,
        nodes: int,
        depth: int,
        plan_for: Callable[[type], PlanEntry],
        messages: Any,
    ) -> None:
        self.text = text
        # Keys may overdraw by an eighth: a state whose first value is huge still shows its keys.
        self.floor = -(text >> 3)
        self.nodes = nodes
        self.depth = depth
        self.plan_for = plan_for
        self.messages = messages
        self.heads = HEADS_BYTES
        self.cut = 0  # signed: a marker that is longer than what it stands for counts against
        self.truncated = False
        self.path: set[int] = set()  # ids of the containers above, to tell a cycle


Plan = Callable[[Walk, Any, int], Any]


class PlanEntry(NamedTuple):
    """How instances of a class are copied. Holds the class, so that its id is never reused."""

    plan: Plan
    cls: type
    values_of: Any = None  # reads the __dict__ of what may be a message; else None


# By id(cls): a hostile metaclass may define __hash__ and __eq__, which a key of the class itself
# would call.
PLANS: Final[dict[int, PlanEntry]] = {}


def measure_flat(copy: dict[Any, Any], text: int) -> int:
    """Return what text a dict of plain leaves leaves, or -1 where the walk has to copy it.

    Most inputs and outputs are such a dict, and need none of what the walk keeps. *copy* is ours
    already, so no other thread can change it meanwhile.
    """
    for name, item in copy.items():
        if type(name) is not str:
            return -1
        kind = type(item)
        if kind is str:
            text -= len(item)
        elif kind is int:
            if not _MIN <= item <= _MAX:
                return -1
        elif item is not None and kind is not bool and not (kind is float and item - item == 0.0):
            return -1
        size = len(name)
        if size > KEY_CHARS:
            return -1
        text -= size
    return text


def copy_value(walk: Walk, value: Any, depth: int) -> Any:
    """Copy any value; the caller has paid its node."""
    kind = type(value)
    if kind is str:
        size = len(value)
        if size <= walk.text:
            walk.text -= size
            return value
        return cut_text(walk, value)
    if kind is dict:
        return copy_pairs(walk, value, value.items(), len(value), depth)
    if kind is list or kind is tuple:
        return copy_list(walk, value, depth)
    entry = PLANS.get(id(kind)) or walk.plan_for(kind)
    return entry.plan(walk, value, depth)


def copy_dict(walk: Walk, value: dict[Any, Any], depth: int) -> Any:
    """Copy an exact dict: its head, then ``{"omitted_keys": n}`` where the budget ends."""
    return copy_pairs(walk, value, value.items(), len(value), depth)


def copy_pairs(  # noqa: C901 - the hot loop: a call for each leaf would double its price
    walk: Walk, value: object, pairs: Iterable[tuple[Any, Any]], total: int, depth: int
) -> Any:
    """Copy *pairs*, the entries of a dict or the fields of an object that has *total* of them."""
    key = id(value)
    path = walk.path
    if depth >= walk.depth or key in path:
        return stop(walk, CYCLE if key in path else TOO_DEEP)
    out: dict[str, Any] = {}
    odd: dict[str, int] | None = None  # set once a key was changed, so that two keys may meet
    before = walk.text, walk.nodes, walk.cut
    text, nodes, floor = walk.text, walk.nodes, walk.floor
    entered = False
    try:
        entries = iter(pairs)
        for name, item in entries:
            if nodes <= 0 or text < floor:
                break
            nodes -= 1
            if text <= 0:
                text -= _SPENT_KEY
            if type(name) is str and len(name) <= KEY_CHARS:
                text -= len(name)
                if odd is not None:
                    name = _free_key(out, name, odd)  # noqa: PLW2901
            else:
                odd = {} if odd is None else odd
                walk.text, walk.nodes = text, nodes
                name = _free_key(out, _key_text(walk, name, depth + 1), odd)  # noqa: PLW2901
                text, nodes = walk.text, walk.nodes
            kind = type(item)
            if kind is str:
                size = len(item)
                if size <= text:
                    text -= size
                    out[name] = item
                    continue
                if text <= 0:
                    walk.truncated = True
                    walk.cut += size
                    out[name] = ""
                    continue
            elif kind is int:
                if _MIN <= item <= _MAX:
                    out[name] = item
                    continue
            elif item is None or kind is bool or (kind is float and item - item == 0.0):
                out[name] = item
                continue
            if not entered:  # only a container with something inside can be part of a cycle
                entered = True
                path.add(key)
            walk.text, walk.nodes = text, nodes
            out[name] = copy_value(walk, item, depth + 1)
            text, nodes = walk.text, walk.nodes
    except RuntimeError as error:
        path.discard(key)
        if type(error) is not RuntimeError:  # RecursionError
            raise
        walk.text, walk.nodes, walk.cut = before
        return _copy_changing(walk, value, depth)
    if entered:
        path.discard(key)
    walk.text, walk.nodes = text, nodes
    if len(out) < total:
        _omit_keys(walk, out, entries, total)
    return out


def _copy_changing(walk: Walk, value: Any, depth: int) -> Any:
    """Copy a dict that another thread changed meanwhile, from a snapshot."""
    pairs = snapshot(walk, lambda: dict.items(value), walk.nodes)
    return copy_pairs(walk, value, pairs, dict.__len__(value), depth)


def copy_list(walk: Walk, value: list[Any] | tuple[Any, ...], depth: int) -> Any:
    """Copy an exact list or tuple: its head, then ``{"omitted_items": n}``."""
    return copy_head(walk, type(value), value, value, len(value), depth)


def copy_head(walk: Walk, base: Any, value: Any, items: Any, total: int, depth: int) -> Any:
    """Copy *items*, the head of a list or tuple that may be a history of messages."""
    if items:
        first = type(items[0])
        if first is not str and first is not dict:
            entry = PLANS.get(id(first)) or walk.plan_for(first)
            if entry.values_of is not None:
                out = walk.messages.copy_history(walk, base, value, total, depth, entry)
                if out is not None:
                    return out
    return copy_sequence(walk, value, items, total, depth)


def copy_sequence(  # noqa: C901 - as copy_pairs
    walk: Walk, value: object, items: Iterable[Any], total: int, depth: int
) -> Any:
    """Copy *items*, the head of the sequence *value* that has *total* of them."""
    key = id(value)
    path = walk.path
    if depth >= walk.depth or key in path:
        return stop(walk, CYCLE if key in path else TOO_DEEP)
    path.add(key)
    out: list[Any] = []
    append = out.append
    below = depth + 1
    text, nodes = walk.text, walk.nodes
    for item in items:
        if nodes <= 0:
            break
        nodes -= 1
        kind = type(item)
        if kind is str:
            if len(item) <= text:
                text -= len(item)
                append(item)
                continue
        elif kind is int:
            if _MIN <= item <= _MAX:
                append(item)
                continue
        elif item is None or kind is bool or (kind is float and item - item == 0.0):
            append(item)
            continue
        if text <= 0:  # numbers go on; a row of empty texts would say nothing
            break
        walk.text, walk.nodes = text, nodes
        append(copy_value(walk, item, below))
        text, nodes = walk.text, walk.nodes
    path.discard(key)
    walk.text, walk.nodes = text, nodes
    if len(out) < total:
        _omit_items(walk, out, items, total)
    return out


def keep_text(walk: Walk, value: str, size: int) -> str:
    """Keep what the budget allows of a str subclass, always as an exact str."""
    if size <= walk.text:
        walk.text -= size
        return str.__str__(value)
    return cut_text(walk, value)


def cut_text(walk: Walk, value: str) -> str:
    """Cut a text to what is left of the budget. A character is at least one byte."""
    keep = max(walk.text, 0)
    walk.truncated = True
    walk.cut += str.__len__(value) - keep
    walk.text = min(walk.text, 0)
    return str.__getitem__(value, slice(0, keep))


def keep_int(walk: Walk, value: int) -> int | str:
    """Keep a number that fits 64 bits; else its decimal text, hexadecimal text, or only its size.

    Decimal text takes quadratic time and raises past CPython's limit of digits; hexadecimal text is
    linear.
    """
    bits = int.bit_length(value)
    if bits < 64:
        return int.__int__(value)
    if bits <= DECIMAL_BITS:
        return int.__repr__(value)
    digits = bits // 4 + 4
    if digits <= walk.text:
        walk.text -= digits
        return int.__format__(value, "#x")
    return stop(walk, f"<int of {bits} bits>", digits)


def snapshot(walk: Walk, source: Callable[[], Iterable[Any]], limit: int) -> list[Any]:
    """Take at most *limit* items of a container that another thread may be changing."""
    for _ in range(_RETRIES):
        try:
            return list(islice(source(), max(limit, 0)))
        except RuntimeError:
            continue
    walk.truncated = True
    return []


def stop(walk: Walk, marker: str, size: int = 2) -> str:
    """Put a marker in the place of something that takes at least *size* bytes."""
    walk.truncated = True
    walk.cut += min(size - len(marker) - 2, size)
    return marker


def _omit_keys(
    walk: Walk, out: dict[str, Any], left: Iterable[tuple[Any, Any]], total: int
) -> None:
    count = total - len(out)
    # The least that an entry takes is `"":0,`; the texts at hand are added to that bound.
    walk.cut += 5 * count - 18 - len(str(count))
    walk.cut += _text_bytes([item for _, item in _some(left, 0)])
    walk.truncated = True
    out[_free_key(out, "omitted_keys", {})] = count


def _omit_items(walk: Walk, out: list[Any], items: Iterable[Any], total: int) -> None:
    count = total - len(out)
    walk.cut += 2 * count - 21 - len(str(count))
    walk.cut += _text_bytes(_some(items, len(out)))
    walk.truncated = True
    out.append({"omitted_items": count})


def _some(items: Iterable[Any], done: int) -> list[Any]:
    """Return some of the omitted items: reading all of a huge container would take too long."""
    try:
        return list(islice(items, done, done + _SIZED_WHEN_OMITTED))
    except RuntimeError:  # another thread changes it
        return []


def _text_bytes(values: list[Any]) -> int:
    """Return at least how many bytes the texts among *values* take."""
    if all(map(is_, map(type, values), repeat(str))):
        return sum(map(len, values))
    return sum([len(value) for value in values if type(value) is str])


def _free_key(out: dict[str, Any], key: str, seen: dict[str, int]) -> str:
    """Return *key*, or with a free suffix: ``1`` and ``"1"`` become ``1`` and ``1#2``.

    *seen* remembers the last suffix, as a thousand keys of one unknown type share one marker.
    """
    if key not in out:
        return key
    count = seen.get(key, 1) + 1
    while f"{key}#{count}" in out:
        count += 1
    seen[key] = count
    return f"{key}#{count}"


def _key_text(walk: Walk, key: Any, depth: int) -> str:
    """Return the text of a key that is no short str."""
    kind = type(key)
    text: str
    if kind is str:
        text = key
    elif kind is float:  # before the walk: JSON has no NaN, and 1.0 is to stay apart from 1
        text = float.__repr__(key)
    else:
        frozen = copy_value(walk, key, depth)
        try:
            text = frozen if type(frozen) is str else msgspec.json.encode(frozen).decode()
        except Exception:  # bytes, or a lone surrogate inside a tuple
            text = f"<{type_name(kind)}>"
    if len(text) > KEY_CHARS:
        walk.truncated = True
        walk.cut += len(text) - KEY_CHARS
        text = text[:KEY_CHARS]
    walk.text -= len(text)
    return text
