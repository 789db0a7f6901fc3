"""The URL of a database, and everything that must be right before it is used.

A password is held apart and never shown. A table's and a schema's name are plain identifiers, as
they become part of a statement. The options behind ``?`` are a closed list.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from llmops_core.errors import ConfigError

__all__ = ["DEFAULT_TABLE", "DatabaseUrl", "Secret", "SslMode", "identifier", "tls_context"]

DEFAULT_TABLE: Final = "llmops_spans"
MAX_POOL: Final = 100
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
SslMode = Literal["disable", "require", "verify-ca", "verify-full"]
_SSL_MODES: Final[tuple[SslMode, ...]] = ("disable", "require", "verify-ca", "verify-full")
#: Options, and the other names that they are known by.
_OPTIONS: Final = ("table", "schema", "pool_size", "sslmode", "sslrootcert", "host")
_ALIASES: Final = {"table_name": "table", "schema_name": "schema", "ssl": "sslmode"}


class Secret:
    """A text that no repr, traceback, pickle or ``vars`` shows; :meth:`reveal` gives it."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """Return the text, for the driver alone."""
        return self.__text

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class DatabaseUrl:
    """A database's URL, taken apart and checked: ``scheme://user:password@host:port/name?options``.

    *options* are the names that this storage knows beyond the common ones (``table``, ``schema``,
    ``pool_size``, ``sslmode``, ``sslrootcert``, ``host``). Raises ``ConfigError``, in whose text no
    password is.
    """

    def __init__(self, url: str, *, port: int, options: Sequence[str] = ()) -> None:
        try:
            parts = urlsplit(url)
            host, given_port = parts.hostname or "", parts.port
        except ValueError:
            scheme = url.partition(":")[0]
            raise ConfigError(
                f"the {scheme} URL cannot be read",
                f"expected {scheme}://user:password@host:port/database",
                "write special characters of a password as %XX",
            ) from None
        self.scheme = parts.scheme
        if not url.partition(":")[2].startswith("//"):
            raise self._wrong("no host", f"write {parts.scheme}://host/database")
        self.options: Mapping[str, str] = self._read_options(parts.query, options)
        self.host = unquote(self.options.get("host", host)) or "localhost"
        self.port = given_port or port
        self.user = unquote(parts.username) if parts.username else None
        self.password = Secret(unquote(parts.password)) if parts.password else None
        self.database = unquote(parts.path.lstrip("/")) or None
        if any("\0" in text for text in (self.host, self.user or "", self.database or "")):
            raise self._wrong("a zero byte", "leave it out")
        self.table = identifier("table", self.options.get("table", DEFAULT_TABLE))
        schema = self.options.get("schema")
        self.schema = None if schema is None else identifier("schema", schema)
        self.pool_size = self._pool_size()

    def __repr__(self) -> str:
        user = f"{self.user}{':***' if self.password else ''}@" if self.user else ""
        return f"<{self.scheme}://{user}{self.host}:{self.port}/{self.database or ''}>"

    @property
    def is_socket(self) -> bool:
        """Whether the host is a folder with a Unix socket."""
        return self.host.startswith("/")

    @property
    def is_local(self) -> bool:
        """Whether nothing that is sent leaves this machine."""
        if self.is_socket or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def sslmode(self) -> SslMode:
        """What was asked for; else ``verify-full``, and ``disable`` where nothing leaves the machine."""
        default: SslMode = "disable" if self.is_local else "verify-full"
        asked = self.options.get("sslmode")
        return next((mode for mode in _SSL_MODES if mode == asked), default)

    def _read_options(self, query: str, known: Sequence[str]) -> dict[str, str]:
        names = (*_OPTIONS, *known)
        found: dict[str, str] = {}
        for given, value in parse_qsl(query, keep_blank_values=True):
            name = _ALIASES.get(given, given)
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "leave it out"
                raise ConfigError(
                    f"unknown option {given!r} in the {self.scheme} URL",
                    "expected one of " + ", ".join(names),
                    hint,
                )
            if name in found and found[name] != value:
                raise self._wrong(f"two values for {name!r}", "leave out one")
            found[name] = value
        if found.get("sslmode", "disable") not in _SSL_MODES:
            raise ConfigError(
                f"sslmode={found['sslmode']!r} in the {self.scheme} URL",
                "expected one of " + ", ".join(_SSL_MODES),
            )
        return found

    def _pool_size(self) -> int | None:
        text = self.options.get("pool_size")
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_POOL:
            raise ConfigError(
                f"pool_size={text!r}", f"expected a whole number from 1 to {MAX_POOL}"
            )
        return int(text)

    def _wrong(self, found: str, do: str) -> ConfigError:
        return ConfigError(f"the {self.scheme} URL has {found}", do=do)


def identifier(what: str, name: str) -> str:
    """Return the name of a table or a schema, or raise: it becomes part of a statement."""
    if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
        raise ConfigError(
            f"{what} name {name!r}",
            "expected a letter or '_', then letters, digits and '_', 63 at most",
        )
    return name


def tls_context(url: DatabaseUrl) -> ssl.SSLContext | None:
    """Return how a connection is encrypted and whose certificate it takes; None: not at all.

    ``verify-full`` checks the certificate and that it is the host's, ``verify-ca`` the certificate
    alone, ``require`` neither: it keeps readers out and no impostor.
    """
    mode = url.sslmode
    if mode == "disable":
        return None
    root = url.options.get("sslrootcert")
    try:
        context = ssl.create_default_context(cafile=root)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            f"sslrootcert={str(Path(root or ''))!r} cannot be read",
            "expected a file of PEM certificates",
        ) from None
    if mode != "verify-full":
        context.check_hostname = False
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context
