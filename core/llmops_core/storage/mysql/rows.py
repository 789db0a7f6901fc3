"""A batch as rows for the driver, and the driver's rows as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from llmops_core.batch import SpanBatch
from llmops_core.errors import PermanentError
from llmops_core.query import SpanQuery
from llmops_core.query.answers import column_type, result_names
from llmops_core.schema import COLUMNS

__all__ = ["in_packets", "insertable", "readable", "replaceable"]

Row = tuple[Any, ...]

#: Bytes of a packet that are not values: its head, and the statement.
_HEAD: Final = 64 * 1024
#: What a value takes beside itself, at most: a length, quotes and a comma, or a number as text.
_VALUE: Final = 32


def insertable(batch: SpanBatch) -> tuple[list[str], list[Row]]:
    """Return the columns in which the batch has values, and its rows.

    A column that is null throughout is left out: it costs nothing, and the bulk form has no type
    for it.
    """
    names, columns = [], []
    for column in COLUMNS:
        values = batch.values(column.name)
        if values.count(None) < len(values):
            names.append(column.name)
            columns.append(_BIND[column.type](values))
    return names, list(zip(*columns, strict=True))


def replaceable(batch: SpanBatch, span_ids: set[str]) -> tuple[list[str], list[Row]]:
    """Return all columns, and the rows of these spans: what is null now is null afterwards."""
    columns = [_BIND[column.type](batch.values(column.name)) for column in COLUMNS]
    ids = batch.values("span_id")
    rows = [
        row for row, one in zip(zip(*columns, strict=True), ids, strict=True) if one in span_ids
    ]
    return [column.name for column in COLUMNS], rows


def in_packets(rows: Sequence[Row], max_packet: int) -> Iterator[Sequence[Row]]:
    """Cut rows so that each part is no larger than the server takes.

    Raises ``PermanentError`` with the place of a row that is too large by itself.
    """
    room = max_packet - _HEAD
    # As text, a character may be escaped, and has up to four bytes.
    if sum(map(_at_most, rows)) <= room:
        yield rows
        return
    start, size = 0, 0
    for at, row in enumerate(rows):
        taken = _at_most(row)
        if taken > room:
            taken = _exact(row)
        if taken > room:
            raise PermanentError(
                f"a span of {taken:,} bytes, beyond the server's max_allowed_packet",
                f"expected at most {max_packet:,}",
                "raise max_allowed_packet",
                place=at,
            )
        if size + taken > room and at > start:
            yield rows[start:at]
            start, size = at, 0
        size += taken
    yield rows[start:]


def _at_most(row: Row) -> int:
    size = _VALUE * len(row)
    for value in row:
        if type(value) is str:
            size += 2 * len(value) if value.isascii() else 4 * len(value)
    return size


_ESCAPED: Final = "\0\n\r\x1a\"'\\"


def _exact(row: Row) -> int:
    texts = [value for value in row if type(value) is str]
    escapes = sum(text.count(sign) for text in texts for sign in _ESCAPED)
    return _VALUE * len(row) + sum(len(text.encode()) for text in texts) + escapes


# ---- to the driver ----


def _json(values: Sequence[Any]) -> list[str | None]:
    encode = msgspec.json.encode
    return [None if value is None else encode(value).decode() for value in values]


def _as_they_are(values: Sequence[Any]) -> Sequence[Any]:
    return values


def _floats(values: Sequence[Any]) -> list[float | None]:
    return [None if value is None else float(value) for value in values]


#: By the type of a column. One type throughout, as the bulk form has it.
_BIND: Final[dict[str, Callable[[Sequence[Any]], Sequence[Any]]]] = {
    "text": _as_they_are,
    "enum": _as_they_are,
    "int": _as_they_are,
    "float": _floats,
    "bool": _as_they_are,
    "timestamp": _as_they_are,
    "list": _json,
    "map": _json,
    "numbers": _json,
}


# ---- from the driver ----


def readable(query: SpanQuery, rows: Iterable[Row]) -> list[Sequence[Any]]:
    """Return an answer's rows with the values that ``answers.answer`` takes."""
    names = result_names(query)
    readers = {at: read for at, name in enumerate(names) if (read := _reader(query, name))}
    found: list[Sequence[Any]] = []
    for row in rows:
        values = list(row)
        for at, read in readers.items():
            if values[at] is not None:
                values[at] = read(values[at])
        found.append(values)
    return found


def _reader(query: SpanQuery, name: str) -> Callable[[Any], Any] | None:
    if query.is_grouped and name not in query.group_by:
        # Sums of whole numbers come as decimals.
        return None if name in _floating(query) else int
    return _READ.get(column_type(name))


def _floating(query: SpanQuery) -> set[str]:
    whole = ("sum", "min", "max")
    return {
        a.name
        for a in query.aggregates
        if a.function != "count" and (a.function not in whole or column_type(a.column) == "float")
    }


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "bool": bool,
    "list": lambda text: msgspec.json.decode(text, type=list[str]),
    "map": lambda text: msgspec.json.decode(text, type=dict[str, str]),
    "numbers": lambda text: msgspec.json.decode(text, type=dict[str, float]),
}
