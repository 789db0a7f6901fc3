"""Makes a draft into a span: content to text, sanitised, hashed, typed, bounded.

Runs on the intake thread, before the journal: nothing that a storage refuses for its form (NUL, lone
surrogates, wrong types) goes any further. Total: a draft that cannot be a span costs itself alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any, Final

from llmops_core.freeze.content import encode_content, sanitize_text
from llmops_core.freeze.freezer import Frozen
from llmops_core.schema import COLUMNS
from llmops_core.span import KINDS, OUTCOMES, Span

__all__ = ["Finisher"]

#: Characters kept of a name, an id or a tag, and of a message or an attribute.
MAX_NAME: Final = 1024
MAX_TEXT: Final = 4096
MAX_ATTRIBUTES: Final = 128
MAX_TAGS: Final = 64
INT64: Final = 2**63
#: The year 9999 in microseconds: no storage holds more.
MAX_MICROS: Final = 253_402_300_799_999_999

_LONG: Final = frozenset({"error_message"})
_KINDS: Final = frozenset(KINDS)
_OUTCOMES: Final = frozenset(OUTCOMES)


class Finisher:
    """Turns drafts into spans of one writer. Counts what it had to change, by reason."""

    def __init__(self, key: bytes, constants: dict[str, str | None]) -> None:
        self._key = key
        self.sanitized: dict[str, int] = {}
        self._constants = {
            k: self._clean(v, MAX_NAME) for k, v in constants.items() if v is not None
        }
        coerce: dict[str, Callable[[str, Any], Any]] = {
            "text": self._text,
            "enum": self._text,
            "int": self._int,
            "timestamp": self._time,
            "float": self._float,
            "bool": self._bool,
            "list": self._tags,
            "map": self._attributes,
            "numbers": self._numbers,
        }
        self._coerce = {c.name: coerce[c.type] for c in COLUMNS}

    def finish(self, draft: dict[str, Any], writer_id: str, seq: int) -> Span:
        """Return the span. Raises only if what every span needs is missing."""
        values: dict[str, Any] = dict(self._constants)
        strange: dict[str, Any] = {}
        for name, value in draft.items():
            if value is None or name == "input" or name == "output":
                continue
            coerce = self._coerce.get(name)
            if coerce is None:
                strange[name] = value
                continue
            coerced = coerce(name, value)
            if coerced is not None:
                values[name] = coerced
            else:
                strange[name] = value
        self._content(values, "input", draft.get("input"))
        self._content(values, "output", draft.get("output"))
        if strange:
            self._keep_strange(values, strange)
        if values.get("kind") not in _KINDS:
            values["kind"] = "chain"
        if values.get("outcome") not in _OUTCOMES:
            values["outcome"] = "incomplete"
        values.setdefault("name", values["kind"])
        values["end_time"] = max(values["start_time"], values["end_time"])
        return Span(**values, writer_id=writer_id, seq=seq)

    def _count(self, reason: str) -> None:
        self.sanitized[reason] = self.sanitized.get(reason, 0) + 1

    def _clean(self, text: str, limit: int) -> str:
        if len(text) > limit:
            self._count("shortened")
            text = text[: limit - 1] + "…"
        if "\0" in text or not text.isascii():
            text, nul, surrogates = sanitize_text(text)
            if nul:
                self._count("nul")
            if surrogates:
                self._count("surrogate")
        return text

    def _text(self, name: str, value: Any) -> str | None:
        if type(value) is not str:
            if type(value) in (int, float, bool):
                value = str(value)
            else:
                return None
        return self._clean(value, MAX_TEXT if name in _LONG else MAX_NAME)

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

    def _tags(self, name: str, value: Any) -> tuple[str, ...] | None:
        if type(value) not in (list, tuple):
            return None
        tags = [self._clean(tag, MAX_NAME) for tag in value if type(tag) is str]
        return tuple(dict.fromkeys(tags[:MAX_TAGS])) or None

    def _attributes(self, name: str, value: Any) -> dict[str, str] | None:
        if type(value) is not dict:
            return None
        kept: dict[str, str] = {}
        for key, item in value.items():
            if len(kept) >= MAX_ATTRIBUTES:
                self._count("attributes_cut")
                break
            text = item if type(item) is str else _scalar_text(item)
            if type(key) is str and text is not None:
                kept[self._clean(key, MAX_NAME)] = self._clean(text, MAX_TEXT)
        return kept or None

    def _numbers(self, name: str, value: Any) -> dict[str, float] | None:
        if type(value) is not dict:
            return None
        pairs = ((k, self._float(name, v)) for k, v in value.items() if type(k) is str)
        return {self._clean(k, MAX_NAME): v for k, v in pairs if v is not None} or None

    def _content(self, values: dict[str, Any], name: str, frozen: Any) -> None:
        if type(frozen) is not Frozen:
            return
        if frozen.value is None:
            if frozen.truncated:  # shed under overload: say that something was there
                values[name + "_truncated"] = True
                values[name + "_size"] = frozen.cut_bytes
            return
        content = encode_content(frozen)
        values[name] = content.text
        values[name + "_truncated"] = content.truncated
        values[name + "_size"] = content.size
        data = content.text.encode()
        values[name + "_hash"] = hmac.digest(self._key, data, "sha256").hex()[:32]
        values["content_mode"] = "full"
        if content.nul:
            self._count("nul")
        if content.surrogates:
            self._count("surrogate")

    def _keep_strange(self, values: dict[str, Any], strange: dict[str, Any]) -> None:
        """Keep what no column takes as attributes, where it is plain; count it either way."""
        attributes = dict(values.get("attributes") or {})
        for name, value in strange.items():
            if name.startswith("_"):
                continue
            self._count("wrong_type" if name in self._coerce else "unknown_field")
            text = value if type(value) is str else _scalar_text(value)
            if text is not None and len(attributes) < MAX_ATTRIBUTES:
                attributes[self._clean(str(name), MAX_NAME)] = self._clean(text, MAX_TEXT)
        if attributes:
            values["attributes"] = attributes


def _scalar_text(value: Any) -> str | None:
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int:
        return str(value) if -(10**300) < value < 10**300 else hex(value)[:MAX_NAME]
    if type(value) is float:
        return repr(value)
    return None
