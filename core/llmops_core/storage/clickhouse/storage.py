"""Keep spans in ClickHouse: ``clickhouse://user:password@host:8123/database``.

One table, sorted by time and cut into months. A query reads it as it is: what makes a span appear
once is done when it is written (see :mod:`llmops_core.storage.clickhouse.inserting`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from llmops_core.errors import LLMOpsError, MissingDependency, PermanentError, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.hookspecs import hookimpl
from llmops_core.query import SpanQuery, check_selection
from llmops_core.query.clickhouse import Statement, compile_query, condition
from llmops_core.storable import storable
from llmops_core.storage.clickhouse.address import Address
from llmops_core.storage.clickhouse.errors import failed_query, failed_setup, failed_write
from llmops_core.storage.clickhouse.inserting import Insert, encode, inserts, prepared
from llmops_core.storage.clickhouse.replacing import Replacement
from llmops_core.storage.clickhouse.table import (
    COLUMN_TYPES,
    add_columns,
    create,
    local_table,
    quoted,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.asyncclient import AsyncClient

    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry

__all__ = ["ClickHouseStorage"]

CONNECT_SECONDS: Final = 5.0
QUERY_SECONDS: Final = 60
#: A server that stands still is noticed after so long; one that is only slow is given more each time.
FIRST_WRITE_SECONDS: Final = 10.0
LAST_WRITE_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 2.0
_READ: Final = {
    "max_execution_time": QUERY_SECONDS,
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "cancel_http_readonly_queries_on_client_close": 1,
}
#: An insert is one block, stored when the server answers.
_WRITE: Final = {
    "async_insert": 0,
    "insert_deduplicate": 1,
    "max_insert_threads": 1,
    "max_partitions_per_insert_block": 0,  # spans of any years; a batch must not be refused for it
}
_SPREAD_WRITE: Final = {"insert_distributed_sync": 1}
_CHANGE: Final = {"mutations_sync": 2}

_parents: Final[list[object]] = []


class ClickHouseStorage:
    """Spans in one table of a ClickHouse server, or of a cluster. ``read_only`` is set by a reader.

    ``close`` ends what ``open`` began. A forked child makes a connection of its own.
    """

    batch_spans = 5_000
    batch_seconds = 2.0

    def __init__(self, address: Address, *, read_only: bool = False) -> None:
        self.address = address
        self.read_only = read_only
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._missing: frozenset[str] = frozenset()
        self._epoch = ""
        self._write_seconds = FIRST_WRITE_SECONDS
        renew_after_fork(self)

    @classmethod
    def of_url(cls, url: str) -> ClickHouseStorage:
        """Return the storage of a URL. Raises ``ConfigError`` if it cannot be used."""
        return cls(Address(url))

    def __repr__(self) -> str:
        return f"<ClickHouseStorage {self.address.place}>"

    def after_fork(self) -> None:
        """Forget the parent's connections, in a forked child: both would read the same answers."""
        if self._client is not None:
            _parents.append(self._client)  # kept, as to collect it would close what the parent uses
        self._client, self._connecting = None, asyncio.Lock()

    async def open(self) -> None:
        """Make the table and the columns that are missing; a reader only looks.

        Raises ``RetryableError`` if the server does not answer, and a ``StorageError`` if the user,
        the database or the table cannot be used.
        """
        try:
            await self._open()
        except BaseException:
            await self.close()  # nobody else will
            raise

    async def _open(self) -> None:
        present = await self._columns()
        if self.read_only:
            if not present:
                raise StorageError(
                    f"there is no table {self.address.place}",
                    "expected one that a monitor has written",
                    "check the database and the table of the storage URL",
                )
            self._missing = frozenset(COLUMN_TYPES) - present.keys()
            return
        statements = add_columns(self.address, present) if present else create(self.address)
        for statement in statements:
            await self._command(statement)
        self._check_types(await self._columns())
        self._epoch = await self._last_change()

    async def write(self, batch: SpanBatch) -> None:
        """Insert the spans that are not there yet. May be cancelled; may be called again.

        Raises ``PermanentError`` if a value can never be stored, else ``RetryableError``.
        """
        if self.read_only:
            raise StorageError("the storage was opened for reading", "expected a monitor to write")
        if not len(batch):
            return
        try:
            found = list(inserts(storable(batch), self._epoch))
        except LLMOpsError:
            raise
        except (
            ValueError,
            TypeError,
            ArithmeticError,
        ) as error:  # pyarrow's errors are ValueErrors
            raise PermanentError(f"a value has no form in Arrow ({type(error).__name__})") from None
        done = 0
        for insert in found:
            try:
                await self._insert(insert)
            except PermanentError as error:
                if error.place is not None:
                    error.place += done
                raise
            done += insert.rows.num_rows

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer a query on the server. Cancelling it stops it there, too."""
        statement = Statement(
            quoted(self.address), self._missing, spread=self.address.cluster is not None
        )
        compile_query(query, statement)
        return statement.shape(await self._read(statement.sql, statement.values), query)

    async def delete(self, query: SpanQuery) -> int:
        """Delete the spans that a query selects, for good; return how many there were.

        Waits until the server has rewritten the parts that held them. The files that it replaced
        are removed by the server some minutes later.
        """
        statement = Statement(quoted(self.address), self._missing)
        where = condition(statement, check_selection(query))
        counted = await self._read(
            f"SELECT toInt64(count()) AS c0 FROM {statement.source} WHERE {where}",  # noqa: S608
            statement.values,
        )
        count = int(counted["c0"][0].as_py())
        if count:
            await self._change(f"DELETE WHERE {where}", statement.values)
            self._epoch = await self._last_change()
        return count

    async def replace(self, batch: SpanBatch) -> int:
        """Rewrite stored spans as they are in *batch*; return how many there were.

        Only the columns that differ are rewritten, in one mutation, so a query sees a span as it
        was or as it will be. Not in a cluster, whose servers would each need the new values.
        """
        if self.address.cluster:
            raise StorageError(
                "spans of a ClickHouse cluster cannot be rewritten",
                "expected one server",
                "delete them and copy them again",
            )
        if not len(batch):
            return 0
        rows = prepared(storable(batch))
        work = Replacement(self.address, rows)
        await self._command(work.create)
        await self._send(work.fill, encode(rows), _WRITE)
        stored = await self._read(work.stored, {})
        columns = work.changed(stored)
        if columns:
            # Not dropped if this gives no answer: the server may go on with it, and needs it then.
            await self._change(work.update(columns), {})
        await self._command(work.drop)
        return int(stored.num_rows)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # ---- connection ----

    async def _connected(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                self._client = await self._connect()
            return self._client

    async def _connect(self) -> AsyncClient:
        try:
            import clickhouse_connect
        except ImportError:
            raise MissingDependency(
                "ClickHouse needs a package that is not installed",
                do="pip install 'llmops-integrations[clickhouse]'",
            ) from None
        to = self.address
        try:
            async with asyncio.timeout(2 * CONNECT_SECONDS):
                return await clickhouse_connect.get_async_client(
                    host=to.host,
                    port=to.port,
                    username=to.user,
                    password=to.password.reveal(),
                    database=to.database,
                    interface="https" if to.secure else "http",
                    verify=to.verify,
                    ca_cert=to.ca_cert,
                    connect_timeout=CONNECT_SECONDS,
                    send_receive_timeout=QUERY_SECONDS + 10,
                    connector_limit=to.pool_size,
                    connector_limit_per_host=to.pool_size,
                    autogenerate_session_id=False,  # a session takes one query at a time
                    query_retries=0,
                    # Their text may hold values: a row's number is read in it, none of it is
                    # repeated. Without it the driver logs each failed request with a traceback.
                    show_clickhouse_errors=True,
                )
        except Exception as error:
            raise failed_setup(error, to.place) from None

    async def _columns(self) -> dict[str, str]:
        """Return the columns that the table has and their types; none if it is not there."""
        found = await self._read(
            "SELECT name AS c0, type AS c1 FROM system.columns"
            " WHERE database = {d:String} AND table = {t:String}",
            {"d": self.address.database, "t": local_table(self.address)},
        )
        return dict(zip(found["c0"].to_pylist(), found["c1"].to_pylist(), strict=True))

    def _check_types(self, present: Mapping[str, str]) -> None:
        for name, kind in COLUMN_TYPES.items():
            if present.get(name, "").replace(" ", "") != kind.replace(" ", ""):
                raise StorageError(
                    f"column {name!r} of {self.address.place} has the type {present.get(name)}",
                    f"expected {kind}",
                    "choose another table with ?table=",
                )

    async def _last_change(self) -> str:
        """Return a text that is another one once spans were deleted: tokens must not outlive them."""
        try:
            found = await self._read(
                # The number too: times are whole seconds, and finished mutations are forgotten.
                "SELECT concat(toString(max(create_time)), ' ', toString(max(toUInt64OrZero("
                "extract(mutation_id, '[0-9]+'))))) AS c0 FROM system.mutations"
                " WHERE database = {d:String} AND table = {t:String}",
                {"d": self.address.database, "t": local_table(self.address)},
            )
        except StorageError:
            return ""  # the user may not see them
        return str(found["c0"][0].as_py())

    # ---- requests ----

    async def _read(self, sql: str, values: Mapping[str, Any]) -> pa.Table:
        import pyarrow as pa

        client = await self._connected()
        try:
            async with asyncio.timeout(QUERY_SECONDS + 10):
                answer = await client.raw_query(sql, dict(values), dict(_READ), fmt="ArrowStream")
        except Exception as error:
            raise failed_query(error, self.address.place) from None
        return await asyncio.to_thread(lambda: pa.ipc.open_stream(answer).read_all())

    async def _insert(self, insert: Insert) -> None:
        spread = self.address.cluster is not None
        settings = {**_WRITE, "insert_deduplication_token": insert.token}
        if spread:
            settings |= _SPREAD_WRITE
        sql = insert.statement(quoted(self.address), spread=spread)
        await self._send(sql, encode(insert.rows), settings)

    async def _send(self, sql: str, rows: bytes, settings: Mapping[str, Any]) -> None:
        client = await self._connected()
        try:
            async with asyncio.timeout(self._write_seconds):
                await client.raw_insert(insert_block=sql.encode() + rows, settings=dict(settings))
        except TimeoutError as error:
            if await self._answers():
                self._write_seconds = min(2 * self._write_seconds, LAST_WRITE_SECONDS)
            raise failed_write(error, self.address.place) from None
        except Exception as error:
            raise failed_write(error, self.address.place) from None
        self._write_seconds = FIRST_WRITE_SECONDS

    async def _answers(self) -> bool:
        """Whether the server is there, and only slow. To wait longer for one that is not is in vain."""
        client = await self._connected()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await client.raw_query("SELECT 1")
        except Exception:  # the driver's, of many kinds, or no answer
            return False
        return True

    async def _command(self, sql: str, values: Mapping[str, Any] | None = None) -> None:
        client = await self._connected()
        try:
            await client.raw_query(sql, dict(values or {}), dict(_CHANGE))
        except Exception as error:
            raise failed_setup(error, self.address.place) from None

    async def _change(self, change: str, values: Mapping[str, Any]) -> None:
        cluster = f" ON CLUSTER `{self.address.cluster}`" if self.address.cluster else ""
        table = quoted(self.address, local_table(self.address))
        await self._command(f"ALTER TABLE {table}{cluster} {change}", values)


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the storage, by plain HTTP and by HTTPS."""
    registry.storage("clickhouse", ClickHouseStorage.of_url)
    registry.storage("clickhouses", ClickHouseStorage.of_url)
