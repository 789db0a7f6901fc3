"""Many spans in PostgreSQL, fast: some are written by the storage, and the server makes more of them.

Indexes are made at the end, by the storage's own definitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import query_data

from llmops_core.batch import SpanBatch, spans_from_arrow
from llmops_core.schema import COLUMN_NAMES
from llmops_core.storage.postgres import PostgresStorage

__all__ = ["fill"]

#: What a copy has of its own: its ids and its times. ``$1`` is its number, ``$2`` how much later it is.
_CHANGED: Final = {
    "trace_id": "lpad(to_hex(('x' || left(trace_id, 12))::bit(48)::bigint + $2::bigint / 1000), 12, '0')"
    " || right(trace_id, 20)",
    "session_id": "session_id || '-' || $1",
    "start_time": "start_time + $2::bigint * interval '1 microsecond'",
    "end_time": "end_time + $2::bigint * interval '1 microsecond'",
    **{name: f"left(md5({name} || $1), 16)" for name in ("span_id", "parent_id", "agent_span_id")},
}


def fill(url: str, traces: int, step: int) -> Iterator[int]:
    """Make the table and fill it; yield how many traces there are."""
    with asyncio.Runner() as runner:
        filling = _fill(url, traces, step)
        while True:
            try:
                yield runner.run(anext(filling))
            except StopAsyncIteration:
                return


async def _fill(url: str, traces: int, step: int) -> AsyncIterator[int]:
    storage = PostgresStorage(url)
    await storage.open()
    async with storage._opened().acquire() as connection:
        await _without_indexes(storage, connection)
        done = min(query_data.PATTERN, traces)
        for first in range(0, done, 1_000):
            table = query_data.tables(first, min(first + 1_000, done), step, "w1")
            await storage.write(SpanBatch(spans_from_arrow(table)))
        name = storage.url.table
        await connection.execute(f"CREATE TEMPORARY TABLE pattern AS TABLE {name}")
        while done < traces:
            some = _copy(name, min(query_data.PATTERN, traces - done) * query_data.SPANS_A_TRACE)
            number = done // query_data.PATTERN
            await connection.execute(some, str(number), done * step, timeout=600)
            done += query_data.PATTERN
            yield done
        await _with_indexes(storage, connection)
    await storage.close()


def _copy(table: str, spans: int) -> str:
    columns = ", ".join(f'"{name}"' for name in COLUMN_NAMES)
    values = ", ".join(_CHANGED.get(name, f'"{name}"') for name in COLUMN_NAMES)
    return f"INSERT INTO {table} ({columns}) SELECT {values} FROM pattern LIMIT {spans}"


async def _without_indexes(storage: PostgresStorage, connection: Any) -> None:
    table = storage.url.table
    for index in storage._compiled.table.indexes:
        await connection.execute(f"DROP INDEX {index.name}")
    await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")


async def _with_indexes(storage: PostgresStorage, connection: Any) -> None:
    table = storage.url.table
    await connection.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (span_id)", timeout=600)
    for index in storage._compiled.table.indexes:
        await connection.execute(storage._compiled.create_index(index), timeout=600)
    await connection.execute(f"VACUUM (ANALYZE) {table}", timeout=1_200)
