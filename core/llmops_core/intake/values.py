"""What one value of a draft becomes in its column: typed, sanitised, bounded; or None, where it does
not fit. Counts what had to be changed, by reason. Runs on the intake thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from llmops_core.schema import COLUMNS
from llmops_core.storable import sanitize_text

__all__ = ["INT64", "MAX_ATTRIBUTES", "MAX_MICROS", "MAX_NAME", "MAX_TEXT", "Values", "scalar_text"]

#: Characters kept of a name, an id or a tag, and of a message or an attribute.
MAX_NAME: Final = 1024
MAX_TEXT: Final = 4096
MAX_ATTRIBUTES: Final = 128
MAX_TAGS: Final = 64
INT64: Final = 2**63
#: The year 9999 in microseconds: no storage holds more.
MAX_MICROS: Final = 253_402_300_799_999_999

_LONG: Final = frozenset({"error_message"})


class Values:
    """Coerces one value at a time."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        coerce: dict[str, Callable[[str, Any], Any]] = {
            "text": self.text,
            "enum": self.text,
            "int": self._int,
            "timestamp": self._time,
            "float": self._float,
            "bool": self._bool,
            "list": self.tags,
            "map": self.attributes,
            "numbers": self._numbers,
        }
        #: By column: takes the column's name and a value.
        self.coerce: Final = {c.name: coerce[c.type] for c in COLUMNS}

    def count(self, reason: str) -> None:
        """Count a change."""
        self.counts[reason] = self.counts.get(reason, 0) + 1

    def clean(self, text: str, limit: int) -> str:
        """Return a text that every storage takes, of at most *limit* characters."""
        if len(text) > limit:
            self.count("shortened")
            text = text[: limit - 1] + "…"
        if "\0" in text or not text.isascii():
            text, nul, surrogates = sanitize_text(text)
            if nul:
                self.count("nul")
            if surrogates:
                self.count("surrogate")
        return text

    def text(self, name: str, value: Any) -> str | None:
        """Return a text, also of a number."""
        if type(value) is not str:
            if type(value) in (int, float, bool):
                value = str(value)
            else:
                return None
        return self.clean(value, MAX_TEXT if name in _LONG else MAX_NAME)

    def tags(self, name: str, value: Any) -> tuple[str, ...] | None:
        """Return the texts of a list, each once."""
        if type(value) not in (list, tuple):
            return None
        tags = [self.clean(tag, MAX_NAME) for tag in value if type(tag) is str]
        return tuple(dict.fromkeys(tags[:MAX_TAGS])) or None

    def attributes(self, name: str, value: Any) -> dict[str, str] | None:
        """Return texts by name, of texts and numbers."""
        if type(value) is not dict:
            return None
        kept: dict[str, str] = {}
        for key, item in value.items():
            if len(kept) >= MAX_ATTRIBUTES:
                self.count("attributes_cut")
                break
            text = item if type(item) is str else scalar_text(item)
            if type(key) is str and text is not None:
                kept[self.clean(key, MAX_NAME)] = self.clean(text, MAX_TEXT)
        return kept or None

    def _int(self, name: str, value: Any) -> int | None:
        if type(value) is int and -INT64 <= value < INT64:
            return value
        if type(value) is float and value.is_integer() and abs(value) < INT64:
            return int(value)
        return None

    def _time(self, name: str, value: Any) -> int | None:
        return min(max(value, 0), MAX_MICROS) if type(value) is int else None

    def _float(self, name: str, value: Any) -> float | None:
        if type(value) in (float, int) and value - value == 0:
            return float(value)
        return None

    def _bool(self, name: str, value: Any) -> bool | None:
        return value if type(value) is bool else None

    def _numbers(self, name: str, value: Any) -> dict[str, float] | None:
        if type(value) is not dict:
            return None
        pairs = ((k, self._float(name, v)) for k, v in value.items() if type(k) is str)
        return {self.clean(k, MAX_NAME): v for k, v in pairs if v is not None} or None


def scalar_text(value: Any) -> str | None:
    """Return a number as text; None for what is no number."""
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int:
        return str(value) if -(10**300) < value < 10**300 else hex(value)[:MAX_NAME]
    if type(value) is float:
        return repr(value)
    return None
