"""What a span costs on its way into a database, beside the database's own fastest way.

Each round starts with an empty table of the storage's own, with its indexes, and writes the same
spans in the same batches, by the storage and by COPY, LOAD DATA or a bare ``insert_arrow``. CPU time of
this process and of a server that is started for it, which nobody else uses::

    python benchmarks/ingest.py --database postgresql
"""

from __future__ import annotations

import asyncio
import logging
import random
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import msgspec
import private_servers
from private_servers import Missing, Server

from llmops_core.batch import SpanBatch
from llmops_core.protocols import Storage
from llmops_core.query import SpanQuery
from llmops_core.schema import COLUMNS, Column
from llmops_core.span import Span
from llmops_core.testing import make_batch, make_span

__all__ = ["DATABASES", "run"]


class Database(ABC):
    """One database: its server, its storage, and its own way in."""

    #: The own way's name.
    own: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def serve(self) -> AbstractContextManager[Server]:
        """Run the server."""

    @abstractmethod
    def storage(self, url: str) -> Any:
        """Return the storage, which is not open yet."""

    @abstractmethod
    async def empty(self, storage: Any) -> None:
        """Drop the table."""

    @abstractmethod
    async def load(self, storage: Any, batches: Sequence[SpanBatch]) -> None:
        """Write the batches by the database's own way."""


class PostgreSQL(Database):
    """Beside the driver's COPY, in its binary form, of the columns that have values."""

    own = "COPY"

    def serve(self) -> AbstractContextManager[Server]:
        return private_servers.postgres(self.folder / "db", "max_wal_size = '4GB'")

    def storage(self, url: str) -> Any:
        from llmops_core.storage.postgres import PostgresStorage

        return PostgresStorage(url)

    async def empty(self, storage: Any) -> None:
        async with storage._opened().acquire() as connection:
            await connection.execute(f"DROP TABLE {storage.url.table}; CHECKPOINT")

    async def load(self, storage: Any, batches: Sequence[SpanBatch]) -> None:
        for batch in batches:
            columns = batch.plain_columns()
            rows = list(zip(*columns.values(), strict=True))
            async with storage._opened().acquire() as connection:
                await connection.copy_records_to_table(
                    storage.url.table, columns=list(columns), records=rows
                )


class MariaDB(Database):
    """Beside LOAD DATA of a file that lies on the server's own disk."""

    own = "LOAD DATA"

    def serve(self) -> AbstractContextManager[Server]:
        return private_servers.mariadb(self.folder / "db")

    def storage(self, url: str) -> Any:
        from llmops_core.storage.mysql import MySQLStorage

        return MySQLStorage(url)

    async def empty(self, storage: Any) -> None:
        async with storage._cursor() as cursor:
            await cursor.execute(f"DROP TABLE `{storage.url.table}`")

    async def load(self, storage: Any, batches: Sequence[SpanBatch]) -> None:
        path = self.folder / "batch.tsv"
        for batch in batches:
            columns = _used(batch)
            path.write_text(_lines(batch, columns))
            names = ", ".join(f"`{c.name}`" for c in columns)
            async with storage._cursor() as cursor:
                await cursor.execute(
                    f"LOAD DATA INFILE '{path}' INTO TABLE `{storage.url.table}`"
                    f" CHARACTER SET utf8mb4 ({names})"
                )


class ClickHouse(Database):
    """Beside the driver's ``insert_arrow``. The server is a stand-in, so only the client counts."""

    own = "insert_arrow"

    def serve(self) -> AbstractContextManager[Server]:
        return private_servers.clickhouse(self.folder / "db")

    def storage(self, url: str) -> Any:
        from llmops_core.storage.clickhouse import ClickHouseStorage

        return ClickHouseStorage.of_url(url)

    async def empty(self, storage: Any) -> None:
        await storage._command(f"DROP TABLE {storage.address.table} SYNC")

    async def load(self, storage: Any, batches: Sequence[SpanBatch]) -> None:
        client = await storage._connected()
        for batch in batches:
            await client.insert_arrow(storage.address.table, batch.arrow)


DATABASES: Final[dict[str, type[Database]]] = {
    "postgresql": PostgreSQL,
    "mariadb": MariaDB,
    "clickhouse": ClickHouse,
}


# ---- spans ----


