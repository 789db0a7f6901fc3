"""Compile a query description for PostgreSQL. Every value is bound; every name is quoted.

Texts compare by code points (collation ``C``), maps are ``jsonb``, lists ``text[]``, times
``timestamptz``, which holds microseconds exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.schema import CreateSchema

from llmops_core.query.description import SpanQuery
from llmops_core.query.relational import Compiled, Expression, RelationalCompiler, make_table
from llmops_core.schema import COLUMN_NAMES, ColumnType

__all__ = ["PostgresCompiler", "spans_table"]

#: An entry of an index holds 2,700 bytes at most; a session's name may be longer.
_INDEXED: Final = 128
#: Where long texts are.
_LONG: Final = ("input", "output", "error_message", "attributes", "measurements")
_STAGED: Final = "llmops_staged"

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
        sa.func.left(c.session_id, sa.literal_column(str(_INDEXED))),
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
        """Bind microseconds, which the connection's codec takes."""
        return sa.literal(micros, _Moment())

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

    def conditions(self, query: SpanQuery) -> list[Expression]:
        """Say of a session what its index knows, too: the first characters of its name."""
        known = super().conditions(query)
        start = sa.func.left(self.table.c.session_id, sa.literal_column(str(_INDEXED)))
        for item in query.where:
            if item.column == "session_id" and item.op in ("=", "in") and item.value:
                values = [item.value] if item.op == "=" else list(item.value)
                found = [self.value("session_id", value[:_INDEXED]) for value in values]
                known.append(start.in_(found))
        return known

    # ---- definitions and edits ----

    @property
    def staged(self) -> sa.Table:
        """A table of one transaction, with the same columns."""
        return make_table(_STAGED, None, _TYPES)

    def columns(self) -> Compiled:
        """Compile the question which columns the table has; none if it does not exist."""
        oid = sa.func.to_regclass(sa.literal(self._name, sa.Text()))
        attribute = sa.table(
            "pg_attribute",
            sa.column("attname"),
            sa.column("attrelid"),
            sa.column("attnum"),
            sa.column("attisdropped"),
            schema="pg_catalog",
        )
        named = sa.cast(attribute.c.attname, sa.Text()).label("name")
        return self.compiled(
            sa.select(named).where(
                attribute.c.attrelid == sa.cast(oid, postgresql.OID()),
                attribute.c.attnum > 0,
                sa.not_(attribute.c.attisdropped),
            )
        )

    def advisory_lock(self) -> Compiled:
        """Compile the wait for the lock of whoever defines this table, held by the transaction."""
        number = int.from_bytes(hashlib.sha256(self._name.encode()).digest()[:8], signed=True)
        key = sa.literal(number, sa.BigInteger())
        return self.compiled(sa.select(sa.func.pg_advisory_xact_lock(key)))

    def lock_timeout(self) -> str:
        """Return the statement that bounds how long a definition waits for others."""
        return "SET LOCAL lock_timeout = '2s'"

    def definitions(self) -> list[str]:
        """Compile what makes the schema, the table and its indexes."""
        made = []
        if self.table.schema is not None:
            create = CreateSchema(self.table.schema, if_not_exists=True)
            made.append(str(create.compile(dialect=self.dialect)))
        indexes = sorted(self.table.indexes, key=lambda index: str(index.name))
        return [*made, self.create_table(), *map(self.create_index, indexes)]

    def has_lz4(self) -> str:
        """Return the question whether the server compresses with lz4: faster, and no larger."""
        return (
            "SELECT 'lz4' = ANY (enumvals) FROM pg_catalog.pg_settings"
            " WHERE name = 'default_toast_compression'"
        )

    def compressions(self) -> list[str]:
        """Compile what has the long columns compressed with lz4."""
        preparer = self.dialect.identifier_preparer
        table = preparer.format_table(self.table)
        return [
            f"ALTER TABLE {table} ALTER COLUMN {preparer.quote(name)} SET COMPRESSION lz4"
            for name in _LONG
        ]

    def staging(self) -> list[str]:
        """Compile what makes the table of one transaction."""
        create = sa.schema.CreateTable(_temporary(self.staged))
        return [str(create.compile(dialect=self.dialect))]

    def take_over(self) -> str:
        """Compile the insertion of staged spans whose ids are not there yet."""
        staged = self.staged
        insert = postgresql.insert(self.table).from_select(
            list(COLUMN_NAMES), sa.select(*(staged.c[name] for name in COLUMN_NAMES))
        )
        return self.compiled(insert.on_conflict_do_nothing(index_elements=["span_id"])).sql

    def overwrite(self) -> str:
        """Compile the replacement of stored spans by staged ones."""
        staged = self.staged
        values = {name: staged.c[name] for name in COLUMN_NAMES if name != "span_id"}
        same = self.table.c.span_id == staged.c.span_id
        return self.compiled(sa.update(self.table).values(values).where(same)).sql

    @property
    def _name(self) -> str:
        return str(self.dialect.identifier_preparer.format_table(self.table))


def _temporary(table: sa.Table) -> sa.Table:
    """Return the definition of a table that ends with its transaction."""
    columns = [sa.Column(c.name, c.type) for c in table.columns]
    return sa.Table(
        table.name, sa.MetaData(), *columns, prefixes=["TEMPORARY"], postgresql_on_commit="DROP"
    )


class _Moment(sa.types.TypeDecorator[Any]):
    """A time as the connection's codec takes it: whole microseconds."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value
