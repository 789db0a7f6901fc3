"""Compile a query description for PostgreSQL. Every value is bound; every name is quoted.

Texts compare by code points (collation ``C``), maps are ``jsonb``, lists ``text[]``, times
``timestamptz``, which holds microseconds exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from llmops_core.query.relational import Expression, RelationalCompiler, make_table
from llmops_core.schema import ColumnType

__all__ = ["EPOCH_MICROS", "PostgresCompiler", "spans_table"]

#: 2000-01-01 in microseconds: where PostgreSQL counts its times from.
EPOCH_MICROS: Final = 946_684_800_000_000

_TEXT: Final = sa.Text(collation="C")
_TYPES: Final[Mapping[ColumnType, sa.types.TypeEngine[Any]]] = {
    "text": _TEXT,
    "enum": _TEXT,
    "int": sa.BigInteger(),
    "float": sa.Double(),
    "bool": sa.Boolean(),
    "timestamp": sa.TIMESTAMP(timezone=True),
    "list": postgresql.ARRAY(sa.Text()),
    "map": postgresql.JSONB(),
    "numbers": postgresql.JSONB(),
}


def spans_table(name: str, schema: str | None) -> sa.Table:
    """Return the table of spans with its indexes: by trace, by time, by session."""
    table = make_table(name, schema, _TYPES)
    c = table.c
    sa.Index(f"{name[:50]}_trace", c.trace_id, c.start_time)
    sa.Index(f"{name[:50]}_time", c.start_time, c.span_id)
    sa.Index(
        f"{name[:50]}_session",
        c.session_id,
        c.start_time,
        postgresql_where=c.session_id.is_not(None),
    )
    return table


class PostgresCompiler(RelationalCompiler):
    """PostgreSQL 11 and later, through asyncpg: numbered parameters, each with its type."""

    dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]

    def key(self, base: str, key: str) -> Expression:
        """Return one key of a ``jsonb`` column."""
        found = self.table.c[base].op("->>")(sa.literal(key, sa.Text()))
        if base == "attributes":
            return sa.cast(found, sa.Text()).collate("C")
        return sa.cast(sa.cast(found, sa.Text()), sa.Double())

    def moment(self, micros: int) -> Expression:
        """Bind microseconds; the connection's codec takes them as one number since 2000."""
        return sa.literal((micros - EPOCH_MICROS,), _Moment())

    def micros(self, time: Expression) -> Expression:
        """Return whole microseconds. Before version 14 ``extract`` gives a double, hence the rounding."""
        seconds = sa.extract("epoch", time)
        return sa.cast(sa.func.round(seconds * 1_000_000), sa.BigInteger())

    def read(self, name: str) -> Expression:
        """Return the column itself: the connection's codec gives a time as microseconds."""
        return self.expression(name)

    def contains(self, text: Expression, part: Expression) -> Expression:
        """Look for the part's position: no pattern, so nothing has to be escaped."""
        return sa.func.strpos(text, part) > 0

    def starts_with(self, text: Expression, part: str) -> Expression:
        """Compare with the part."""
        return sa.func.starts_with(text, sa.literal(part, sa.Text()))

    def has(self, values: Expression, text: Expression) -> Expression:
        """Compare with any of the list."""
        return text == sa.any_(values)

    def ordered(self, expression: Expression, *, descending: bool, nullable: bool) -> list[Any]:
        """Order nulls last; not said where there are none, so that an index can serve."""
        order = expression.desc() if descending else expression.asc()
        return [order.nulls_last() if nullable else order]

    def quantile(self, source: sa.FromClause, label: str, fraction: float) -> Expression:
        """Interpolate as the others do, with the dialect's own function."""
        value: Expression = sa.cast(source.c[label], sa.Double())
        at: Expression = sa.literal(fraction, sa.Double())
        return sa.func.percentile_cont(at).within_group(value.asc())

    def any_of(self, column: Expression, values: Sequence[Expression]) -> Expression:
        """Whether a column is one of the values."""
        return column.in_(values)


class _Moment(sa.types.TypeDecorator[Any]):
    """A time as the connection's codec takes it: a tuple with one number."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value
