"""Compile a query description to DuckDB SQL. Every value is bound; every name is the schema's own.

The source is the rows of Parquet files and of one Arrow table, ``tail``, which holds what is not in
a file yet. The table has every column of the schema, so a column that an older file lacks is null.
"""

# ruff: noqa: S608 - SQL is put together here, of placeholders and of names from the schema only

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

from llmops_core.errors import QueryError
from llmops_core.query.answers import checked, checked_value, column_type
from llmops_core.query.description import Aggregate, Filter, Order, SpanQuery
from llmops_core.schema import COLUMN_NAMES, COLUMNS
from llmops_core.storable import clean_text

__all__ = ["Statement", "boundary", "checkup", "compile_query"]

_TYPES: Final = {c.name: c.type for c in COLUMNS}
_REQUIRED: Final = frozenset(c.name for c in COLUMNS if not c.nullable)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# No filter is pushed behind a limit. DuckDB would hand it to pyarrow, where version 1.2 fails on a
# page boundary; columns are still read by need.
_TAIL: Final = f"(FROM tail LIMIT {2**62})"
_COMPARISONS: Final = frozenset(("=", "!=", "<", "<=", ">", ">="))
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

# An error that a later attempt followed. Later attempts are looked for among all spans of the
# store, not among those that the query selects: whether a failure was made good is a fact about the
# run, so it must not change with the filter (``outcome="error"`` would hide every good attempt).
# It is cheap: few spans have an attempt above 1, and row groups without any are skipped unread.
_SUPERSEDED: Final = (
    '("outcome" = \'error\' AND coalesce(r_attempt > coalesce("attempt", 1), false))'
)
_ERROR_RATE: Final = (
    f"count(*) FILTER (WHERE \"outcome\" = 'error' AND NOT {_SUPERSEDED})::DOUBLE"
    f" / nullif(count(*) FILTER (WHERE NOT {_SUPERSEDED}), 0)"
)


class Statement:
    """SQL text with numbered parameters, and their values."""

    def __init__(
        self, files: Sequence[str] = (), *, clean: bool = False, alike: bool = False
    ) -> None:
        self.sql = ""
        self._clean = clean
        self.values: list[Any] = []
        self._numbers: dict[tuple[type, Any], str] = {}
        self.source = _TAIL
        if files:
            # A folder named "a=b" must not become a column, hence no hive partitioning.
            options = f"union_by_name={str(not alike).lower()}, hive_partitioning=false"
            scan = f"read_parquet({self.bind_list(files)}, {options})"
            self.source = f"(FROM {scan} UNION ALL BY NAME {_TAIL})"

    def bind(self, value: str | float | dt.datetime) -> str:
        """Bind one value and return its placeholder; equal values share one."""
        if self._clean and isinstance(value, str):
            value = clean_text(checked(value))
        key = (type(value), value)
        if key not in self._numbers:
            self.values.append(checked(value))
            self._numbers[key] = f"${len(self.values)}"
        return self._numbers[key]

    def bind_list(self, values: Sequence[str]) -> str:
        """Bind a list as one value."""
        self.values.append(list(values))
        return f"${len(self.values)}"


def compile_query(
    query: SpanQuery,
    files: Sequence[str] = (),
    *,
    bound: Filter | None = None,
    clean: bool = False,
    alike: bool = False,
) -> Statement:
    """Compile a query over Parquet *files* and the table ``tail``. *bound* is one more filter.

    With *clean*, texts to compare with are made as a storage makes them before it stores them.
    *alike* says that the first file has every column: then the footers of the others are read only
    with their rows, and the query fails if it asks one of them for a column that it lacks.
    """
    statement = Statement(files, clean=clean, alike=alike)
    if query.is_grouped:
        statement.sql = _groups(statement, query)
    else:
        statement.sql = _rows(statement, query, bound)
    return statement


