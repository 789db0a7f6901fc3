"""Read values of framework objects without calling anything of a type that is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

__all__ = ["MAX_TEXT", "count", "first_text", "name_of", "plain", "text"]

MAX_TEXT: Final = 1_000  # characters of a name or an attribute
_INT64: Final = 2**63


def plain(value: object) -> str | None:
    """Return a scalar as bounded text, anything else as None."""
    kind = type(value)
    if kind is str:
        return value[:MAX_TEXT]  # type: ignore[index]
    if kind is bool:
        return "true" if value else "false"
    if kind is float or (kind is int and -_INT64 <= value < _INT64):  # type: ignore[operator]
        return repr(value)  # the text of an endless int costs seconds, or raises
    if kind is UUID:
        return str(value)  # session ids are often UUIDs
    if str in kind.__mro__:  # a StrEnum, say: its own __str__ and slices are not run
        return str.__str__(value)[:MAX_TEXT]  # type: ignore[arg-type]
    return None


def text(value: object) -> str | None:
    """Return a non-empty text, bounded; anything else as None."""
    return plain(value) or None if type(value) is str or str in type(value).__mro__ else None


def count(value: object) -> int | None:
    """Return a number of tokens; anything else as None."""
    return value if type(value) is int and value >= 0 else None


def first_text(source: Mapping[str, Any], *keys: str) -> str | None:
    """Return the first of some keys that holds a text."""
    return next((found for key in keys if (found := text(source.get(key)))), None)


def name_of(extra: Mapping[str, Any], serialized: Mapping[str, Any] | None, default: str) -> str:
    """Return the run's name, else the class or tool name that ``serialized`` gives."""
    name = text(extra.get("name"))
    if not name and type(serialized) is dict:
        name = text(serialized.get("name"))
        path = serialized.get("id")
        if not name and type(path) is list and path:
            name = text(path[-1])
    return name or default
