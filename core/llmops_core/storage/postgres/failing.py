"""What an error of the server or the driver means: try again, never, or set up otherwise.

By SQLSTATE, of which the first two characters are the class. The server's own text may quote a value
of a span or of a query, so none of it is passed on: a class, a state and words of our own are.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Any, Final

import asyncpg

from llmops_core.errors import (
    LLMOpsError,
    PermanentError,
    QueryError,
    RetryableError,
    StorageError,
)

__all__ = ["open_failure", "read_failure", "write_failure"]

#: What is in the row is at fault: data, a constraint, a limit of the program (a row too large).
_DATA_CLASSES: Final = ("21", "22", "23", "54")
#: The server is there, and will not let us in whatever the time: whoever sets up must act.
_SETUP_STATES: Final = ("28000", "28P01", "3D000", "42501", "0A000", "42P07", "42704")
_TOO_LARGE: Final = "22003"
_CANCELLED: Final = "57014"
_LINE: Final = re.compile(r"COPY \S.*?, line ([0-9]+)")


def write_failure(error: Exception) -> LLMOpsError:
    """Return what a write raises for *error*; the place of the row at fault is told, if known."""
    if isinstance(error, LLMOpsError):
        return error
    state = _state(error)
    if isinstance(error, asyncpg.PostgresError) and state[:2] in _DATA_CLASSES:
        return PermanentError(f"the server refuses a span ({_named(error)})", place=_place(error))
    if isinstance(error, ValueError | TypeError | OverflowError | asyncpg.DataError):
        return PermanentError(f"a span cannot be encoded ({type(error).__name__})")
    return RetryableError(f"the server took no spans ({_named(error)})")


def read_failure(error: Exception, seconds: float) -> LLMOpsError:
    """Return what a query raises for *error*."""
    if isinstance(error, LLMOpsError):
        return error
    if isinstance(error, TimeoutError) or _state(error) == _CANCELLED:
        return StorageError(
            f"the query was stopped; it may take {seconds:.0f} s",
            do="select a shorter time range, fewer columns or a limit",
        )
    if _state(error) == _TOO_LARGE:
        return QueryError("a result beyond 64 bits", "expected smaller numbers")
    if isinstance(error, asyncpg.PostgresError):
        return StorageError(f"the query failed in PostgreSQL ({_named(error)})")
    return RetryableError(f"the server did not answer a query ({_named(error)})")


def open_failure(error: Exception, where: object) -> LLMOpsError:
    """Return what opening raises for *error*: of set-up, or of a server that is not there now."""
    if isinstance(error, LLMOpsError):
        return error
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return StorageError(
            f"{where!r} is not trusted: its certificate was refused",
            "expected one that is valid for the host, of an authority that is known here",
            "name the authority's file by sslrootcert=, or say sslmode=require to trust anybody",
        )
    if isinstance(error, ConnectionError) and "SSL" in str(error):
        return StorageError(
            f"{where!r} does not encrypt",
            "expected TLS, as the host is not this machine",
            "switch it on in the server, or say sslmode=disable to send everything in the open",
        )
    if isinstance(error, socket.gaierror):
        return StorageError(f"{where!r} names a host that is not known", do="check the URL")
    if isinstance(error, asyncpg.PostgresError) and _state(error) in _SETUP_STATES:
        return StorageError(
            f"{where!r} cannot be used ({_named(error)})",
            "expected a user who may log in, and create the table or use the one that is there",
        )
    return RetryableError(f"{where!r} cannot be reached ({_named(error)})")


def _state(error: Any) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def _named(error: Exception) -> str:
    state = _state(error)
    return f"{type(error).__name__} {state}".strip()


def _place(error: asyncpg.PostgresError) -> int | None:
    """Return the row's place in the batch: the server counts the lines of a COPY."""
    found = _LINE.match(str(getattr(error, "context", None) or ""))
    return int(found[1]) - 1 if found else None
