"""Compile a query description to ClickHouse SQL. Every value is bound; every name is the schema's own.

A statement's answer has the columns ``c0``, ``c1``, ...: what a user named, such as the key of a map,
never becomes a name in SQL. :func:`shape` gives them the names and the types of the description.

Lists and maps cannot be null in ClickHouse. Which of them a row has is in the bits of the column
``_present``, in the order of the schema.
"""

# ruff: noqa: S608 - SQL is put together here, of placeholders and of names from the schema only

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from llmops_core.errors import QueryError
from llmops_core.query.answers import checked, checked_value, column_type, shape
from llmops_core.query.description import Aggregate, Filter, Order, SpanQuery
from llmops_core.schema import COLUMN_NAMES, COLUMNS, MAP_COLUMNS
from llmops_core.storable import clean_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CLICKHOUSE_TYPES", "PRESENT", "PRESENT_BITS", "Statement", "compile_query", "condition"]

#: The type of a column that may be null, by its type in the schema.
CLICKHOUSE_TYPES: Final = {
    "text": "Nullable(String)",
    "enum": "LowCardinality(Nullable(String))",
    "int": "Nullable(Int64)",
    "float": "Nullable(Float64)",
    "bool": "Nullable(Bool)",
    "timestamp": "Nullable(DateTime64(6, 'UTC'))",
    "list": "Array(String)",
    "map": "Map(LowCardinality(String), String)",
    "numbers": "Map(LowCardinality(String), Float64)",
}
PRESENT: Final = "_present"
#: The bit of each list and map; new ones get the next bit, as columns are only ever appended.
PRESENT_BITS: Final = {
    name: bit
    for bit, name in enumerate(c.name for c in COLUMNS if c.type in ("list", "map", "numbers"))
}

_TYPES: Final = {c.name: c.type for c in COLUMNS}
_REQUIRED: Final = frozenset(c.name for c in COLUMNS if not c.nullable)
_PARAMETERS: Final = {
    "text": "String",
    "enum": "String",
    "list": "String",
    "int": "Int64",
    "float": "Float64",
    "bool": "Bool",
}
_COMPARISONS: Final = frozenset(("=", "!=", "<", "<=", ">", ">="))
_QUANTILES: Final = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}
#: A server takes fields of up to 128 KiB, and a byte may need four in a parameter.
MAX_TEXT_BYTES: Final = 30_000

# An error that a later attempt followed; see the DuckDB compiler, which has the same rule.
_SUPERSEDED: Final = "(`outcome` = 'error' AND ifNull(r_attempt > ifNull(`attempt`, 1), 0))"
_ERROR_RATE: Final = (
    f"if(countIf(NOT {_SUPERSEDED}) = 0, NULL,"
    f" countIf(`outcome` = 'error' AND NOT {_SUPERSEDED}) / countIf(NOT {_SUPERSEDED}))"
)


class Statement:
    """SQL text with named parameters, and their values.

    *table* is quoted already, ``missing`` are columns that an older table does not have yet, and
    ``spread`` says that the table's rows lie on several servers.
    """

    def __init__(self, table: str, missing: Collection[str] = (), *, spread: bool = False) -> None:
        self.sql = ""
        self.values: dict[str, Any] = {}
        self.source = table
        self.missing = missing
        self.spread = spread
        #: For each column of the answer: its name, and the place of the bit that says it is there.
        self.outputs: list[tuple[str, int | None]] = []
        self._names: dict[tuple[str, type, Any], str] = {}

    def bind(self, value: Any, kind: str) -> str:
        """Bind one value and return its placeholder; equal values share one."""
        key = (kind, type(value), value)
        if key not in self._names:
            name = f"p{len(self._names)}"
            self.values[name] = _sent(value)
            self._names[key] = f"{{{name}:{kind}}}"
        return self._names[key]

    def shape(self, answer: pa.Table, query: SpanQuery) -> pa.Table:
        """Give an answer the names and types that the description promises."""
        import pyarrow as pa
        import pyarrow.compute as pc

        arrays, names = [], []
        for at, (name, bit) in enumerate(self.outputs):
            column = answer.column(f"c{at}")
            if bit is not None:
                there = pc.equal(answer.column(f"b{at}"), 1)
                column = pc.if_else(there, column, pa.scalar(None, column.type))
            arrays.append(column)
            names.append(name)
        return shape(pa.Table.from_arrays(arrays, names=names), query)


def compile_query(query: SpanQuery, statement: Statement) -> Statement:
    """Compile a query into *statement*, which knows the table."""
    statement.sql = (_groups if query.is_grouped else _rows)(statement, query)
    return statement


def condition(statement: Statement, query: SpanQuery) -> str:
    """Compile the filters and the time range of a query, to stand behind WHERE."""
    found = [_condition(statement, f) for f in query.where]
    if query.since is not None:
        found.append(_condition(statement, Filter("start_time", ">=", query.since)))
    if query.until is not None:
        found.append(_condition(statement, Filter("start_time", "<", query.until)))
    if query.after is not None:
        found.append(_after(statement, query.effective_order, query.after))
    return " AND ".join(found) if found else "1"


