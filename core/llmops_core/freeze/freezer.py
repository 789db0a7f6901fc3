"""Freeze: the bounded copy of an input or output that is made on the host's thread.

References are not enough: a node that edits nested state after its callback would rewrite what was
recorded. So containers and messages are copied, within a budget that is spent inside the copy;
strings are shared, as they cannot change; of an unknown object only its type is noted.
"""

from __future__ import annotations

from sys import getsizeof
from typing import Any, Final

import msgspec

from llmops_core.errors import ConfigError
from llmops_core.freeze.histories import HistoryCache
from llmops_core.freeze.messages import FrozenBytes, FrozenMessage, FrozenToolCall
from llmops_core.freeze.type_names import Fields, Message
from llmops_core.freeze.types import know, make_plan
from llmops_core.freeze.walk import FLAT_ENTRIES, HEADS_BYTES, Walk, copy_value, measure_flat

__all__ = [
    "Fields",
    "Freezer",
    "Frozen",
    "FrozenBytes",
    "FrozenMessage",
    "FrozenToolCall",
    "Message",
    "know",
]

MAX_TEXT: Final = 1_000_000
UNREADABLE: Final = "<unreadable>"
_NODE_BYTES: Final = 80  # what a copied node takes beside its text: a slot, a dict entry, a number


class Frozen(msgspec.Struct, frozen=True, gc=False):
    """A copy that nobody else can change.

    ``gc=False`` is safe: the copy is a tree that refers to nothing but immutable values.
    """

    #: A lone string, or plain data: dict, list, str, int, float, bool, None, the structs of
    #: this module, and the immutable leaves that msgspec encodes (dates, UUID, Decimal).
    value: Any
    truncated: bool
    cut_bytes: int  # a lower bound; 0 if not truncated
    weight: int  # about how many bytes this keeps alive


class Freezer:
    """Makes frozen copies within a budget. Thread-safe; one for each monitor.

    *text_limit* counts characters and *node_limit* values of one input or output.
    """

    def __init__(
        self, text_limit: int = 8192, node_limit: int = 2000, depth_limit: int = 32
    ) -> None:
        _check("text_limit", text_limit, 0, MAX_TEXT)
        _check("node_limit", node_limit, 1, 1_000_000)
        _check("depth_limit", depth_limit, 1, 200)
        self._text = text_limit
        self._nodes = node_limit
        self._depth = depth_limit
        self._messages = HistoryCache()

    def freeze(self, value: object) -> Frozen:
        """Copy *value*. Never raises, never blocks, calls no code of an unknown type."""
        text = self._text
        kind = type(value)
        if kind is str and len(value) <= text:  # type: ignore[arg-type]
            return Frozen(value, False, 0, getsizeof(value))
        if kind is dict and len(value) <= FLAT_ENTRIES:  # type: ignore[arg-type]
            out = value.copy()  # type: ignore[attr-defined]
            left = measure_flat(out, text)
            if left >= 0 and len(out) <= self._nodes:
                return Frozen(out, False, 0, text - left + _NODE_BYTES * (len(out) + 1))
        walk = Walk(text, self._nodes, self._depth, make_plan, self._messages)
        try:
            out = copy_value(walk, value, 0)
        except Exception:
            return Frozen(UNREADABLE, True, 0, len(UNREADABLE))
        kept = text - walk.text + HEADS_BYTES - walk.heads
        weight = kept + _NODE_BYTES * (self._nodes - walk.nodes + 1)
        if walk.truncated:
            return Frozen(out, True, max(walk.cut, 0), weight)
        return Frozen(out, False, 0, weight)


def _check(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(
            f"{name} is {value!r}", f"expected a whole number from {least} to {most}", f"set {name}"
        )
