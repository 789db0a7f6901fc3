"""One description of a query, which every storage compiles for itself.

A :class:`SpanQuery` holds values only: no SQL, no column objects. Names are checked against the
schema and operators against a closed list when it is made, so a compiler meets nothing unknown.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import msgspec

from llmops_core.errors import QueryError
from llmops_core.schema import COLUMNS, MAP_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "AGGREGATES",
    "OPERATORS",
    "Aggregate",
    "Filter",
    "Order",
    "SpanQuery",
    "check_selection",
    "micros",
]

Operator = Literal[
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "not in",
    "contains",
    "starts with",
    "is null",
    "is not null",
]
Function = Literal["count", "sum", "avg", "min", "max", "error_rate", "p50", "p95", "p99"]
OPERATORS: Final[tuple[str, ...]] = get_args(Operator)
AGGREGATES: Final[tuple[str, ...]] = get_args(Function)
MAX_LIMIT: Final = 1_000_000

_TYPES: Final[dict[str, str]] = {c.name: c.type for c in COLUMNS}
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Filter(msgspec.Struct, frozen=True):
    """``column op value``. A column is a schema column, ``attributes.KEY`` or ``measurements.KEY``.

    A null matches no operator but ``is null``: also not ``!=`` and not ``not in``. Text compares by
    code points and with case; ``contains`` on a list means that the list has the value.
    """

    column: str
    op: str
    value: Any = None


class Aggregate(msgspec.Struct, frozen=True):
    """A function over a group. ``count`` and ``error_rate`` take no column.

    ``error_rate`` is errors over spans, leaving out an error that a later attempt of the same
    parent and name followed. ``p50``, ``p95`` and ``p99`` are exact and interpolate linearly.
    """

    function: str
    column: str = ""

    @property
    def name(self) -> str:
        """The result column: ``count``, ``error_rate``, ``p95_duration_ms``."""
        return f"{self.function}_{self.column}" if self.column else self.function


class Order(msgspec.Struct, frozen=True):
    """Order by a column of the result."""

    column: str
    descending: bool = False


class SpanQuery(msgspec.Struct, frozen=True):
    """What to read: filters, a time range, then rows (columns, order, page) or groups.

    Rows are ordered by ``order`` (newest first by default) with ``span_id`` as the last key, and
    paged by :meth:`next_page`; nulls come last in both directions. Groups are by columns and, with
    ``bucket_seconds``, by time buckets (result column ``bucket``, aligned to the epoch). Aggregates
    without groups give one row, also where no span matches. ``since`` is inclusive, ``until``
    exclusive; both are UTC microseconds and compare with ``start_time``.
    """

    where: tuple[Filter, ...] = ()
    since: int | None = None
    until: int | None = None
    columns: tuple[str, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int | None = None
    after: tuple[Any, ...] | None = None
    group_by: tuple[str, ...] = ()
    bucket_seconds: float | None = None
    aggregates: tuple[Aggregate, ...] = ()

    @property
    def is_grouped(self) -> bool:
        """Whether the answer has one row a group instead of one row a span."""
        return bool(self.group_by or self.aggregates or self.bucket_seconds)

    @property
    def effective_order(self) -> tuple[Order, ...]:
        """The order to compile: unique for rows, so that a page boundary is exact."""
        if self.is_grouped:
            keys = [Order("bucket")] if self.bucket_seconds else []
            return self.order or tuple(keys + [Order(c) for c in self.group_by])
        order = self.order or (Order("start_time", descending=True),)
        if any(o.column == "span_id" for o in order):
            return order
        return (*order, Order("span_id", descending=order[-1].descending))

    @property
    def effective_columns(self) -> tuple[str, ...]:
        """The columns to return for rows: those asked for, and those that order (for paging)."""
        if not self.columns:
            return ()
        extra = (o.column for o in self.effective_order)
        return tuple(dict.fromkeys((*self.columns, *extra)))

    def next_page(self, page: pa.Table) -> SpanQuery | None:
        """Return the query of the page after *page*, or None where *page* was the last."""
        if self.limit is None or page.num_rows < self.limit or page.num_rows == 0:
            return None
        keys = tuple(_last(page, order.column) for order in self.effective_order)
        return msgspec.structs.replace(self, after=keys)

    def __post_init__(self) -> None:
        for item in self.where:
            _check_filter(item)
        for name in (*self.columns, *self.group_by):
            _check_column(name)
        for aggregate in self.aggregates:
            _check_aggregate(aggregate)
        _check_page(self)

    @classmethod
    def from_arguments(cls, query: SpanQuery | None, arguments: Mapping[str, Any]) -> SpanQuery:
        """Return *query*, or build one from what was typed: parts of a query, and columns to compare."""
        if query is not None:
            if not isinstance(query, SpanQuery):
                raise QueryError(f"query {query!r}", "expected a SpanQuery or keyword arguments")
            if arguments:
                raise QueryError("a query and keyword arguments", "expected one of them")
            return query
        parts = {k: v for k, v in arguments.items() if k in _PARTS}
        equal = {k: v for k, v in arguments.items() if k not in _PARTS}
        return cls.build(equal=equal, **parts)

    @classmethod
    def build(
        cls,
        *,
        where: Iterable[Filter | Sequence[Any]] = (),
        since: Moment = None,
        until: Moment = None,
        columns: Iterable[str] = (),
        order: Iterable[str] = (),
        limit: int | None = None,
        after: Sequence[Any] | None = None,
        group_by: Iterable[str] = (),
        bucket_seconds: float | None = None,
        aggregates: Iterable[str | Aggregate] = (),
        equal: Mapping[str, Any] | None = None,
    ) -> SpanQuery:
        """Build a query from what people type.

        *equal* maps a column to a value (or a list of values: any of them). *order* takes
        ``"duration_ms"`` or ``"-duration_ms"``; *aggregates* takes ``"count"`` or
        ``"p95:duration_ms"``; *since* and *until* take a datetime, ISO text, a duration back from
        now such as ``"15m"``, or UTC microseconds.
        """
        filters = [f if isinstance(f, Filter) else _filter(f) for f in where]
        for column, value in (equal or {}).items():
            filters.append(_equal(column, value))
        return cls(
            where=tuple(filters),
            since=_moment("since", since),
            until=_moment("until", until),
            columns=_names("columns", columns),
            order=tuple(_order(o) for o in _names("order", order)),
            limit=limit,
            after=None if after is None else tuple(after),
            group_by=_names("group_by", group_by),
            bucket_seconds=bucket_seconds,
            aggregates=tuple(_aggregate(a) for a in _listed("aggregates", aggregates)),
        )


_PARTS: Final = frozenset(
    {"where", "since", "until", "columns", "order", "limit", "after", "group_by"}
    | {"bucket_seconds", "aggregates"}
)

Moment = dt.datetime | str | int | None


def micros(moment: Moment, *, now: float | None = None) -> int | None:
    """Return UTC microseconds of a datetime, ISO text, a duration back from now, or themselves."""
    if moment is None or (isinstance(moment, int) and not isinstance(moment, bool)):
        return moment
    given = moment
    if isinstance(moment, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", moment.strip())
        if match:
            back = float(match[1]) * _UNITS_S[match[2]]
            return int(((time.time() if now is None else now) - back) * 1_000_000)
        try:
            moment = dt.datetime.fromisoformat(moment.strip())
        except ValueError:
            moment = None  # reported below, with what was found
    if isinstance(moment, dt.datetime):
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    raise QueryError(
        f"{given!r} is no moment in time",
        "expected a moment in time: a datetime, ISO text such as '2026-01-31T12:00', a duration "
        "such as '15m', or UTC microseconds",
    )


def check_selection(query: SpanQuery) -> SpanQuery:
    """Return the query, which only says which spans are meant. Raise if it says anything else."""
    if query != SpanQuery(where=query.where, since=query.since, until=query.until):
        raise QueryError(
            "a selection with columns, order, a page or groups", "expected filters and a time range"
        )
    return query


def _moment(name: str, moment: Moment) -> int | None:
    try:
        return micros(moment)
    except QueryError as error:
        raise QueryError(f"{name}={moment!r}", error.expected) from None


def _last(page: pa.Table, name: str) -> Any:
    """Return a column's last value; that of ``attributes.KEY`` from the map if need be."""
    import pyarrow as pa

    base, _, key = name.partition(".")
    value = page[name if name in page.column_names else base][page.num_rows - 1]
    if isinstance(value, pa.MapScalar):
        return dict(value.as_py() or ()).get(key)
    if isinstance(value, pa.TimestampScalar):
        return value.value  # microseconds, also where no datetime can hold them
    return value.as_py()