def make_spans(count: int, chars: int) -> list[Span]:
    """Return spans as a chain of model calls makes them: two texts, ids, counts, attributes."""
    rng = random.Random(1)
    text = "lorem ipsum dolor sit amet, " * (chars // 28 + 1)
    return [
        make_span(
            at,
            span_id=f"{rng.getrandbits(64):016x}",
            trace_id=f"{at // 10:032x}",
            parent_id=f"{rng.getrandbits(64):016x}" if at % 10 else None,
            session_id=f"session-{at // 100}",
            framework="langchain",
            agent="writer",
            model="m-1",
            provider="openai",
            duration_ms=at / 7,
            input=f"{at:08} {text}"[:chars],
            output=f"{at:08} {text}"[:chars],
            input_size=chars,
            output_size=chars,
            input_hash=f"{rng.getrandbits(128):032x}",
            output_hash=f"{rng.getrandbits(128):032x}",
            content_mode="full",
            input_tokens=at % 999,
            output_tokens=at % 99,
            **{f"{side}_{what}": chars // by for side in ("input", "output")
               for what, by in (("chars", 1), ("words", 5), ("bytes", 1), ("lines", 80))},
            attributes={"langgraph.node": "write", "langgraph.step": str(at % 9)},
        )
        for at in range(count)
    ]  # fmt: skip


def _used(batch: SpanBatch) -> list[Column]:
    return [c for c in COLUMNS if any(v is not None for v in batch.values(c.name))]


def _lines(batch: SpanBatch, columns: Sequence[Column]) -> str:
    """Return a batch as lines of fields between tabs."""
    values = [[_field(v) for v in batch.values(c.name)] for c in columns]
    return "".join("\t".join(row) + "\n" for row in zip(*values, strict=True))


def _field(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value if value.isalnum() else _escaped(value)
    return _escaped(msgspec.json.encode(value).decode()) if isinstance(value, dict) else str(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


# ---- rounds ----


async def one_round(
    database: Database, server: Server, spans: Sequence[Span], size: int, *, by_storage: bool
) -> list[float]:
    """Return client, server and wall seconds of one way into an empty table."""
    storage: Storage = database.storage(server.url)
    await storage.open()
    batches = [make_batch(spans[at : at + size]) for at in range(0, len(spans), size)]
    for batch in batches:
        batch.plain_columns()  # as a batch comes: columns, not rows
    await asyncio.sleep(0.5)  # the server's own work of before
    client, wall, used = time.process_time(), time.perf_counter(), server.cpu()
    if by_storage:
        for batch in batches:
            await storage.write(batch)
    else:
        await database.load(storage, batches)
    took = [time.process_time() - client, server.cpu() - used, time.perf_counter() - wall]
    counted = await storage.query(SpanQuery.build(aggregates=["count"]))
    assert counted["count"][0].as_py() == len(spans)
    await database.empty(storage)
    await storage.close()
    return took


def run(name: str, spans: int, rounds: int, size: int) -> int:
    """Measure both ways with short and with long texts; return an exit code."""
    logging.getLogger("llmops").setLevel(logging.ERROR)  # the server's user is a superuser
    with tempfile.TemporaryDirectory(prefix="llmops-bench-") as folder:
        database = DATABASES[name](Path(folder))
        try:
            with database.serve() as server:
                for chars in (200, 2_000):
                    made = make_spans(spans, chars)
                    took: dict[str, list[list[float]]] = {"storage": [], database.own: []}
                    for _ in range(rounds):
                        for way, found in took.items():
                            is_ours = way == "storage"
                            found.append(
                                asyncio.run(
                                    one_round(database, server, made, size, by_storage=is_ours)
                                )
                            )
                    report(chars, took, spans)
        except Missing as why:
            print(why)
            return 1
    return 0


def report(chars: int, took: dict[str, list[list[float]]], count: int) -> None:
    """Print medians in microseconds a span, and the shares of the CPU time and of the client's."""
    own = next(way for way in took if way != "storage")
    print(f"{chars:5} characters, CPU µs a span, median of {len(took['storage'])} rounds:")
    for way, rounds in took.items():
        client, server, wall = (
            statistics.median(r[at] for r in rounds) / count * 1e6 for at in range(3)
        )
        print(
            f"      {way:12} client {client:5.1f}  server {server:5.1f}  "
            f"both {client + server:5.1f}  (wall {wall:.0f})"
        )
    pairs = list(zip(took["storage"], took[own], strict=True))
    share = statistics.median((b[0] + b[1]) / (a[0] + a[1]) for a, b in pairs)
    client = statistics.median(a[0] / b[0] for a, b in pairs)
    print(f"      throughput {share:.0%} of {own}; the client takes {client:.2f} x its CPU")