def _rows(statement: Statement, query: SpanQuery) -> str:
    selected = [_output(statement, n) for n in query.effective_columns or COLUMN_NAMES]
    order = ", ".join(
        _direction(_expression(statement, o.column), o) for o in query.effective_order
    )
    sql = (
        f"SELECT {', '.join(selected)} FROM {statement.source}"
        f" WHERE {condition(statement, query)} ORDER BY {order}"
    )
    return sql if query.limit is None else f"{sql} LIMIT {statement.bind(query.limit, 'UInt64')}"


def _output(statement: Statement, name: str) -> str:
    """Return the select item of a column; that of a list or map has one more, whether it is there."""
    at = len(statement.outputs)
    bit = _bit(statement, name)
    statement.outputs.append((name, None if bit is None else at))
    item = f"{_expression(statement, name)} AS c{at}"
    return item if bit is None else f"{item}, {bit} AS b{at}"


def _groups(statement: Statement, query: SpanQuery) -> str:
    selected, keys = [], []
    if query.bucket_seconds:
        statement.outputs.append(("bucket", None))
        selected.append(f"{_bucket(statement, query.bucket_seconds)} AS c0")
    selected += [_output(statement, name) for name in query.group_by]
    for at, (_, bit) in enumerate(statement.outputs):
        keys += [f"c{at}"] if bit is None else [f"c{at}", f"b{at}"]
    for aggregate in dict.fromkeys(query.aggregates):
        at = len(statement.outputs)
        statement.outputs.append((aggregate.name, None))
        selected.append(f"{_aggregate(statement, aggregate)} AS c{at}")
    source = f"{statement.source} WHERE {condition(statement, query)}"
    if any(a.function == "error_rate" for a in query.aggregates):
        source = _with_attempts(statement, source)
    sql = f"SELECT {', '.join(selected)} FROM {source}"
    if keys:
        sql += f" GROUP BY {', '.join(keys)}"
    sql += _group_order(statement, query)
    return sql if query.limit is None else f"{sql} LIMIT {statement.bind(query.limit, 'UInt64')}"


def _group_order(statement: Statement, query: SpanQuery) -> str:
    order = list(query.effective_order)
    named = {o.column for o in order}
    unique = (["bucket"] if query.bucket_seconds else []) + list(query.group_by)
    order += [Order(name) for name in unique if name not in named]  # ties have one order, always
    places = {name: (at, bit) for at, (name, bit) in enumerate(statement.outputs)}
    items = []
    for item in order:
        at, bit = places[item.column]
        items += [] if bit is None else [f"b{at} DESC"]  # what is null comes last
        items.append(_direction(f"c{at}", item))
    return f" ORDER BY {', '.join(items)}" if items else ""


def _with_attempts(statement: Statement, selected: str) -> str:
    """Join to each selected span the greatest attempt of the same trace, parent and name."""
    everywhere = "GLOBAL " if statement.spread else ""
    return (
        f"(SELECT * FROM {selected}) AS s {everywhere}ANY LEFT JOIN"
        " (SELECT `trace_id` AS r_trace, ifNull(`parent_id`, '') AS r_parent,"
        " isNull(`parent_id`) AS r_root, `name` AS r_name, max(`attempt`) AS r_attempt"
        f" FROM {statement.source} WHERE `attempt` > 1"
        " GROUP BY r_trace, r_parent, r_root, r_name) AS r"
        " ON s.`trace_id` = r.r_trace AND s.`name` = r.r_name"
        " AND ifNull(s.`parent_id`, '') = r.r_parent AND isNull(s.`parent_id`) = r.r_root"
    )


def _aggregate(statement: Statement, aggregate: Aggregate) -> str:
    if aggregate.function == "count":
        return "toInt64(count())"
    if aggregate.function == "error_rate":
        return _ERROR_RATE
    column = _expression(statement, aggregate.column)
    whole = _TYPES.get(aggregate.column) == "int"
    if aggregate.function in _QUANTILES:
        level = _QUANTILES[aggregate.function]
        return f"quantileExactInclusiveOrNull({level})(toFloat64({column}))"
    if aggregate.function == "sum":
        # A sum of 64 bits would begin again from below; this one is an error there.
        wide = f"sumOrNull(toInt128({column}))"
        return f"accurateCast({wide}, 'Nullable(Int64)')" if whole else f"sumOrNull({column})"
    if aggregate.function == "avg":
        wide = f"toFloat64(sumOrNull(toInt128({column}))) / nullIf(count({column}), 0)"
        return wide if whole else f"avgOrNull({column})"
    if aggregate.function not in ("min", "max"):
        raise QueryError(
            f"unknown aggregate {aggregate.function!r}", "expected one that the description lists"
        )
    return f"{aggregate.function}OrNull({column})"