def _listed(what: str, names: Any) -> tuple[Any, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise QueryError(f"{what}={names!r}", "expected a list", f"write {what}=[{names!r}]")
    return tuple(names)


def _names(what: str, names: Any) -> tuple[str, ...]:
    listed = _listed(what, names)
    for name in listed:
        if not isinstance(name, str):
            raise QueryError(f"{what} holds {name!r}", "expected column names")
    return listed


def _filter(item: Any) -> Filter:
    if isinstance(item, str) or not isinstance(item, Sequence) or not 2 <= len(item) <= 3:
        raise QueryError(
            f"filter {item!r}",
            "expected (column, operator, value)",
            "for example ('duration_ms', '>', 100)",
        )
    return Filter(*item)


def _equal(column: str, value: Any) -> Filter:
    if value is None:
        return Filter(column, "is null")
    if isinstance(value, (list, tuple, set, frozenset)):
        return Filter(column, "in", tuple(value))
    return Filter(column, "=", value)


def _order(name: str) -> Order:
    return Order(name.removeprefix("-"), descending=name.startswith("-"))


def _aggregate(item: str | Aggregate) -> Aggregate:
    if isinstance(item, Aggregate):
        return item
    if not isinstance(item, str):
        raise QueryError(f"aggregate {item!r}", "expected text such as 'count', 'p95:duration_ms'")
    function, _, column = item.partition(":")
    return Aggregate(function, column)


def _check_column(name: str) -> str:
    """Return the type of a column, or raise with the nearest known name."""
    if name in _TYPES:
        return _TYPES[name]
    base, dot, key = name.partition(".")
    if dot and key and base in MAP_COLUMNS:
        return "text" if _TYPES[base] == "map" else "float"
    import difflib

    close = difflib.get_close_matches(name, _TYPES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "see docs/schema.md for the columns"
    raise QueryError(
        f"unknown column {name!r}", "expected a column, attributes.KEY or measurements.KEY", hint
    )


_ACCEPTS: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "enum": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "timestamp": (int,),
}


def _check_value(item: Filter, kind: str, value: Any) -> None:
    accepted = _ACCEPTS.get(kind, ())
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind != "bool"):
        names = " or ".join(t.__name__ for t in accepted) or "no value"
        raise QueryError(
            f"filter {item.column} {item.op} {value!r}", f"expected a value of type {names}"
        )