def boundary(
    query: SpanQuery,
    files: Sequence[str] = (),
    *,
    clean: bool = False,
    wide: bool = False,
    alike: bool = False,
) -> Statement | None:
    """Compile the search for the last value of the first order column that the page can hold.

    A page has few rows, each with long texts. Finding that value first reads two or three narrow
    columns, and with it as a filter the texts of all other rows stay unread. *wide* says that the
    rows of ``tail`` are read from afar too.
    """
    if query.is_grouped or query.limit is None or not (files or wide):
        return None
    statement = Statement(files, clean=clean, alike=alike)
    first = query.effective_order[0]
    expression = _expression(statement, first.column)
    statement.sql = (
        f"SELECT {expression} FROM {statement.source}{_where(statement, query)}"
        f" ORDER BY {_direction(expression, first)}"
        f" LIMIT 1 OFFSET {statement.bind(query.limit - 1)}"
    )
    return statement


def checkup(files: Sequence[str]) -> Statement:
    """Compile a query that decodes every value of the files and returns next to nothing."""
    statement = Statement(files)
    hashes = ", ".join(f"max(hash({_quoted(name)}))" for name in COLUMN_NAMES)
    statement.sql = f"SELECT {hashes} FROM {statement.source}"
    return statement


def _rows(statement: Statement, query: SpanQuery, bound: Filter | None) -> str:
    names = query.effective_columns or COLUMN_NAMES
    columns = ", ".join(f"{_expression(statement, n)} AS {_quoted(n)}" for n in names)
    order = ", ".join(
        _direction(_expression(statement, o.column), o) for o in query.effective_order
    )
    where = _where(statement, query, bound)
    sql = f"SELECT {columns} FROM {statement.source}{where} ORDER BY {order}"
    return sql if query.limit is None else f"{sql} LIMIT {statement.bind(query.limit)}"


def _groups(statement: Statement, query: SpanQuery) -> str:
    keys = [f"{_expression(statement, n)} AS {_quoted(n)}" for n in query.group_by]
    if query.bucket_seconds:
        keys.insert(0, f'{_bucket(statement, query.bucket_seconds)} AS "bucket"')
    selected = keys + [
        f"{_aggregate(statement, a)} AS {_quoted(a.name)}" for a in dict.fromkeys(query.aggregates)
    ]
    source = statement.source + _where(statement, query)
    if any(a.function == "error_rate" for a in query.aggregates):
        source = _with_attempts(statement, source)
    sql = f"SELECT {', '.join(selected)} FROM {source}"
    if keys:
        sql += " GROUP BY " + ", ".join(str(i + 1) for i in range(len(keys)))
    order = list(query.effective_order)
    named = {o.column for o in order}
    unique = (["bucket"] if query.bucket_seconds else []) + list(query.group_by)
    order += [Order(name) for name in unique if name not in named]  # ties have one order, always
    if order:
        sql += " ORDER BY " + ", ".join(_direction(_quoted(o.column), o) for o in order)
    return sql if query.limit is None else f"{sql} LIMIT {statement.bind(query.limit)}"


def _with_attempts(statement: Statement, selected: str) -> str:
    """Join to each selected span the greatest attempt of the same trace, parent and name."""
    return (
        f"(FROM {selected}) LEFT JOIN (SELECT trace_id AS r_trace, parent_id AS r_parent,"
        f" name AS r_name, max(attempt) AS r_attempt FROM {statement.source}"
        " WHERE attempt > 1 GROUP BY ALL) ON trace_id = r_trace AND name = r_name"
        " AND parent_id IS NOT DISTINCT FROM r_parent"
    )


def _aggregate(statement: Statement, aggregate: Aggregate) -> str:
    if aggregate.function == "count":
        return "count(*)"
    if aggregate.function == "error_rate":
        return _ERROR_RATE
    column = _expression(statement, aggregate.column)
    if aggregate.function in _QUANTILES:
        return f"quantile_cont({column}::DOUBLE, {_QUANTILES[aggregate.function]})"
    return f"{aggregate.function}({column})"  # from a closed list, checked by the description


