"""What every storage can hold, and how the rest becomes it: the same in each of them.

The intake makes its spans so, and a storage sees to it for what comes another way: a plugin's values,
a copy from elsewhere, a batch of your own. NUL becomes U+2400 and a lone surrogate U+FFFD, in keys
too: PostgreSQL and Arrow take neither. A number that is no number (NaN, infinite) or does not fit
into 64 bits becomes null, and leaves ``measurements``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from operator import contains, methodcaller
from typing import Any, Final, TypeVar

from llmops_core.batch import SpanBatch
from llmops_core.errors import PermanentError
from llmops_core.schema import COLUMNS
from llmops_core.span import Span

__all__ = ["clean_text", "sanitize_text", "storable"]

T = TypeVar("T")
_NUL: Final = "\x00"
_NUL_SIGN: Final = "\u2400"
_REPLACEMENT: Final = "\ufffd"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
#: Characters from which texts are looked at one by one.
_LONG: Final = 256
_INT64: Final = 2**63
_KINDS: Final = {c.name: c.type for c in COLUMNS}
_NULLABLE: Final = frozenset(c.name for c in COLUMNS if c.nullable)


def sanitize_text(text: str) -> tuple[str, int, int]:
    """Return *text* as every storage accepts it, and how many NULs and surrogates it had."""
    nul = surrogates = 0
    if _NUL in text:
        nul = text.count(_NUL)
        text = text.replace(_NUL, _NUL_SIGN)
    if not text.isascii():
        text, surrogates = _SURROGATE.subn(_REPLACEMENT, text)
    return text, nul, surrogates


def clean_text(text: str) -> str:
    """Return *text* as every storage accepts it."""
    return sanitize_text(text)[0]


def storable(batch: SpanBatch) -> SpanBatch:
    """Return the batch, or one of the same range with values that every storage can hold.

    Raises ``PermanentError`` where a value is of another type than its column's. Costs about a
    microsecond a span where nothing has to be changed, which is nearly always.
    """
    try:
        dirty = [name for name, values in _columns(batch) if not _CLEAN[_KINDS[name]](values)]
    except (TypeError, AttributeError):
        raise PermanentError("a value of a type that its column does not have") from None
    if not dirty:
        return batch
    return batch.with_rows(_cleaned(row, dirty) for row in batch.rows)


def _columns(batch: SpanBatch) -> Iterable[tuple[str, Sequence[Any]]]:
    plain = batch.plain_columns()
    for name in _KINDS:
        if name in batch.measured:
            yield name, batch.values(name)
        elif name in plain:
            yield name, plain[name]


# ---- is a column clean? ----


def _texts(values: Iterable[str | None]) -> bool:
    known = list(filter(None, values))
    if known and len(known[0]) > _LONG:
        # To copy them together would cost more than to look at each.
        if any(map(contains, known, repeat(_NUL))):
            return False
        if all(map(str.isascii, known)):
            return True
        whole = "".join(known)
    else:
        # One look at all of them together: per value it would cost more than to store them.
        whole = "".join(known)
        if _NUL in whole:
            return False
        if whole.isascii():
            return True
    try:
        whole.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ints(values: Iterable[int | None]) -> bool:
    known = [value for value in values if value is not None]
    return not known or (min(known) >= -_INT64 and max(known) < _INT64)


def _floats(values: Iterable[float | None]) -> bool:
    try:
        return all(map(math.isfinite, filter(None, values)))
    except OverflowError:  # a whole number that no double can hold
        return False


def _lists(values: Iterable[Sequence[str] | None]) -> bool:
    return _texts(chain.from_iterable(filter(None, values)))


def _maps(values: Iterable[Mapping[str, str] | None]) -> bool:
    known = list(filter(None, values))
    return _texts(chain.from_iterable(known)) and _texts(_values(known))


def _numbers(values: Iterable[Mapping[str, float] | None]) -> bool:
    known = list(filter(None, values))
    return _texts(chain.from_iterable(known)) and _floats(_values(known))


def _values(maps: Iterable[Mapping[str, T]]) -> Iterable[T]:
    return chain.from_iterable(map(methodcaller("values"), maps))


_CLEAN: Final[dict[str, Callable[[Any], bool]]] = {
    "text": _texts,
    "enum": _texts,
    "int": _ints,
    "float": _floats,
    "bool": lambda values: True,
    "timestamp": _ints,
    "list": _lists,
    "map": _maps,
    "numbers": _numbers,
}


# ---- make it so ----


def _cleaned(row: Span, columns: Iterable[str]) -> Span:
    changes = {}
    for name in columns:
        value = getattr(row, name)
        if value is not None:
            changes[name] = _MAKE_CLEAN[_KINDS[name]](value, name in _NULLABLE)
    return row.replace(**changes)


def _clean_int(value: int, nullable: bool) -> int | None:
    if -_INT64 <= value < _INT64:
        return value
    return None if nullable else min(max(value, -_INT64), _INT64 - 1)


def _clean_float(value: float, nullable: bool) -> float | None:
    return value if _floats([value]) else None


def _clean_map(value: Mapping[str, str], nullable: bool) -> dict[str, str]:
    cleaned: dict[str, str] = {}
    for key, text in value.items():
        cleaned[_free(clean_text(key), cleaned)] = clean_text(text)
    return cleaned


def _clean_numbers(value: Mapping[str, float], nullable: bool) -> dict[str, float]:
    cleaned: dict[str, float] = {}
    for key, number in value.items():
        if _floats([number]):
            cleaned[_free(clean_text(key), cleaned)] = number
    return cleaned


def _free(key: str, taken: Mapping[str, Any]) -> str:
    """Return a key that is not taken: two keys must not become one."""
    unique, number = key, 2
    while unique in taken:
        unique, number = f"{key}-{number}", number + 1
    return unique


_MAKE_CLEAN: Final[dict[str, Callable[[Any, bool], Any]]] = {
    "text": lambda value, _: clean_text(value),
    "enum": lambda value, _: clean_text(value),
    "int": _clean_int,
    "float": _clean_float,
    "timestamp": _clean_int,
    "list": lambda value, _: tuple(map(clean_text, value)),
    "map": _clean_map,
    "numbers": _clean_numbers,
}