def _check_filter(item: Filter) -> None:
    if not isinstance(item.column, str):
        raise QueryError(f"filter on {item.column!r}", "expected a column's name")
    kind = _check_column(item.column)
    if item.op not in OPERATORS:
        raise QueryError(f"unknown operator {item.op!r}", "expected one of " + ", ".join(OPERATORS))
    if item.op in ("is null", "is not null"):
        return
    if kind in ("map", "numbers"):
        raise QueryError(
            f"filter on the whole of {item.column!r}",
            "expected one key",
            f"write {item.column}.KEY",
        )
    if kind == "list":
        if item.op != "contains" or not isinstance(item.value, str):
            raise QueryError(
                f"filter {item.column} {item.op} {item.value!r}", "expected 'contains' and a text"
            )
        return
    if item.op in ("contains", "starts with") and kind not in ("text", "enum"):
        raise QueryError(f"operator {item.op!r} on {item.column!r}", "expected a text column")
    for value in _values(item):
        _check_value(item, kind, value)


def _values(item: Filter) -> Sequence[Any]:
    """Return what a filter compares with: one value, or each of a list."""
    if item.op not in ("in", "not in"):
        return (item.value,)
    if not isinstance(item.value, (list, tuple)):
        raise QueryError(
            f"filter {item.column} {item.op} {item.value!r}", "expected a list of values"
        )
    return item.value


def _check_aggregate(aggregate: Aggregate) -> None:
    if aggregate.function not in AGGREGATES:
        raise QueryError(
            f"unknown aggregate {aggregate.function!r}", "expected one of " + ", ".join(AGGREGATES)
        )
    if aggregate.function in ("count", "error_rate"):
        if aggregate.column:
            raise QueryError(f"{aggregate.function}:{aggregate.column}", "expected no column")
        return
    if not aggregate.column:
        raise QueryError(
            f"{aggregate.function} needs a column",
            f"expected {aggregate.function}:COLUMN",
            f"write {aggregate.function}:duration_ms",
        )
    kind = _check_column(aggregate.column)
    if kind == "timestamp" and aggregate.function in ("min", "max"):
        return
    if kind not in ("int", "float"):
        raise QueryError(
            f"{aggregate.function} of {aggregate.column!r}", "expected a column of numbers"
        )


def _check_page(query: SpanQuery) -> None:
    limit, bucket = query.limit, query.bucket_seconds
    if limit is not None and (type(limit) is not int or not 0 < limit <= MAX_LIMIT):
        raise QueryError(f"limit={limit!r}", f"expected a whole number from 1 to {MAX_LIMIT:,}")
    if bucket is not None and not (isinstance(bucket, (int, float)) and 0 < bucket <= 366 * 86400):
        raise QueryError(f"bucket_seconds={bucket!r}", "expected seconds above 0")
    if query.is_grouped:
        _check_groups(query)
        return
    for order in query.order:
        if _check_column(order.column) in ("map", "numbers", "list"):
            raise QueryError(f"order by {order.column!r}", "expected a scalar column")
    if query.after is not None:
        _check_after(query, query.after)


def _check_groups(query: SpanQuery) -> None:
    known = {a.name for a in query.aggregates} | set(query.group_by) | {"bucket"}
    for order in query.order:
        if order.column not in known:
            raise QueryError(
                f"order by {order.column!r}", "expected one of " + ", ".join(sorted(known))
            )
    for name, value in (("columns", query.columns), ("after", query.after)):
        if value:
            raise QueryError(
                f"{name} beside group_by or aggregates", "expected rows or groups, not both"
            )


def _check_after(query: SpanQuery, after: tuple[Any, ...]) -> None:
    order = query.effective_order
    if len(after) != len(order):
        raise QueryError(
            f"after={after!r}",
            f"expected {len(order)} values, one for each order column",
            "take it from next_page()",
        )
    for key, value in zip(order, after, strict=True):
        if value is not None:
            _check_value(Filter(key.column, "after", value), _check_column(key.column), value)