def _bucket(statement: Statement, seconds: float) -> str:
    """Round down to a multiple of the width, also before 1970, as microseconds."""
    width = statement.bind(max(1, round(seconds * 1_000_000)), "Int64")
    start = "toUnixTimestamp64Micro(`start_time`)"
    return f"({start} - ((({start} % {width}) + {width}) % {width}))"


def _condition(statement: Statement, item: Filter) -> str:
    if item.op == "in" and not item.value:
        return "0"
    if item.op in ("is null", "is not null") or (item.op == "not in" and not item.value):
        return _null_test(statement, item.column, null=item.op == "is null")
    column = _expression(statement, item.column)
    if item.op in ("in", "not in"):
        values = ", ".join(_value(statement, item.column, v) for v in item.value)
        return f"{column} {item.op.upper()} ({values})"
    value = _value(statement, item.column, item.value)
    if item.op == "contains":
        if _TYPES.get(item.column) == "list":
            return f"has({column}, {value})"
        return f"position({column}, {value}) > 0"
    if item.op == "starts with":
        return f"startsWith({column}, {value})"
    if item.op not in _COMPARISONS:
        raise QueryError(f"unknown operator {item.op!r}", "expected one that the description lists")
    return f"{column} {item.op} {value}"


def _null_test(statement: Statement, name: str, *, null: bool) -> str:
    bit = _bit(statement, name)
    if bit is not None:
        return f"{bit} = {0 if null else 1}"
    return f"isN{'ull' if null else 'otNull'}({_expression(statement, name)})"


def _after(statement: Statement, order: Sequence[Order], after: Sequence[Any]) -> str:
    """Return the condition for rows behind a key, where nulls come last in both directions."""
    alternatives, equal = [], []
    for key, value in zip(order, after, strict=True):
        column = _expression(statement, key.column)
        if value is None:
            equal.append(f"isNull({column})")  # nothing comes behind a null
            continue
        bound = _value(statement, key.column, value)
        behind = f"{column} {'<' if key.descending else '>'} {bound}"
        if key.column not in _REQUIRED:
            behind = f"({behind} OR isNull({column}))"
        alternatives.append(" AND ".join([*equal, behind]))
        equal.append(f"{column} = {bound}")
    found = "(" + " OR ".join(alternatives or ["0"]) + ")"
    if after[0] is not None and order[0].column in _REQUIRED:
        # Implied by the rest, but in a shape for which whole granules can be skipped.
        sign = "<=" if order[0].descending else ">="
        first = _expression(statement, order[0].column)
        found += f" AND {first} {sign} {_value(statement, order[0].column, after[0])}"
    return found


def _bit(statement: Statement, name: str) -> str | None:
    """Return the expression that is 1 where a list or map is not null; None for other columns."""
    if name not in PRESENT_BITS:
        return None
    return "0" if name in statement.missing else f"bitTest(`{PRESENT}`, {PRESENT_BITS[name]})"


def _expression(statement: Statement, name: str) -> str:
    base, _, key = name.partition(".")
    if name not in _TYPES and base not in MAP_COLUMNS:
        raise QueryError(f"unknown column {name!r}", "expected a column of the schema")
    if name in _TYPES:
        if name in statement.missing:
            return f"CAST({_nothing(name)}, '{_escaped(CLICKHOUSE_TYPES[_TYPES[name]])}')"
        return f"`{name}`"
    if base in statement.missing:
        return f"CAST(NULL, 'Nullable({'String' if _TYPES[base] == 'map' else 'Float64'})')"
    bound = statement.bind(key, "String")
    return f"if(mapContains(`{base}`, {bound}), `{base}`[{bound}], NULL)"


def _nothing(name: str) -> str:
    return {"list": "[]", "map": "map()", "numbers": "map()"}.get(_TYPES[name], "NULL")


def _escaped(kind: str) -> str:
    return kind.replace("'", "\\'")


def _direction(expression: str, order: Order) -> str:
    return f"{expression} {'DESC' if order.descending else 'ASC'} NULLS LAST"


def _value(statement: Statement, column: str, value: Any) -> str:
    kind = column_type(column)
    value = checked_value(column, value)
    if kind == "timestamp":
        return f"fromUnixTimestamp64Micro({statement.bind(value, 'Int64')}, 'UTC')"
    return statement.bind(value, _PARAMETERS[kind])


def _sent(value: Any) -> Any:
    """Return a value as the client sends it: text as bytes, of which it escapes every one."""
    value = checked(value)
    if not isinstance(value, str):
        return value
    encoded = clean_text(value).encode()
    if len(encoded) > MAX_TEXT_BYTES:
        raise QueryError(
            f"text of {len(encoded):,} bytes in a query", f"expected at most {MAX_TEXT_BYTES:,}"
        )
    return encoded
