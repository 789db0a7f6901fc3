"""Compile a query description with SQLAlchemy's expressions: what relational dialects share.

No SQL text is put together here or in a dialect's module: tables, columns and values are objects,
values are bound, names are quoted by SQLAlchemy. A dialect is a subclass that says how it reads a
map, a list and a time, how it orders nulls, and how it computes a quantile.

SQLAlchemy comes with the extras of the databases, and is imported by their storages only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from llmops_core.errors import QueryError
from llmops_core.query.answers import checked, checked_value, column_type
from llmops_core.query.description import Aggregate, Filter, Order, SpanQuery
from llmops_core.schema import COLUMN_NAMES, COLUMNS, ColumnType
from llmops_core.storable import clean_text

__all__ = ["Compiled", "RelationalCompiler", "make_table"]

_TYPES: Final = {c.name: c.type for c in COLUMNS}
_REQUIRED: Final = frozenset(c.name for c in COLUMNS if not c.nullable)
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
#: Columns that SQLAlchemy's own types compare and bind; a dialect stores them as it likes.
_BOUND: Final[Mapping[str, sa.types.TypeEngine[Any]]] = {
    "text": sa.Text(),
    "enum": sa.Text(),
    "int": sa.BigInteger(),
    "float": sa.Double(),
    "bool": sa.Boolean(),
}

Expression = sa.ColumnElement[Any]


class Compiled(NamedTuple):
    """SQL text with placeholders, and the values for them, in order."""

    sql: str
    values: list[Any]


def make_table(
    name: str, schema: str | None, types: Mapping[ColumnType, sa.types.TypeEngine[Any]]
) -> sa.Table:
    """Return a table with a column for each of the schema's; ``span_id`` is its primary key."""
    columns = [
        sa.Column(c.name, types[c.type], nullable=c.nullable, primary_key=c.name == "span_id")
        for c in COLUMNS
    ]
    return sa.Table(name, sa.MetaData(), *columns, schema=schema)


class _Input(NamedTuple):
    """One aggregate of a grouped query, and the label of the column that it reads."""

    aggregate: Aggregate
    label: str