def _bucket(statement: Statement, seconds: float) -> str:
    """Round down to a multiple of the width, also before 1970, as microseconds."""
    width = statement.bind(max(1, round(seconds * 1_000_000)))
    start = 'epoch_us("start_time")'
    return f"({start} - (({start} % {width}) + {width}) % {width})::BIGINT"


def _where(statement: Statement, query: SpanQuery, bound: Filter | None = None) -> str:
    conditions = [_condition(statement, f) for f in query.where]
    if query.since is not None:
        conditions.append(_condition(statement, Filter("start_time", ">=", query.since)))
    if query.until is not None:
        conditions.append(_condition(statement, Filter("start_time", "<", query.until)))
    if bound is not None:
        conditions.append(_condition(statement, bound))
    if query.after is not None:
        conditions += _after(statement, query.effective_order, query.after)
    return " WHERE " + " AND ".join(conditions) if conditions else ""


def _condition(statement: Statement, item: Filter) -> str:
    if item.op == "in" and not item.value:
        return "false"  # before the column: a key that is bound must also be used
    column = _expression(statement, item.column)
    if item.op == "is null":
        return f"{column} IS NULL"
    if item.op == "is not null":
        return f"{column} IS NOT NULL"
    if item.op in ("in", "not in"):
        if not item.value:
            return f"{column} IS NOT NULL"
        values = ", ".join(_value(statement, item.column, v) for v in item.value)
        return f"{column} {item.op.upper()} ({values})"
    value = _value(statement, item.column, item.value)
    if item.op == "contains":
        function = "list_contains" if _TYPES.get(item.column) == "list" else "contains"
        return f"{function}({column}, {value})"
    if item.op == "starts with":
        return f"starts_with({column}, {value})"
    if item.op not in _COMPARISONS:
        raise QueryError(f"unknown operator {item.op!r}", "expected one that the description lists")
    return f"{column} {item.op} {value}"


def _after(statement: Statement, order: Sequence[Order], after: Sequence[Any]) -> list[str]:
    """Return the conditions for rows behind a key, where nulls come last in both directions."""
    alternatives, equal = [], []
    for key, value in zip(order, after, strict=True):
        column = _expression(statement, key.column)
        if value is None:
            equal.append(f"{column} IS NULL")  # nothing comes behind a null
            continue
        bound = _value(statement, key.column, value)
        behind = f"{column} {'<' if key.descending else '>'} {bound}"
        if key.column not in _REQUIRED:
            behind = f"({behind} OR {column} IS NULL)"
        alternatives.append(" AND ".join([*equal, behind]))
        equal.append(f"{column} = {bound}")
    conditions = ["(" + " OR ".join(alternatives or ["false"]) + ")"]
    if after[0] is not None and order[0].column in _REQUIRED:
        # Implied by the rest, but in a shape for which whole row groups can be skipped.
        sign = "<=" if order[0].descending else ">="
        conditions.append(_condition(statement, Filter(order[0].column, sign, after[0])))
    return conditions


def _expression(statement: Statement, name: str) -> str:
    if name in _TYPES:
        return _quoted(name)
    base, _, key = name.partition(".")
    if _TYPES.get(base) not in ("map", "numbers"):
        raise QueryError(f"unknown column {name!r}", "expected a column of the schema")
    return f"map_extract({_quoted(base)}, {statement.bind(key)})[1]"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _direction(expression: str, order: Order) -> str:
    return f"{expression} {'DESC' if order.descending else 'ASC'} NULLS LAST"


def _value(statement: Statement, column: str, value: Any) -> str:
    value = checked_value(column, value)
    if column_type(column) == "timestamp":
        return statement.bind(_EPOCH + dt.timedelta(microseconds=value))
    return statement.bind(value)
