"""What a ClickHouse URL says: ``clickhouse://user:password@host:8123/database?table=spans``.

The parts that every database's URL has are read by :class:`~llmops_core.databases.url.DatabaseUrl`.
"""

from __future__ import annotations

import urllib.parse
from typing import Final

from llmops_core.databases.url import DatabaseUrl, Secret, identifier
from llmops_core.errors import ConfigError

__all__ = ["Address"]

HTTP_PORT: Final = 8123
HTTPS_PORT: Final = 8443
#: Ports of ClickHouse's other protocols, and the one that is meant.
OTHER_PORTS: Final = {9000: HTTP_PORT, 9440: HTTPS_PORT, 9004: HTTP_PORT, 9009: HTTP_PORT}
#: As many queries run at once, if the URL does not say.
POOL_SIZE: Final = 8
_OPTIONS: Final = ("secure", "ttl_days", "cluster")
_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Address:
    """Where the spans are, and how to get there. Raises ``ConfigError``, which never has a password.

    TLS is spoken, and the server's certificate checked, unless the host is this machine or the URL
    says otherwise: ``secure=false`` (or ``sslmode=disable``), ``sslmode=require`` for any certificate.
    """

    def __init__(self, url: str) -> None:
        self._url = read = DatabaseUrl(url, port=0, options=_OPTIONS)
        self.host = read.host
        self.user = read.user or "default"
        self.password = read.password or Secret("")
        self.table = read.table
        self.database = identifier("database", _database(read))
        self.pool_size = read.pool_size or POOL_SIZE
        self.cluster = read.options.get("cluster")
        if self.cluster is not None:
            identifier("cluster", self.cluster)
        self.ttl_days = _days(read.options.get("ttl_days"))
        if urllib.parse.urlsplit(url).fragment:
            raise ConfigError(
                "a '#' in a ClickHouse URL", do="write '%23' where the password has one"
            )
        _check_place(read)
        self.secure = _is_secure(read)
        self.port = read.port or (HTTPS_PORT if self.secure else HTTP_PORT)
        self.verify = read.options.get("sslmode") != "require"
        self.ca_cert = read.options.get("sslrootcert")

    def __repr__(self) -> str:
        return f"<Address {self.place}>"

    @property
    def place(self) -> str:
        """Say in a message where this is."""
        return f"{self.host}:{self.port}/{self.database}.{self.table}"


def _database(read: DatabaseUrl) -> str:
    """Return the database; ``schema`` is another word for it."""
    if read.database and read.schema and read.database != read.schema:
        raise ConfigError(
            "a ClickHouse URL with a database and another schema",
            "expected one of them, as they are the same there",
        )
    return read.schema or read.database or "default"


def _check_place(read: DatabaseUrl) -> None:
    if read.port in OTHER_PORTS:
        raise ConfigError(
            f"port {read.port} of {read.host!r} does not speak HTTP: it is that of another protocol",
            f"expected the port of ClickHouse's HTTP interface, mostly {OTHER_PORTS[read.port]}",
            f"write port {HTTP_PORT}, or {HTTPS_PORT} with clickhouses://",
        )


def _is_secure(read: DatabaseUrl) -> bool:
    """Whether to speak TLS: yes, unless nothing leaves this machine or the URL says no."""
    asked = _asked(read)
    if read.scheme == "clickhouses":
        if asked is False:
            raise ConfigError("clickhouses:// without TLS", "expected clickhouse:// there")
        return True
    if asked is not None:
        return asked
    if read.port == HTTPS_PORT:
        return True
    if read.is_local:
        return False
    if read.port == HTTP_PORT:
        raise ConfigError(
            f"clickhouse:// to port {read.port} of {read.host!r}, which would send spans and the "
            "password unencrypted",
            "expected TLS for another machine",
            f"write clickhouses://{read.host}:{HTTPS_PORT}, or add ?secure=false in a network of yours",
        )
    return True


def _asked(read: DatabaseUrl) -> bool | None:
    secure, mode = read.options.get("secure"), read.options.get("sslmode")
    by_mode = None if mode is None else mode != "disable"
    if secure is None:
        return by_mode
    if secure.lower() not in _FLAGS:
        raise ConfigError(f"secure={secure[:40]!r} in a ClickHouse URL", "expected true or false")
    asked = _FLAGS[secure.lower()]
    if by_mode not in (None, asked):
        raise ConfigError("secure and sslmode in a ClickHouse URL disagree", "expected one of them")
    return asked


def _days(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 36_500):
        raise ConfigError(
            f"ttl_days={text[:40]!r} in a ClickHouse URL", "expected days, from 1 to 36,500"
        )
    return int(text)
