"""Connections to a server: how they are made, and what each one's session is set to."""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from llmops_core.databases.url import DatabaseUrl, tls_context
from llmops_core.errors import MissingDependency, StorageError
from llmops_core.query.mysql import COLLATIONS

__all__ = [
    "CONNECT_SECONDS",
    "PATIENT",
    "SESSIONS",
    "STATEMENT_SECONDS",
    "Server",
    "connected",
    "connection_arguments",
    "import_driver",
    "probe",
]

CONNECT_SECONDS: Final = 10.0
#: Statements that are prepared once for each connection: queries, and inserts of the usual columns.
_STATEMENTS: Final = 64
#: How long a statement may take, in seconds.
STATEMENT_SECONDS: Final = 60
#: What each session is set to, whatever the server is: strict, with escapes as the driver makes
#: them, in UTC, and bounded in time. Texts are ordered and grouped by their first 64 kB instead of
#: their first 1,024 bytes. No warnings are kept: the driver would log them, and they quote content.
SESSIONS: Final = {
    "mariadb": "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
    " time_zone='+00:00', max_sort_length=65536, max_error_count=0, max_statement_time=60",
    "mysql": "SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
    " time_zone='+00:00', max_sort_length=65536, max_error_count=0, max_execution_time=60000",
}
#: What lets one connection take its time to delete and rewrite; MySQL bounds reading alone.
PATIENT: Final = {"mariadb": "SET SESSION max_statement_time=600", "mysql": "DO 0"}
_OLDEST: Final = {"mariadb": (10, 5), "mysql": (8, 0, 17)}
_NAMES: Final = {"mariadb": "MariaDB", "mysql": "MySQL"}


class Server(NamedTuple):
    """What a server is, as it says itself."""

    kind: str
    version: str
    max_packet: int
    is_superuser: bool

    @property
    def collation(self) -> str:
        """The collation that compares texts by code points."""
        return COLLATIONS[self.kind]


def import_driver() -> None:
    """Import what the storage needs, or say what to install."""
    for package in ("asyncmy", "sqlalchemy"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingDependency(
                f"the storage 'mysql' needs the package {package}, which is not installed",
                do="install it with: pip install 'llmops-integrations[mysql]'",
            ) from None


def connection_arguments(url: DatabaseUrl) -> dict[str, Any]:
    """Return what the driver is told. The password is in it: not to be printed."""
    where: dict[str, Any] = (
        {"unix_socket": url.host} if url.is_socket else {"host": url.host, "port": url.port}
    )
    return {
        **where,
        "user": url.user or "root",
        # The driver would encode it as Latin-1.
        "password": url.password.reveal().encode() if url.password else b"",
        "database": url.schema or url.database,
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "autocommit": True,
        "ssl": tls_context(url),
        "program_name": "llmops",
        "stmt_cache_size": _STATEMENTS,
    }


@asynccontextmanager
async def connected(arguments: dict[str, Any]) -> AsyncIterator[Any]:
    """Open one connection outside of the pool, and close it."""
    import asyncmy

    async with asyncio.timeout(CONNECT_SECONDS):
        connection = await asyncmy.connect(**arguments)
    try:
        yield connection
        await connection.ensure_closed()
    finally:
        connection.close()


async def probe(connection: Any) -> Server:
    """Ask a server what it is. Raises ``StorageError`` if it is too old."""
    cursor = connection.cursor()
    await cursor.execute("SELECT VERSION(), @@max_allowed_packet")
    version, max_packet = await cursor.fetchone()
    kind = "mariadb" if "mariadb" in version.lower() else "mysql"
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
    if numbers < _OLDEST[kind]:
        oldest = ".".join(map(str, _OLDEST[kind]))
        raise StorageError(
            f"{_NAMES[kind]} {version}", f"expected {_NAMES[kind]} {oldest} or later"
        )
    await cursor.execute("SHOW GRANTS")
    grants = [str(row[0]) for row in await cursor.fetchall()]
    is_superuser = any(
        re.match(r"GRANT (ALL PRIVILEGES|.*\bSUPER\b).* ON \*\.\*", g) for g in grants
    )
    return Server(kind, version, int(max_packet), is_superuser)
