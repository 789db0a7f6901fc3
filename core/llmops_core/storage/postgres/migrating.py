"""Makes the table, and adds what an older one lacks. Several processes may do so at once.

Columns are only ever added, and are nullable: writers and readers of older versions go on. Where
nothing is missing nothing is defined, so a user who may only read and write is enough then.
"""

from __future__ import annotations

import asyncpg

from llmops_core.errors import StorageError
from llmops_core.query.postgres import PostgresCompiler
from llmops_core.schema import COLUMNS

__all__ = ["check_readable", "check_server", "migrate"]

_REQUIRED = frozenset(c.name for c in COLUMNS if not c.nullable)


async def check_server(connection: asyncpg.Connection) -> bool:
    """Raise unless the server's texts are Unicode; return whether the user is a superuser."""
    row = await connection.fetchrow(
        "SELECT current_setting('server_encoding') AS encoding,"
        " current_setting('is_superuser') = 'on' AS superuser"
    )
    if row["encoding"] != "UTF8":
        raise StorageError(
            f"a database whose encoding is {row['encoding']}",
            "expected UTF8",
            "create one with ENCODING 'UTF8' TEMPLATE template0",
        )
    return bool(row["superuser"])


async def migrate(connection: asyncpg.Connection, compiler: PostgresCompiler) -> None:
    """Make the schema, the table and its indexes where they are missing, or columns of it."""
    found = await _columns(connection, compiler)
    if found is not None and not _missing(found, compiler):
        return
    async with connection.transaction():
        # Whoever comes second finds it done. Not for longer than a moment: a lock that waits for
        # a long query holds up all that come after it.
        await connection.execute(compiler.lock_timeout())
        await connection.execute(*_with_values(compiler.advisory_lock()))
        found = await _columns(connection, compiler)
        if found is None:
            for statement in compiler.definitions():
                await connection.execute(statement)
            if await connection.fetchval(compiler.has_lz4()):
                for statement in compiler.compressions():
                    await connection.execute(statement)
            return
        for name in _missing(found, compiler):
            await connection.execute(compiler.add_column(name))


async def check_readable(connection: asyncpg.Connection, compiler: PostgresCompiler) -> None:
    """Raise unless there is a table with every column."""
    found = await _columns(connection, compiler)
    if found is None:
        raise StorageError(
            f"there is no table {compiler.table.fullname!r}",
            "expected one that a monitor has made",
            "check the database, schema= and table= in the storage URL",
        )
    missing = _missing(found, compiler)
    if missing:
        raise StorageError(
            f"table {compiler.table.fullname!r} lacks {missing[0]!r}",
            "expected every column of this version",
            "start a monitor once, or run `llmops recover`: either adds it",
        )


async def _columns(
    connection: asyncpg.Connection, compiler: PostgresCompiler
) -> frozenset[str] | None:
    """Return the names of the table's columns; None if there is no table."""
    rows = await connection.fetch(*_with_values(compiler.columns()))
    return frozenset(row[0] for row in rows) or None


def _missing(found: frozenset[str], compiler: PostgresCompiler) -> list[str]:
    missing = [c.name for c in COLUMNS if c.name not in found]
    strange = [name for name in missing if name in _REQUIRED]
    if strange:
        raise StorageError(
            f"table {compiler.table.fullname!r} has no column {strange[0]!r}",
            "expected a table of spans",
            "name another by table= in the storage URL",
        )
    return missing


def _with_values(statement: tuple[str, list[object]]) -> tuple[object, ...]:
    sql, values = statement
    return (sql, *values)