class RelationalCompiler(ABC):
    """Compiles queries, deletions and definitions for one table of one dialect. Stateless."""

    dialect: Dialect

    def __init__(self, table: sa.Table) -> None:
        self.table = table

    # ---- what a dialect says ----

    @abstractmethod
    def key(self, base: str, key: str) -> Expression:
        """Return one key of the map column *base*: text of attributes, a double of measurements."""

    @abstractmethod
    def moment(self, micros: int) -> Expression:
        """Return a bound time, to compare with a time column."""

    @abstractmethod
    def micros(self, time: Expression) -> Expression:
        """Return a time as whole microseconds since the epoch."""

    @abstractmethod
    def contains(self, text: Expression, part: Expression) -> Expression:
        """Whether a text has a part, by code points and with case."""

    @abstractmethod
    def starts_with(self, text: Expression, part: str) -> Expression:
        """Whether a text starts with a part, by code points and with case."""

    @abstractmethod
    def has(self, values: Expression, text: Expression) -> Expression:
        """Whether a list column has a text."""

    @abstractmethod
    def ordered(self, expression: Expression, *, descending: bool, nullable: bool) -> list[Any]:
        """Return what orders by an expression, nulls last in both directions."""

    @abstractmethod
    def quantile(self, source: sa.FromClause, label: str, fraction: float) -> Expression:
        """Return the exact, linearly interpolated quantile of *source*'s column *label* in a group."""

    def ranked(self, source: sa.Subquery, keys: Sequence[str], labels: Sequence[str]) -> Any:
        """Return *source* with what :meth:`quantile` needs, for a dialect without such a function."""
        return source

    def any_of(self, column: Expression, values: Sequence[Expression]) -> Expression:
        """Whether a column is one of the values."""
        return column.in_(values)

    def read(self, name: str) -> Expression:
        """Return a column as an answer has it: a time as microseconds, all else as it is."""
        found = self.expression(name)
        return self.micros(found) if column_type(name) == "timestamp" else found

    # ---- statements ----

    def query(self, query: SpanQuery) -> Compiled:
        """Compile a query; its columns come in the order of ``answers.result_names``."""
        return self.compiled(self._groups(query) if query.is_grouped else self._rows(query))

    def delete(self, query: SpanQuery) -> Compiled:
        """Compile the deletion of what a selection selects."""
        return self.compiled(sa.delete(self.table).where(*self.conditions(query)))

    def create_table(self) -> str:
        """Compile the table's definition; nothing happens where it exists."""
        return str(CreateTable(self.table, if_not_exists=True).compile(dialect=self.dialect))

    def create_index(self, index: sa.Index) -> str:
        """Compile an index's definition; nothing happens where it exists."""
        return str(CreateIndex(index, if_not_exists=True).compile(dialect=self.dialect))

    def add_column(self, name: str) -> str:
        """Compile the addition of a column that an older table lacks. It is always nullable."""
        compiler = self.dialect.ddl_compiler(self.dialect, None)  # type: ignore[arg-type]
        column = compiler.get_column_specification(self.table.c[name])
        table = self.dialect.identifier_preparer.format_table(self.table)
        return f"ALTER TABLE {table} ADD COLUMN {column}"

    def compiled(self, statement: sa.ClauseElement) -> Compiled:
        """Return a statement's text and its values."""
        made = statement.compile(dialect=self.dialect, compile_kwargs={"render_postcompile": True})
        names = made.positiontup  # type: ignore[attr-defined]
        return Compiled(str(made), [made.params[name] for name in names or ()])

    # ---- rows ----

    def _rows(self, query: SpanQuery) -> sa.Select[Any]:
        names = query.effective_columns or COLUMN_NAMES
        # Numbered labels: a key of a map may be longer than a name can be.
        columns = [self.read(name).label(f"c{at}") for at, name in enumerate(names)]
        statement = sa.select(*columns).where(*self.conditions(query))
        for order in query.effective_order:
            nullable = order.column not in _REQUIRED
            expression = self.expression(order.column)
            statement = statement.order_by(
                *self.ordered(expression, descending=order.descending, nullable=nullable)
            )
        return statement if query.limit is None else statement.limit(query.limit)

    # ---- groups ----

    def _groups(self, query: SpanQuery) -> sa.Select[Any]:
        keys = [self.expression(name) for name in query.group_by]
        if query.bucket_seconds:
            keys.insert(0, self._bucket(query.bucket_seconds))
        key_labels = [f"k{at}" for at in range(len(keys))]
        inputs = [_Input(a, f"v{at}") for at, a in enumerate(dict.fromkeys(query.aggregates))]
        source = self._grouped_source(query, dict(zip(key_labels, keys, strict=True)), inputs)
        columns = [source.c[label] for label in key_labels]
        values = [self._aggregate(source, one).label(one.label) for one in inputs]
        shown = [self._shown(query, at, column) for at, column in enumerate(columns)]
        statement = sa.select(*shown, *values).select_from(source).group_by(*columns)
        statement = statement.order_by(*self._group_order(query, columns, inputs, values))
        return statement if query.limit is None else statement.limit(query.limit)

    def _grouped_source(
        self, query: SpanQuery, keys: Mapping[str, Expression], inputs: Sequence[_Input]
    ) -> Any:
        """Select the spans, with keys and values under short labels: what is bound is bound once."""
        selected = [expression.label(label) for label, expression in keys.items()]
        selected += [
            self.expression(one.aggregate.column).label(one.label)
            for one in inputs
            if one.aggregate.column
        ]
        origin: Any = self.table
        if any(one.aggregate.function == "error_rate" for one in inputs):
            origin, counted, failed = self._attempts()
            selected += [counted.label("counted"), failed.label("failed")]
        if not selected:
            selected = [self.table.c.span_id.label("one")]
        source = (
            sa.select(*selected).select_from(origin).where(*self.conditions(query)).subquery("s")
        )
        labels = [one.label for one in inputs if one.aggregate.function in _QUANTILES]
        return self.ranked(source, list(keys), labels) if labels else source

    def _attempts(self) -> tuple[Any, Expression, Expression]:
        """Join to each span the greatest attempt of its trace, parent and name.

        Looked for among all spans, not among those that the query selects: whether a failure was
        made good is a fact about the run, so it must not change with the filter.
        """
        c = self.table.c
        retried = (
            sa.select(c.trace_id, c.parent_id, c.name, sa.func.max(c.attempt).label("attempt"))
            .where(c.attempt > 1)
            .group_by(c.trace_id, c.parent_id, c.name)
            .subquery("r")
        )
        same = sa.and_(
            c.trace_id == retried.c.trace_id,
            c.name == retried.c.name,
            c.parent_id.is_not_distinct_from(retried.c.parent_id),
        )
        later = sa.and_(
            retried.c.attempt.is_not(None), retried.c.attempt > sa.func.coalesce(c.attempt, 1)
        )
        is_error = c.outcome == sa.literal("error", sa.Text())
        counted = sa.case((sa.and_(is_error, later), 0), else_=1)
        failed = sa.case((sa.and_(is_error, sa.not_(later)), 1), else_=0)
        return self.table.outerjoin(retried, same), counted, failed

    def _aggregate(self, source: Any, one: _Input) -> Expression:
        function = one.aggregate.function
        if function == "count":
            return sa.func.count()
        if function == "error_rate":
            whole = sa.func.nullif(sa.func.sum(source.c.counted), 0)
            return sa.cast(sa.func.sum(source.c.failed), sa.Double()) / sa.cast(whole, sa.Double())
        if function in _QUANTILES:
            return self.quantile(source, one.label, _QUANTILES[function])
        value = getattr(sa.func, function)(source.c[one.label])  # from a closed list
        if column_type(one.aggregate.column) == "timestamp":
            return self.micros(value)
        return value  # type: ignore[no-any-return]

    def _shown(self, query: SpanQuery, at: int, column: Expression) -> Expression:
        names = (["bucket"] if query.bucket_seconds else []) + list(query.group_by)
        name = names[at]
        is_time = name != "bucket" and column_type(name) == "timestamp"
        return self.micros(column) if is_time else column

    def _group_order(
        self,
        query: SpanQuery,
        keys: Sequence[Expression],
        inputs: Sequence[_Input],
        values: Sequence[Expression],
    ) -> list[Any]:
        names = (["bucket"] if query.bucket_seconds else []) + list(query.group_by)
        by_name = dict(zip(names, keys, strict=True))
        by_name |= {one.aggregate.name: v for one, v in zip(inputs, values, strict=True)}
        order = list(query.effective_order)
        # Ties have one order, always.
        order += [Order(name) for name in names if name not in {o.column for o in order}]
        ordered: list[Any] = []
        for item in order:
            expression = by_name[item.column]
            if isinstance(expression, sa.Label):
                expression = expression.element
            ordered += self.ordered(expression, descending=item.descending, nullable=True)
        return ordered

    def _bucket(self, seconds: float) -> Expression:
        """Round down to a multiple of the width, also before 1970, as microseconds."""
        width = sa.literal(max(1, round(seconds * 1_000_000)), sa.BigInteger())
        start = self.micros(self.table.c.start_time)
        rest = sa.func.mod(sa.func.mod(start, width) + width, width)
        return start - rest

    # ---- conditions ----

    def conditions(self, query: SpanQuery) -> list[Expression]:
        """Return what a span must meet: the filters, the time range, the page's begin."""
        filters = list(query.where)
        if query.since is not None:
            filters.append(Filter("start_time", ">=", query.since))
        if query.until is not None:
            filters.append(Filter("start_time", "<", query.until))
        conditions = [self._condition(item) for item in filters]
        if query.after is not None:
            conditions += self._after(query.effective_order, query.after)
        return conditions

    def expression(self, name: str) -> Expression:
        """Return a column of the schema, or one key of a map."""
        if name in _TYPES:
            return self.table.c[name]
        base, _, key = name.partition(".")
        if _TYPES.get(base) not in ("map", "numbers"):
            raise QueryError(f"unknown column {name!r}", "expected a column of the schema")
        return self.key(base, clean_text(checked(key)))

    def value(self, column: str, value: Any) -> Expression:
        """Return a bound value to compare with a column."""
        value = checked_value(column, value)
        kind = column_type(column)
        if kind == "timestamp":
            return self.moment(value)
        if isinstance(value, str):
            return sa.literal(clean_text(value), sa.Text())
        return sa.literal(value, _BOUND[kind])

    def _condition(self, item: Filter) -> Expression:
        if item.op == "in" and not item.value:
            return sa.false()
        column = self.expression(item.column)
        if item.op == "is null":
            return column.is_(None)
        if item.op == "is not null" or (item.op == "not in" and not item.value):
            return column.is_not(None)
        if item.op in ("in", "not in"):
            found = self.any_of(column, [self.value(item.column, v) for v in item.value])
            return found if item.op == "in" else sa.not_(found)
        if item.op == "contains":
            text = sa.literal(clean_text(checked(item.value)), sa.Text())
            is_list = _TYPES.get(item.column) == "list"
            return self.has(column, text) if is_list else self.contains(column, text)
        if item.op == "starts with":
            return self.starts_with(column, clean_text(checked(item.value)))
        return _compared(column, item.op, self.value(item.column, item.value))

    def _after(self, order: Sequence[Order], after: Sequence[Any]) -> list[Expression]:
        """Return the conditions for rows behind a key, where nulls come last in both directions."""
        alternatives: list[Expression] = []
        equal: list[Expression] = []
        for key, value in zip(order, after, strict=True):
            column = self.expression(key.column)
            if value is None:
                equal.append(column.is_(None))  # nothing comes behind a null
                continue
            bound = self.value(key.column, value)
            behind = _compared(column, "<" if key.descending else ">", bound)
            if key.column not in _REQUIRED:
                behind = sa.or_(behind, column.is_(None))
            alternatives.append(sa.and_(*equal, behind))
            equal.append(_compared(column, "=", bound))
        conditions = [sa.or_(*alternatives) if alternatives else sa.false()]
        if after[0] is not None and order[0].column in _REQUIRED:
            # Implied by the rest, but in a shape for which an index can be used.
            sign = "<=" if order[0].descending else ">="
            conditions.append(self._condition(Filter(order[0].column, sign, after[0])))
        return conditions


def _compared(column: Expression, op: str, value: Expression) -> Expression:
    """Compare by an operator of a closed list; anything else is refused."""
    if op == "=":
        return column == value
    if op == "!=":
        return column != value
    if op == "<":
        return column < value
    if op == "<=":
        return column <= value
    if op == ">":
        return column > value
    if op == ">=":
        return column >= value
    raise QueryError(f"unknown operator {op!r}", "expected one that the description lists")
