"""Which text of an input or output is measured: one rule, for every place that measures text.

1. A text is measured as it is.
2. Of a list, every item, joined by line breaks.
3. Of an object, the first of :data:`KEYS` that it has; of a message also its tool calls' names and
   arguments; without any of them, every value.
4. Numbers, booleans, null, images and binary data have no text.

The rule reads what was stored, which is bounded: of a longer text the rest is not measured.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["KEYS", "text_of", "text_of_value"]

#: Looked for in this order.
KEYS: Final = ("text", "content", "messages", "prompt", "output", "choices", "message")
_MAX_DEPTH: Final = 32
_NO_TEXT: Final = ("image", "audio", "file", "video")
_BINARY: Final = {"mime", "sha256", "size"}
_decode: Final = msgspec.json.Decoder().decode


def text_of(stored: str | None) -> str | None:
    """Return the measured text of a stored ``input`` or ``output``; None if there is none."""
    if stored is None:
        return None
    if stored[:1] not in ("{", "["):
        return stored
    try:
        value = _decode(stored)
    except msgspec.DecodeError:  # a text that merely begins so
        return stored
    return text_of_value(value)


def text_of_value(value: object) -> str:
    """Return the measured text of plain data."""
    texts: list[str] = []
    _add(texts, value, 0)
    return "\n".join(texts)


def _add(texts: list[str], value: Any, depth: int) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif depth > _MAX_DEPTH:
        return
    elif isinstance(value, dict):
        _add_object(texts, value, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _add(texts, item, depth + 1)


def _add_object(texts: list[str], value: dict[Any, Any], depth: int) -> None:
    kind = value.get("type")
    if isinstance(kind, str) and kind.partition("_")[0].partition(".")[0] in _NO_TEXT:
        return
    if value.keys() >= _BINARY:
        return
    key = next((key for key in KEYS if value.get(key) not in (None, "", [], {})), None)
    if key is not None:
        _add(texts, value[key], depth)
    calls = value.get("tool_calls")
    if isinstance(calls, list):
        for call in calls:
            if isinstance(call, dict):
                _add(texts, [call.get("name"), call.get("args")], depth)
    elif key is None and "role" not in value:
        _add(texts, [*value.values()], depth)
