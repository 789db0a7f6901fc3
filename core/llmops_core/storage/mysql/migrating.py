"""Make the table and its indexes, and add the columns that an older version's table lacks.

Several processes may do so at once: a named lock of the server lets one at a time, and what is there
is left as it is. Columns are only ever added, and are nullable, so an older version goes on writing.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from llmops_core.errors import RetryableError, StorageError
from llmops_core.query.mysql import MySQLCompiler
from llmops_core.query.relational import Compiled
from llmops_core.schema import COLUMN_NAMES

__all__ = ["check_readable", "migrate"]

_LOCK_SECONDS: Final = 60


async def migrate(connection: Any, compiler: MySQLCompiler) -> None:
    """Make what is missing. Does not ask for a lock where nothing is."""
    if not await _missing(connection, compiler):
        return
    async with connection.cursor() as cursor:
        name = _lock_name(compiler)
        await cursor.execute("SELECT GET_LOCK(%s, %s)", (name, _LOCK_SECONDS))
        if (await cursor.fetchone())[0] != 1:
            raise RetryableError(
                "another process has been changing the table for a minute", "expected it to end"
            )
        try:
            # Asked again: another process may have made it meanwhile.
            for statement in await _missing(connection, compiler):
                await cursor.execute(statement)
        finally:
            await cursor.execute("SELECT RELEASE_LOCK(%s)", (name,))


async def check_readable(connection: Any, compiler: MySQLCompiler) -> None:
    """Raise ``StorageError`` where there is no table, or one of an older version."""
    columns = await _names(connection, compiler.existing_columns())
    if not columns:
        raise StorageError(
            f"there is no table {compiler.table.name!r} in the database",
            "expected one that a monitor has written",
            "check the URL",
        )
    lacking = [name for name in COLUMN_NAMES if name not in columns]
    if lacking:
        raise StorageError(
            f"the table {compiler.table.name!r} has no column {lacking[0]!r}",
            "expected one of this version",
            "open it with a monitor once: it adds what is missing",
        )


async def _missing(connection: Any, compiler: MySQLCompiler) -> list[str]:
    """Return the statements that make what is missing, in order."""
    table = compiler.table
    columns = await _names(connection, compiler.existing_columns())
    statements = [] if columns else [compiler.create_table()]
    if columns:
        statements = [compiler.add_column(name) for name in COLUMN_NAMES if name not in columns]
    indexes = await _names(connection, compiler.existing_indexes())
    missing = [index for index in table.indexes if index.name not in indexes]
    return statements + [
        compiler.create_index(i) for i in sorted(missing, key=lambda i: str(i.name))
    ]


async def _names(connection: Any, asked: Compiled) -> set[str]:
    async with connection.cursor() as cursor:
        await cursor.execute(asked.sql, asked.values)
        return {row[0] for row in await cursor.fetchall()}


def _lock_name(compiler: MySQLCompiler) -> str:
    """Return a name of at most 64 characters: locks are the whole server's."""
    full = f"{compiler.table.schema}.{compiler.table.name}"
    return "llmops:" + hashlib.sha256(full.encode()).hexdigest()[:32]
