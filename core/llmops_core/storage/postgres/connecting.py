"""Connections to PostgreSQL: how they are made, what they convert, and when they are given up."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import msgspec

from llmops_core.databases.url import DatabaseUrl, tls_context

__all__ = ["connected", "connection_arguments", "make_pool", "prepare"]

PORT: Final = 5432
CONNECT_SECONDS: Final = 8.0
CLOSE_SECONDS: Final = 2.0
#: 2000-01-01 in microseconds: where PostgreSQL counts its times from.
EPOCH_MICROS: Final = 946_684_800_000_000

_encode_json: Final = msgspec.json.Encoder().encode
_decode_json: Final = msgspec.json.Decoder().decode


def connection_arguments(url: DatabaseUrl, *, read_only: bool) -> dict[str, Any]:
    """Return the driver's arguments. What the URL does not say, PGUSER and the like may."""
    settings = {"application_name": "llmops"}
    if read_only:
        settings["default_transaction_read_only"] = "on"
    return {
        "host": url.host,
        "port": url.port,
        "user": url.user,
        "password": url.password.reveal() if url.password else None,
        "database": url.database,
        "ssl": tls_context(url) or False,
        "timeout": CONNECT_SECONDS,
        "server_settings": settings,
    }


async def make_pool(arguments: dict[str, Any], size: int) -> asyncpg.Pool:
    """Return a pool that connects when it is asked to."""
    return await asyncpg.create_pool(min_size=0, max_size=size, init=prepare, **arguments)


async def prepare(connection: asyncpg.Connection) -> None:
    """Teach a connection our types: times as microseconds, maps as dictionaries."""
    await connection.set_type_codec(
        "timestamptz",
        schema="pg_catalog",
        encoder=lambda micros: (micros - EPOCH_MICROS,),
        decoder=lambda counted: counted[0] + EPOCH_MICROS,
        format="tuple",
    )
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + _encode_json(value),  # the version of the format
        decoder=lambda data: _decode_json(data[1:]),
        format="binary",
    )


@contextlib.asynccontextmanager
async def connected(pool: asyncpg.Pool) -> AsyncIterator[asyncpg.Connection]:
    """Lend a connection; one that failed otherwise than by the server's word is cut.

    The driver would first ask it to cancel what it does: of a server that hangs, or is gone, that
    takes longer than a new connection.
    """
    connection = await pool.acquire(timeout=CONNECT_SECONDS)
    try:
        yield connection
    except BaseException as error:
        if not isinstance(error, asyncpg.PostgresError):
            connection.terminate()
        raise
    finally:
        with contextlib.suppress(Exception):  # it is cut, or the pool is closed
            await pool.release(connection, timeout=CLOSE_SECONDS)
