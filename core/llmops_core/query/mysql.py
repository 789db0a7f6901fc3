"""Compile a query description for MySQL and MariaDB. Every value is bound; every name is quoted.

Texts have a binary collation without padding, so they compare by code points, with case, and with
their trailing blanks. Times are whole microseconds (``BIGINT``): a ``DATETIME`` begins with the year
1000. Maps and lists are JSON text. There is no function for quantiles, so values are ranked first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects.mysql.asyncmy import MySQLDialect_asyncmy
from sqlalchemy.schema import CreateIndex

from llmops_core.query.description import SpanQuery
from llmops_core.query.relational import Compiled, Expression, RelationalCompiler
from llmops_core.schema import COLUMNS, ColumnType

__all__ = ["COLLATIONS", "MySQLCompiler", "spans_table"]

#: By code points, without padding; each of the two servers has its own name for it.
COLLATIONS: Final = {"mariadb": "utf8mb4_nopad_bin", "mysql": "utf8mb4_0900_bin"}
#: Ids that are keys. Theirs have 16 and 32 digits; a longer one than this is refused.
_ID_LENGTH: Final = 255
_KEYS: Final = ("span_id", "trace_id")
_PREFIX: Final = {"session_id": 191}
#: What one statement deletes at most, so that others need not wait for long.
DELETED_AT_ONCE: Final = 10_000


def spans_table(name: str, schema: str, collation: str) -> sa.Table:
    """Return the table of spans, in order of time, and its indexes: by id, by trace, by session."""
    long = mysql.LONGTEXT(collation=collation)
    types: Mapping[ColumnType, sa.types.TypeEngine[Any]] = {
        "text": long,
        "enum": long,
        "int": sa.BigInteger(),
        "float": mysql.DOUBLE(),
        "bool": mysql.TINYINT(1),
        "timestamp": sa.BigInteger(),
        "list": long,
        "map": long,
        "numbers": long,
    }
    key = mysql.VARCHAR(_ID_LENGTH, collation=collation)
    columns = [
        sa.Column(c.name, key if c.name in _KEYS else types[c.type], nullable=c.nullable)
        for c in COLUMNS
    ]
    table = sa.Table(
        name,
        sa.MetaData(),
        *columns,
        sa.PrimaryKeyConstraint("start_time", "span_id"),
        sa.UniqueConstraint("span_id", name="span"),
        schema=schema,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_row_format="DYNAMIC",
    )
    sa.Index("trace", table.c.trace_id, table.c.start_time)
    sa.Index("session", table.c.session_id, table.c.start_time, mysql_length=_PREFIX)
    return table


class _Dialect(MySQLDialect_asyncmy):
    """What the oldest servers that are supported can do."""

    server_version_info = (8, 0, 17)
    _support_float_cast = True
    supports_statement_cache = True


class MySQLCompiler(RelationalCompiler):
    """MySQL 8.0.17 and MariaDB 10.5, and later, through asyncmy."""

    dialect = _Dialect()

    def __init__(self, table: sa.Table, collation: str) -> None:
        super().__init__(table)
        self.collation = collation

    def key(self, base: str, key: str) -> Expression:
        """Return one key of a map; the path to it is a bound value, its name in it JSON."""
        path = sa.literal("$." + msgspec.json.encode(key).decode(), sa.Text())
        found = sa.func.json_unquote(sa.func.json_extract(self.table.c[base], path))
        return (
            found.collate(self.collation) if base == "attributes" else sa.cast(found, sa.Double())
        )

    def moment(self, micros: int) -> Expression:
        """Bind microseconds."""
        return sa.literal(micros, sa.BigInteger())

    def micros(self, time: Expression) -> Expression:
        """Return the column itself."""
        return time

    def contains(self, text: Expression, part: Expression) -> Expression:
        """Look for the part's position: no pattern, so nothing has to be escaped."""
        return sa.func.locate(part, text) > 0

    def starts_with(self, text: Expression, part: str) -> Expression:
        """Compare as many characters as the part has."""
        return sa.func.left(text, sa.literal(len(part), sa.Integer())) == sa.literal(
            part, sa.Text()
        )

    def has(self, values: Expression, text: Expression) -> Expression:
        """Look for the text in a JSON list, as JSON."""
        value = text.value if isinstance(text, sa.BindParameter) else ""
        encoded = msgspec.json.encode(value).decode()
        return sa.func.json_contains(values, sa.literal(encoded, sa.Text())) == 1

    def any_of(self, column: Expression, values: Sequence[Expression]) -> Expression:
        """Compare with each of a list that is one parameter until the end: ten times as fast to compile."""
        plain = [value.value for value in values if isinstance(value, sa.BindParameter)]
        kind = values[0].type
        return column.in_(sa.bindparam(None, plain, type_=kind, expanding=True, unique=True))

    def ordered(self, expression: Expression, *, descending: bool, nullable: bool) -> list[Any]:
        """Order nulls last; not said where there are none, so that an index can serve."""
        order = expression.desc() if descending else expression.asc()
        return [expression.is_(None), order] if nullable else [order]

    def ranked(self, source: sa.Subquery, keys: Sequence[str], labels: Sequence[str]) -> Any:
        """Rank each column's values within its group, nulls last, and count them."""
        partition = [source.c[key] for key in keys]
        selected: list[Any] = list(source.c)
        for label in labels:
            value = source.c[label]
            order = [value.is_(None), value]
            rank = sa.func.row_number().over(partition_by=partition or None, order_by=order)
            count = sa.func.count(value).over(partition_by=partition or None)
            selected += [rank.label(f"{label}_rank"), count.label(f"{label}_count")]
        return sa.select(*selected).subquery("q")

    def quantile(self, source: sa.FromClause, label: str, fraction: float) -> Expression:
        """Interpolate between the two values around the place, counted from 0."""
        value: Expression = sa.cast(source.c[label], sa.Double())
        rank: Expression = source.c[f"{label}_rank"] - 1
        last: Expression = source.c[f"{label}_count"] - 1
        place = last * sa.literal(fraction, sa.Double())
        lower = sa.func.floor(place)
        upper = sa.func.least(lower + 1, last)
        below = sa.func.max(sa.case((rank == lower, value)))
        above = sa.func.max(sa.case((rank == upper, value)))
        return below + (above - below) * sa.func.max(place - lower)

    def _aggregate(self, source: Any, one: Any) -> Expression:
        if one.aggregate.function == "avg":  # of whole numbers it would be a rounded decimal
            return sa.func.avg(sa.cast(source.c[one.label], sa.Double()))
        return super()._aggregate(source, one)

    # ---- definitions and changes ----

    def create_index(self, index: sa.Index) -> str:
        """Compile an index's definition. MySQL has no ``IF NOT EXISTS`` for it."""
        return str(CreateIndex(index).compile(dialect=self.dialect))

    def existing_columns(self) -> Compiled:
        """Compile the search for the names of the table's columns; none where there is no table."""
        return self._existing("columns", "column_name")

    def existing_indexes(self) -> Compiled:
        """Compile the search for the names of the table's indexes."""
        return self._existing("statistics", "index_name")

    def _existing(self, view: str, name: str) -> Compiled:
        names = (name, "table_schema", "table_name")
        where = sa.table(view, *(sa.column(one) for one in names), schema="information_schema")
        found = sa.select(where.c[name]).where(
            where.c.table_schema == self.table.schema, where.c.table_name == self.table.name
        )
        return self.compiled(found.distinct())

    def insert(self, columns: Sequence[str]) -> str:
        """Compile the insertion of rows of these columns; a span id that is there stays as it is."""
        return self._insert(columns, ("span_id",), old=True)

    def upsert(self, columns: Sequence[str]) -> str:
        """Compile the insertion of rows that take the place of those with the same span ids."""
        changed = [name for name in columns if name not in ("span_id", "start_time")]
        return self._insert(columns, changed, old=False)

    def _insert(self, columns: Sequence[str], changed: Sequence[str], *, old: bool) -> str:
        made = mysql.insert(self.table).values({name: sa.bindparam(name) for name in columns})
        source = self.table.c if old else made.inserted
        return self.compiled(
            made.on_duplicate_key_update({name: source[name] for name in changed})
        ).sql

    def present(self, span_ids: Sequence[str]) -> Compiled:
        """Compile the search for those of some span ids that are stored, and lock them."""
        c = self.table.c
        return self.compiled(sa.select(c.span_id).where(c.span_id.in_(span_ids)).with_for_update())

    def delete(self, query: SpanQuery) -> Compiled:
        """Compile the deletion of some of what a selection selects."""
        statement = sa.delete(self.table).where(*self.conditions(query))
        return self.compiled(statement.with_dialect_options(mysql_limit=DELETED_AT_ONCE))
