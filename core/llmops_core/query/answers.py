"""What the compilers of all dialects share: which values a query may bind, and what an answer is.

Knows no dialect and no driver.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from llmops_core.errors import QueryError
from llmops_core.query.description import SpanQuery
from llmops_core.schema import COLUMN_NAMES, COLUMNS, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "answer",
    "checked",
    "checked_value",
    "column_type",
    "is_in_calendar",
    "result_names",
    "shape",
]

_TYPES: Final = {c.name: c.type for c in COLUMNS}
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
_FIRST_MICROS: Final = (dt.datetime.min.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
_LAST_MICROS: Final = (dt.datetime.max.replace(tzinfo=dt.UTC) - _EPOCH) // _MICROSECOND
_MAX_INT: Final = 2**63


# ---- values ----


def column_type(name: str) -> str:
    """Return a column's type: of the schema, ``text`` of an attribute, ``float`` of a measurement."""
    return _TYPES.get(name) or ("text" if name.startswith("attributes.") else "float")


def is_in_calendar(micros: int | None) -> bool:
    """Whether a time has a date in Python's calendar, the years 1 to 9999."""
    return micros is not None and _FIRST_MICROS <= micros <= _LAST_MICROS


def checked(value: Any) -> Any:
    """Return a value that can be bound, or raise ``QueryError``."""
    if type(value) is int and not -_MAX_INT <= value < _MAX_INT:
        raise QueryError("a whole number beyond 64 bits", "expected one that a column can hold")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise QueryError("text with half a surrogate pair", "expected valid Unicode") from None
    return value


def checked_value(column: str, value: Any) -> Any:
    """Return a value to compare with a column: a time stays microseconds, a number a double."""
    kind = column_type(column)
    if kind == "timestamp" and not is_in_calendar(value):
        raise QueryError(f"time {value} for {column!r}", "expected the years 1 to 9999")
    return checked(float(value) if kind == "float" else value)


# ---- answers ----


def result_names(query: SpanQuery) -> list[str]:
    """Return the columns of a query's answer, in order."""
    if not query.is_grouped and not query.columns:
        return list(COLUMN_NAMES)
    return [name for name, _ in _result_types(query)]


def answer(query: SpanQuery, rows: Iterable[Sequence[Any]]) -> pa.Table:
    """Turn rows of plain values into a query's answer.

    The values come in the order of :func:`result_names`: a time as microseconds, a list as a list,
    a map as a ``dict``. Raises ``QueryError`` for a result beyond 64 bits.
    """
    import pyarrow as pa

    types = _types_of(query)
    columns = list(zip(*rows, strict=True)) or [()] * len(types)
    try:
        arrays = [_array(values, kind) for values, (_, kind) in zip(columns, types, strict=True)]
    except (pa.ArrowInvalid, OverflowError) as error:
        raise QueryError("a result beyond 64 bits", "expected smaller numbers") from error
    if not query.is_grouped and not query.columns:
        return pa.Table.from_arrays(arrays, schema=arrow_schema())
    return pa.table(dict(zip([name for name, _ in types], arrays, strict=True)))


def shape(table: pa.Table, query: SpanQuery) -> pa.Table:
    """Cast a table of the right columns, in any order, to the types of the query's answer."""
    import pyarrow as pa

    columns = {name: _cast(table[name], kind) for name, kind in _types_of(query)}
    if not query.is_grouped and not query.columns:
        return pa.Table.from_arrays(list(columns.values()), schema=arrow_schema())
    return pa.table(columns)


def _types_of(query: SpanQuery) -> list[tuple[str, pa.DataType]]:
    if not query.is_grouped and not query.columns:
        return [(field.name, field.type) for field in arrow_schema()]
    return _result_types(query)


def _result_types(query: SpanQuery) -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    if not query.is_grouped:
        return [(name, _arrow_type(name)) for name in query.effective_columns]
    types = [("bucket", pa.timestamp("us", tz="UTC"))] if query.bucket_seconds else []
    types += [(name, _arrow_type(name)) for name in query.group_by]
    for aggregate in dict.fromkeys(query.aggregates):
        kind = pa.float64()
        if aggregate.function == "count":
            kind = pa.int64()
        elif aggregate.function in ("sum", "min", "max"):
            kind = _arrow_type(aggregate.column)
        types.append((aggregate.name, kind))
    return types


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name in _TYPES:
        return arrow_schema().field(name).type
    return pa.string() if name.startswith("attributes.") else pa.float64()


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_map(kind):
        values = [None if value is None else list(value.items()) for value in values]
    elif pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    elif pa.types.is_floating(kind):
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    import pyarrow as pa

    if column.type == target:
        return column
    if pa.types.is_dictionary(target) and not pa.types.is_dictionary(column.type):
        return column.cast(pa.string()).dictionary_encode().cast(target)
    return column.cast(target)
