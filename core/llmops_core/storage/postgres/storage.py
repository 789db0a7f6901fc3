"""Keep spans in a table of PostgreSQL, through asyncpg: ``postgresql://user@host/database``.

A batch is one COPY straight into the table. That fails where a span id is there already, which a
replay after a crash does; then the batch is copied beside the table and what is new is taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from llmops_core.databases.url import DatabaseUrl
from llmops_core.errors import MissingDependency, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.hookspecs import hookimpl
from llmops_core.query import SpanQuery, check_selection
from llmops_core.storable import storable

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.query.postgres import PostgresCompiler
    from llmops_core.storage.postgres.rows import Records

__all__ = ["PostgresStorage", "llmops_register"]

_log: Final = logging.getLogger("llmops")
PORT: Final = 5432
POOL_SIZE: Final = 5
QUERY_SECONDS: Final = 60.0
EDIT_SECONDS: Final = 600.0

#: Pools of a parent process, in its forked child: their sockets are the parent's.
_abandoned: Final[list[object]] = []


class PostgresStorage:
    """One table in a database. Made of a URL, whose options are in ``docs/storages.md``."""

    batch_spans = 1_000
    batch_seconds = 0.5

    def __init__(self, url: str) -> None:
        self.url = DatabaseUrl(url, port=PORT)
        self.read_only = False
        _import_driver()
        self._pool: Any = None
        self._compiler: PostgresCompiler | None = None
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"<PostgresStorage {self.url!r}>"

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent; the child opens its own."""
        if self._pool is not None:
            _abandoned.append(self._pool)  # a destructor would act on what is shared
            self._pool = None

    async def open(self) -> None:
        """Connect, make the table and its indexes or what they lack; the pool is filled later.

        With ``read_only`` it changes nothing and raises ``StorageError`` if there is no table.
        Raises ``RetryableError`` where the server cannot be reached now.
        """
        from llmops_core.query.postgres import PostgresCompiler, spans_table
        from llmops_core.storage.postgres import connecting, migrating
        from llmops_core.storage.postgres.failing import open_failure

        compiler = PostgresCompiler(spans_table(self.url.table, self.url.schema))
        pool = None
        try:
            arguments = connecting.connection_arguments(self.url, read_only=self.read_only)
            pool = await connecting.make_pool(arguments, self.url.pool_size or POOL_SIZE)
            async with connecting.connected(pool) as connection:
                is_superuser = await migrating.check_server(connection)
                if self.read_only:
                    await migrating.check_readable(connection, compiler)
                else:
                    await migrating.migrate(connection, compiler)
        except BaseException as error:
            if pool is not None:
                pool.terminate()
            if isinstance(error, Exception):
                raise open_failure(error, self.url) from None
            raise
        self._pool, self._compiler = pool, compiler
        if is_superuser and not self.read_only:
            _log.warning("%r is used as a superuser; grant a user of its own what it needs", self)

    async def write(self, batch: SpanBatch) -> None:
        """Store the spans whose ids are not there yet, all of the batch or nothing.

        Raises ``PermanentError`` for a value that the server refuses, else ``RetryableError``.
        """
        import asyncpg

        from llmops_core.storage.postgres.connecting import connected
        from llmops_core.storage.postgres.failing import write_failure
        from llmops_core.storage.postgres.rows import records, write_seconds

        batch = storable(batch)
        if not len(batch):
            return
        new = records(batch)
        seconds = write_seconds(batch)
        try:
            async with connected(self._opened()) as connection:
                try:
                    async with asyncio.timeout(seconds):
                        await self._copy(connection, new, self.url.table, self.url.schema)
                except asyncpg.UniqueViolationError:
                    async with asyncio.timeout(seconds), connection.transaction():
                        await self._stage(connection, new)
                        await connection.execute(self._compiled.take_over())
        except Exception as error:
            raise write_failure(error) from None

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer a query with one statement, so over the spans of one moment."""
        from llmops_core.query.answers import answer
        from llmops_core.storage.postgres.connecting import connected
        from llmops_core.storage.postgres.failing import read_failure

        asked = self._compiled.query(query)
        try:
            async with asyncio.timeout(QUERY_SECONDS), connected(self._opened()) as connection:
                rows = await connection.fetch(asked.sql, *asked.values)
            return await asyncio.to_thread(answer, query, rows)
        except Exception as error:
            raise read_failure(error, QUERY_SECONDS) from None

    async def delete(self, query: SpanQuery) -> int:
        """Delete the spans that *query* selects, in one transaction."""
        sql, values = self._compiled.delete(check_selection(query))
        return await self._edit(lambda connection: connection.execute(sql, *values))

    async def replace(self, batch: SpanBatch) -> int:
        """Rewrite stored spans, in one transaction."""
        from llmops_core.storage.postgres.rows import Records, records

        batch = storable(batch)
        if not len(batch):
            return 0
        columns, rows = records(batch)
        by_id = dict(zip(batch.values("span_id"), rows, strict=True))
        new = Records(columns, list(by_id.values()))

        async def rewrite(connection: Any) -> str:
            async with connection.transaction():
                await self._stage(connection, new)
                done: str = await connection.execute(self._compiled.overwrite())
                return done

        return await self._edit(rewrite)

    async def close(self) -> None:
        """Close the connections; one that does not answer is cut."""
        from llmops_core.storage.postgres.connecting import CLOSE_SECONDS

        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except (Exception, asyncio.CancelledError):
            pool.terminate()
            raise

    @property
    def _compiled(self) -> PostgresCompiler:
        if self._compiler is None:
            raise StorageError(f"{self.url!r} is not open", "expected open() to be called before")
        return self._compiler

    def _opened(self) -> Any:
        if self._pool is None:
            raise StorageError(f"{self.url!r} is not open", "expected open() to be called before")
        return self._pool

    async def _edit(self, work: Any) -> int:
        """Run a statement and return how many rows it changed."""
        from llmops_core.storage.postgres.connecting import connected
        from llmops_core.storage.postgres.failing import write_failure

        try:
            async with asyncio.timeout(EDIT_SECONDS), connected(self._opened()) as connection:
                done = await work(connection)
        except Exception as error:
            raise write_failure(error) from None
        return int(done.rpartition(" ")[2])

    async def _stage(self, connection: Any, new: Records) -> None:
        """Copy rows into a table of this transaction's own."""
        for statement in self._compiled.staging():
            await connection.execute(statement)
        await self._copy(connection, new, self._compiled.staged.name, None)

    @staticmethod
    async def _copy(connection: Any, new: Records, table: str, schema: str | None) -> None:
        await connection.copy_records_to_table(
            table, schema_name=schema, columns=new.columns, records=new.rows
        )


def _import_driver() -> None:
    missing = None
    for package in ("asyncpg", "sqlalchemy"):
        with contextlib.suppress(ImportError):
            __import__(package)
            continue
        missing = package
    if missing:
        raise MissingDependency(
            f"{missing} is not installed",
            "expected it for a PostgreSQL storage",
            "pip install 'llmops-integrations[postgres]'",
        )


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the storage under both names that PostgreSQL's own tools take."""
    registry.storage("postgresql", PostgresStorage)
    registry.storage("postgres", PostgresStorage)
