"""What an event keeps in memory while it waits, and what of it can be given up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import getsizeof
from typing import Any, Final

from llmops_core.freeze.freezer import Frozen

__all__ = ["EVENT_BYTES", "weigh", "without_content", "without_long_texts"]

#: What an event weighs beside its content: the tuple, the dict and short texts.
EVENT_BYTES: Final = 600
#: What an entry of the attributes or the tags takes, with a short text in it.
_ENTRY_BYTES: Final = 100
#: Characters of a text that the two above allow for.
_SHORT: Final = 80


def weigh(fields: Mapping[str, Any]) -> int:
    """Return about how many bytes an event with these fields keeps alive.

    Exact types alone are looked into: nothing of the user's is called.
    """
    weight = EVENT_BYTES
    for value in fields.values():
        kind = type(value)
        if kind is str:
            if len(value) > _SHORT:
                weight += getsizeof(value)
        elif kind is Frozen:
            weight += value.weight
        elif kind is dict:
            weight += len(value) * _ENTRY_BYTES + _long(value) + _long(value.values())
        elif kind is tuple or kind is list:
            weight += len(value) * _ENTRY_BYTES + _long(value)
    return weight


def without_content(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields whose input and output say that they were cut off."""
    kept = dict(fields)
    for name in ("input", "output"):
        content = fields.get(name)
        if content is not None:
            kept[name] = Frozen(None, True, content.weight, 0)
    return kept


def without_long_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields without attributes and tags, and with the head of an error's message."""
    kept = {name: value for name, value in fields.items() if name not in ("attributes", "tags")}
    message = fields.get("error_message")
    if type(message) is str:
        kept["error_message"] = message[:_SHORT]
    return kept


def _long(texts: Iterable[Any]) -> int:
    weight = 0
    for text in texts:
        if type(text) is str and len(text) > _SHORT:
            weight += getsizeof(text)
    return weight
