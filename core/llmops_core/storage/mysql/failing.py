"""What the driver's errors mean, by their code: try again, or never again.

No text of a server is repeated: it quotes values, and those are content. Only a row's number is read.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final

from llmops_core.errors import PermanentError, RetryableError, StorageError

__all__ = ["is_lost", "open_failure", "read_failure", "write_failure"]

#: A value that its column cannot hold: as often as it is tried.
_REFUSED: Final[dict[int, str]] = {
    1048: "a null where a value is needed",
    1118: "a row that is too large for the server's pages",
    1264: "a number out of its column's range",
    1265: "a value that would be cut",
    1292: "a value that its column cannot hold",
    1300: "text that is not valid UTF-8",
    1366: "a value that its column cannot hold",
    1406: "text that is too long for its column",
    3819: "a value that a CHECK of the table refuses",
    4025: "a value that a CHECK of the table refuses",
}
_ROW: Final = re.compile(r" at row ([0-9]+)\Z")
_PACKET_TOO_LARGE: Final = 1153
#: What is wrong with the set-up: it must be told at once.
_SET_UP: Final = frozenset({1044, 1045, 1049, 1142, 1227, 1251, 1698, 2059})
_LOST: Final = frozenset({1053, 1927, 2006, 2013, 2055, 4031})
_TIME_OUT: Final = frozenset({1969, 3024})
#: What a person has to see to; until then it is tried again.
_HINTS: Final[dict[int, tuple[str, str]]] = {
    1021: ("the server's disk is full", "make room"),
    1040: ("the server has too many connections", "raise max_connections, or lower pool_size"),
    1044: ("the user may not use the database", "grant it SELECT, INSERT, UPDATE and DELETE"),
    1045: ("the server refuses the user or the password", "check both in the URL"),
    1049: ("there is no such database", "create it: CREATE DATABASE name CHARACTER SET utf8mb4"),
    1054: ("the table lacks a column", "open the storage again: it adds what is missing"),
    1114: ("the table is full", "make room"),
    1142: ("the user may not do this with the table", "grant it what the documentation lists"),
    1146: ("there is no such table", "open the storage again: it makes its table"),
    1205: ("a lock was not released in time", ""),
    1213: ("another transaction came in the way", ""),
    1290: ("the server only reads", "name the one that is written to"),
    1698: ("the server refuses the user", "check user and password in the URL"),
    1836: ("the server only reads", "name the one that is written to"),
    2003: ("the server cannot be reached", "check host and port, and that it runs"),
}


def _code_of(error: BaseException) -> int:
    """Return the server's or the driver's error code, 0 where there is none."""
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0


def is_lost(error: BaseException) -> bool:
    """Whether the connection was lost, so that another one may do."""
    return _code_of(error) in _LOST


def open_failure(error: BaseException) -> StorageError:
    """Return what a failed set-up is to be told as: retryable where only the server is missing."""
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StorageError(
            f"the server's certificate is refused: {cause.verify_message}",
            "expected one of a known authority, for this host",
            "name the authority with ?sslrootcert=FILE",
        )
    if isinstance(cause, ssl.SSLError):
        return StorageError(
            f"the connection cannot be encrypted ({cause.reason or type(cause).__name__})",
            "expected a server with TLS",
            "switch it on there, or write ?sslmode=disable if the network is yours alone",
        )
    if isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_NONAME:
        return StorageError("the URL names a host that is not known", do="check the URL")
    told = _told(error, _code_of(error))
    if _code_of(error) in _SET_UP:
        return StorageError(told.found, told.expected, told.do)
    return told


def _place(error: BaseException) -> int | None:
    """Return the place of the row at fault in its statement, where the server says it, at the end."""
    found = _ROW.search(str(error.args[1])) if len(error.args) > 1 else None
    return int(found[1]) - 1 if found else None


def write_failure(error: BaseException) -> StorageError:
    """Return what a failed write is to be told as."""
    code = _code_of(error)
    if code in _REFUSED:
        told = f"MySQL refuses {_REFUSED[code]} (error {code})"
        return PermanentError(told, place=_place(error))
    if code == _PACKET_TOO_LARGE:
        return PermanentError(
            f"a span is larger than the server's max_allowed_packet (error {code})",
            do="raise max_allowed_packet",
        )
    return _told(error, code)


def read_failure(error: BaseException, seconds: float) -> StorageError:
    """Return what a failed query is to be told as."""
    code = _code_of(error)
    if code in _TIME_OUT or isinstance(error, TimeoutError):
        return StorageError(
            f"the query was stopped; it may take {seconds:.0f} s",
            do="select a shorter time range, fewer columns or a limit",
        )
    return _told(error, code)


def _told(error: BaseException, code: int) -> StorageError:
    found, do = _HINTS.get(code, ("", ""))
    if not found and code in _LOST:
        found = "the connection to MySQL was lost"
    if not found and isinstance(error, TimeoutError):
        found = "MySQL did not answer in time"
    found = found or f"MySQL failed ({type(error).__name__})"
    return RetryableError(f"{found} (error {code})" if code else found, do=do)
