"""Drafts as columns: which of them hold nothing odd, and their values cleaned, a column at a time.

A value is *odd* if its column does not take it as it is: such a draft is finished alone. So all that
is done here is to look at types, ranges and texts, each of a whole column at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from math import isfinite
from typing import Any, Final

from llmops_core.batch import SpanColumns
from llmops_core.intake.values import (
    INT64,
    MAX_ATTRIBUTES,
    MAX_MICROS,
    MAX_NAME,
    MAX_TEXT,
    Values,
)
from llmops_core.schema import COLUMNS
from llmops_core.span import KINDS, OUTCOMES

__all__ = ["ColumnChecks", "gather"]

_NONE: Final = type(None)
_ONLY_NONE: Final = {_NONE}
_BY_KIND: Final[dict[str, set[type]]] = {
    "text": {str},
    "enum": {str},
    "int": {int},
    "timestamp": {int},
    "float": {float, int},
    "bool": {bool},
    "list": {tuple, list},
    "map": {dict},
    "numbers": set(),
}
_TYPES: Final = {c.name: c.type for c in COLUMNS}
#: What every span needs; a name is made up where there is none.
_REQUIRED: Final = {c.name for c in COLUMNS if not c.nullable} - {"name"}
_ACCEPTED: Final = {
    name: _BY_KIND[kind] | (set() if name in _REQUIRED else {_NONE})
    for name, kind in _TYPES.items()
}
_FROZEN: Final = frozenset({"input", "output"})
_OURS: Final = frozenset({"writer_id", "seq"})
_ALLOWED: Final = {"kind": frozenset(KINDS), "outcome": frozenset(OUTCOMES)}
#: Texts that were found clean and are remembered: names and models come again and again.
MAX_KNOWN: Final = 4_096


def gather(drafts: Sequence[dict[str, Any]]) -> tuple[SpanColumns, set[int]]:
    """Return the columns of the drafts that hold nothing odd, and the places of the others."""
    columns: SpanColumns = {}
    odd: set[int] = set()
    for name in set().union(*drafts):
        if name.startswith("_"):
            continue
        values = [draft.get(name) for draft in drafts]
        if name not in _FROZEN:
            types = set(map(type, values))
            if types == _ONLY_NONE:
                continue
            odd.update(_odd(name, values, types))
        columns[name] = values
    if not columns.keys() >= _REQUIRED:
        return {}, set(range(len(drafts)))
    for name, allowed in _ALLOWED.items():
        if not allowed.issuperset(columns[name]):
            odd.update(at for at, value in enumerate(columns[name]) if value not in allowed)
    if odd:
        keep = [at for at in range(len(drafts)) if at not in odd]
        known = [name for name in columns if name in _TYPES and name not in _OURS]
        left = {name: [columns[name][at] for at in keep] for name in known}
        columns = {name: values for name, values in left.items() if values.count(None) < len(keep)}
    return columns, odd


def _odd(name: str, values: list[Any], types: set[type]) -> Iterable[int]:
    """Return the places of values that the column does not take as they are."""
    kind = _TYPES.get(name)
    if kind is None or name in _OURS:
        return [at for at, value in enumerate(values) if value is not None]
    accepted = _ACCEPTED[name]
    if types <= accepted and _all_fit(kind, [v for v in values if v is not None], types):
        return ()
    return [
        at
        for at, value in enumerate(values)
        if type(value) not in accepted
        or (value is not None and not _all_fit(kind, [value], {type(value)}))
    ]


def _all_fit(kind: str, values: list[Any], types: set[type]) -> bool:
    """Whether values of the right type are within what their column holds."""
    match kind:
        case "int":
            return bool(min(values) >= -INT64 and max(values) < INT64)
        case "timestamp":
            return bool(min(values) >= 0 and max(values) <= MAX_MICROS)
        case "float":
            # A whole number beyond all floats raises, and is found when its draft is finished.
            return all(map(isfinite, values))
        case "list":
            return all(values) and set(map(type, chain.from_iterable(values))) == {str}
        case "map":
            items = chain(chain.from_iterable(values), *map(dict.values, values))
            return all(values) and set(map(type, items)) == {str}
    return True


class ColumnChecks:
    """Cleans whole columns, to what :class:`Values` makes of each value."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._known: set[str] = set()

    def cleaned(self, columns: SpanColumns) -> SpanColumns:
        """Return the columns with their values as they will be stored."""
        return {name: self._clean(name, _TYPES[name], values) for name, values in columns.items()}

    def _clean(self, name: str, kind: str, values: list[Any]) -> list[Any]:
        match kind:
            case "text" | "enum":
                return self._texts(name, values)
            case "float" if int in set(map(type, values)):
                return [None if value is None else float(value) for value in values]
            case "list":
                tags = self._values.tags
                return [None if value is None else tags(name, value) for value in values]
            case "map":
                return self._maps(name, values)
        return values

    def _texts(self, name: str, values: list[Any]) -> list[Any]:
        new = set(values) - self._known
        new.discard(None)
        if not new:
            return values
        if len(self._known) + len(new) > MAX_KNOWN:
            self._known.clear()
        if _all_clean(new, MAX_NAME):
            self._known |= new
            return values
        return [None if value is None else self._text(name, value) for value in values]

    def _text(self, name: str, value: str) -> str | None:
        if value in self._known:
            return value
        clean = self._values.text(name, value)
        if clean == value and len(value) <= MAX_NAME:
            self._known.add(value)
        return clean

    def _maps(self, name: str, values: list[Any]) -> list[Any]:
        maps = [value for value in values if value is not None]
        keys, texts = chain.from_iterable(maps), chain.from_iterable(map(dict.values, maps))
        few = max(map(len, maps)) <= MAX_ATTRIBUTES
        if few and _all_clean(set(keys), MAX_NAME) and _all_clean(list(texts), MAX_TEXT):
            return values
        attributes = self._values.attributes
        return [None if value is None else attributes(name, value) for value in values]


def _all_clean(texts: set[str] | list[str], limit: int) -> bool:
    """Whether no text has to be changed. Total for texts that hold anything."""
    joined = "".join(texts)
    return joined.isascii() and "\0" not in joined and max(map(len, texts)) <= limit
