"""Read values of framework objects without calling anything of a type that is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

__all__ = ["MAX_TEXT", "bases", "class_name", "count", "first_text", "name_of", "plain", "text"]

MAX_TEXT: Final = 1_000  # characters of a name or an attribute
_INT64: Final = 2**63
_mro_of: Final = type.__dict__["__mro__"].__get__
_name_of_class: Final = type.__dict__["__name__"].__get__
_module_of_class: Final = type.__dict__["__module__"].__get__


def plain(value: Any) -> str | None:
    """Return a scalar as bounded text, anything else as None."""
    kind = type(value)
    if kind is str:
        return str(value[:MAX_TEXT])
    if kind is bool:
        return "true" if value else "false"
    if kind is float or (kind is int and -_INT64 <= value < _INT64):
        return repr(value)  # the text of an endless int costs seconds, or raises
    if kind is UUID:
        return str(value)  # session ids are often UUIDs
    if any(
        base is str for base in bases(value)
    ):  # a StrEnum, say: its own __str__ and slices are not run
        return str.__str__(value)[:MAX_TEXT]
    return None


def bases(value: object) -> tuple[type, ...]:
    """Return a value's class and its bases. A metaclass has no say in it."""
    mro: tuple[type, ...] = _mro_of(type(value))
    return mro


def class_name(cls: type) -> tuple[str, str]:
    """Return module and name of a class; a module that is no text becomes empty."""
    try:
        module = _module_of_class(cls)
    except AttributeError:  # a class that C made without one
        module = None
    return module if type(module) is str else "", str.__str__(_name_of_class(cls))


def text(value: Any) -> str | None:
    """Return a non-empty text, bounded; anything else as None."""
    if type(value) is str:
        return value[:MAX_TEXT] or None
    return plain(value) or None if any(base is str for base in bases(value)) else None


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
