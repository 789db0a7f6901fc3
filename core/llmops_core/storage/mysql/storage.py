"""Keep spans in a table of MySQL or MariaDB, through asyncmy.

The table is in order of time, and a unique key on the span id makes a write idempotent. MariaDB takes
a batch as one bulk statement in binary form; MySQL as statements of many rows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from llmops_core.databases.url import DatabaseUrl
from llmops_core.errors import ConfigError, LLMOpsError, PermanentError, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.hookspecs import hookimpl
from llmops_core.query import SpanQuery, check_selection
from llmops_core.storable import storable

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.query.mysql import MySQLCompiler

__all__ = ["MySQLStorage", "llmops_register"]

_log: Final = logging.getLogger("llmops")
PORT: Final = 3306
POOL_SIZE: Final = 5
#: How long a statement that writes may take before its connection is given up.
WRITE_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 2.0

#: Pools of a parent process, in its forked child: their sockets are the parent's.
_abandoned: Final[list[object]] = []


class MySQLStorage:
    """One table in a database. Made of a URL, whose options are in ``docs/storages.md``."""

    batch_spans = 500
    batch_seconds = 0.5

    def __init__(self, url: str) -> None:
        from llmops_core.storage.mysql.connecting import import_driver

        self.url = DatabaseUrl(url, port=PORT)
        self.read_only = False
        self._database = self.url.schema or self.url.database
        if self._database is None:
            raise ConfigError(
                f"{self.url!r} names no database",
                "expected one behind the host",
                f"write {self.url.scheme}://user:password@host/database",
            )
        import_driver()
        self._pool: Any = None
        self._compiler: MySQLCompiler | None = None
        self._max_packet = 0
        self._kind = ""
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"<MySQLStorage {self.url!r}>"

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent; the child opens its own."""
        if self._pool is not None:
            _abandoned.append(self._pool)  # a destructor would act on what is shared
            self._pool = None

    async def open(self) -> None:
        """Connect, make the table and its indexes or what they lack, and fill the pool later.

        With ``read_only`` it changes nothing and raises ``StorageError`` if there is no table.
        """
        import asyncmy

        from llmops_core.query.mysql import MySQLCompiler, spans_table
        from llmops_core.storage.mysql import connecting, migrating
        from llmops_core.storage.mysql.failing import open_failure

        arguments = connecting.connection_arguments(self.url)
        try:
            async with connecting.connected(arguments) as connection:
                server = await connecting.probe(connection)
                table = spans_table(self.url.table, self._database or "", server.collation)
                self._compiler = MySQLCompiler(table, server.collation)
                if self.read_only:
                    await migrating.check_readable(connection, self._compiler)
                else:
                    await migrating.migrate(connection, self._compiler)
            self._max_packet, self._kind = server.max_packet, server.kind
            size = self.url.pool_size or POOL_SIZE
            command = connecting.SESSIONS[server.kind]
            self._pool = await asyncmy.create_pool(
                minsize=0, maxsize=size, **arguments, init_command=command
            )
        except LLMOpsError:
            raise
        except Exception as error:
            raise open_failure(error) from None
        if server.is_superuser and not self.read_only:
            _log.warning("%r is used as a superuser; grant a user of its own what it needs", self)

    async def write(self, batch: SpanBatch) -> None:
        """Store the spans whose ids are not there yet, all of the batch or nothing.

        Raises ``PermanentError`` for a value that the server refuses, else ``RetryableError``.
        """
        from llmops_core.storage.mysql.failing import write_failure
        from llmops_core.storage.mysql.rows import in_packets, insertable

        batch = storable(batch)
        if not len(batch):
            return
        columns, rows = insertable(batch)
        sql = self._compiled.insert(columns)
        done = 0
        async with self._transaction() as cursor:
            for some in in_packets(rows, self._max_packet):
                try:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await cursor.executemany(sql, some)
                except Exception as error:
                    told = write_failure(error)
                    if isinstance(told, PermanentError) and told.place is not None:
                        told.place += done
                    raise told from None
                done += len(some)

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer a query with one statement, so over the spans of one moment."""
        from llmops_core.query.answers import answer
        from llmops_core.storage.mysql.connecting import STATEMENT_SECONDS
        from llmops_core.storage.mysql.failing import is_lost, read_failure
        from llmops_core.storage.mysql.rows import readable

        asked = self._compiled.query(query)
        for last_try in (False, True):
            try:
                async with asyncio.timeout(STATEMENT_SECONDS), self._cursor() as cursor:
                    await cursor.execute(asked.sql, asked.values)
                    rows = await cursor.fetchall()
                break
            except LLMOpsError:
                raise
            except Exception as error:
                # The pool may hold a connection from before the server was started again.
                if last_try or not is_lost(error):
                    raise read_failure(error, STATEMENT_SECONDS) from None
        return await asyncio.to_thread(answer, query, readable(query, rows))

    async def delete(self, query: SpanQuery) -> int:
        """Delete what the query selects, some thousand spans at a time."""
        from llmops_core.query.mysql import DELETED_AT_ONCE

        asked = self._compiled.delete(check_selection(query))
        deleted = 0
        while True:
            async with self._transaction(patient=True) as cursor:
                await cursor.execute(asked.sql, asked.values)
                count = int(cursor.rowcount)
            deleted += count
            if count < DELETED_AT_ONCE:
                return deleted

    async def replace(self, batch: SpanBatch) -> int:
        """Rewrite the spans of the batch that are stored."""
        from llmops_core.storage.mysql.rows import in_packets, replaceable

        batch = storable(batch)
        if not len(batch):
            return 0
        found = self._compiled.present(list(batch.values("span_id")))
        async with self._transaction(patient=True) as cursor:
            await cursor.execute(found.sql, found.values)
            stored = {row[0] for row in await cursor.fetchall()}
            columns, rows = replaceable(batch, stored)
            sql = self._compiled.upsert(columns)
            for some in in_packets(rows, self._max_packet):
                await cursor.executemany(sql, some)
        return len(stored)

    async def close(self) -> None:
        """Close the connections."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.wait_closed()
        except TimeoutError:
            pool.terminate()

    @property
    def _compiled(self) -> MySQLCompiler:
        if self._compiler is None or self._pool is None:
            raise StorageError(f"{self!r} is not open", "expected an open storage")
        return self._compiler

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[Any]:
        async with self._connection() as connection, connection.cursor() as cursor:
            yield cursor

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Give a connection of the pool. A server that hangs accepts one and then says nothing."""
        from llmops_core.storage.mysql.connecting import CONNECT_SECONDS

        pool = self._pool
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await pool.acquire()
        try:
            yield connection
        finally:
            await pool.release(connection)

    @asynccontextmanager
    async def _transaction(self, *, patient: bool = False) -> AsyncIterator[Any]:
        """Give a cursor whose work counts as a whole; raise what a failed write is told as."""
        from llmops_core.storage.mysql.connecting import CONNECT_SECONDS, PATIENT
        from llmops_core.storage.mysql.failing import write_failure

        try:
            async with self._connection() as connection:
                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        if patient:
                            await connection.query(PATIENT[self._kind])
                        await connection.begin()
                    async with connection.cursor() as cursor:
                        yield cursor
                    async with asyncio.timeout(WRITE_SECONDS):
                        await connection.commit()
                    if patient:
                        connection.close()  # the pool's others are not
                except BaseException as error:
                    if not isinstance(error, PermanentError) or not await _rolled_back(connection):
                        connection.close()  # whatever state it is in, the server rolls back
                    raise
        except LLMOpsError:
            raise
        except Exception as error:
            raise write_failure(error) from None


async def _rolled_back(connection: Any) -> bool:
    """Whether a connection can be used again: a new one costs more than what was refused."""
    from llmops_core.storage.mysql.connecting import CONNECT_SECONDS

    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.rollback()
    except Exception:  # the driver's, or no answer
        return False
    return True


def _make(url: str) -> MySQLStorage:
    return MySQLStorage(url)


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the storage under both names."""
    registry.storage("mysql", _make)
    registry.storage("mariadb", _make)
