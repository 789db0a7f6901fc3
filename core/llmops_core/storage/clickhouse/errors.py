"""Which errors of ClickHouse are the data's fault, which the query's, and which pass.

By the server's error code, never by its text, and no message of ours repeats that text: it may hold
values of rows or of a query. Only the number of a row is read there.
"""

from __future__ import annotations

import re
import ssl
from typing import Final

from llmops_core.errors import PermanentError, QueryError, RetryableError, StorageError

__all__ = ["code_of", "failed_query", "failed_setup", "failed_write"]

#: A CONSTRAINT that somebody has given to the table.
_VIOLATED: Final = 469
#: A value does not fit: of a wrong type, too large, cannot be parsed.
_DATA: Final = frozenset(
    (6, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 128, 131, 135, 190, 321, 349, 407, 441, 467, 691)
) | {_VIOLATED}
#: The user, the password or the rights are wrong; somebody has to set them right.
_ACCESS: Final = {
    164: "the user may only read",
    192: "the user is unknown",
    193: "the password is wrong",
    194: "a password is needed",
    291: "the user may not use this database",
    497: "the user lacks a right",
    516: "the user or the password is wrong",
}
_MISSING: Final = {60: "the table is not there", 81: "the database is not there"}
_BUSY: Final = {
    159: "the query took too long",
    160: "the query took too long",
    202: "the server is busy",
    241: "the server has too little memory",
    242: "the table is read-only at present",
    243: "the server has too little disk space",
    252: "the server has too many parts to merge",
    394: "the query was cancelled",
}
_OVERFLOW: Final = 70
_ROW: Final = re.compile(r" is violated at row ([0-9]+)\. ")
_QUERY_LIMITS: Final = frozenset((159, 160, 241, 307, 396))


def code_of(error: BaseException) -> int | None:
    """Return the server's error code, None where the server said nothing."""
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None


def _told(code: int) -> str:
    return {**_ACCESS, **_MISSING, **_BUSY}.get(code, f"the server's error code is {code}")


def failed_write(error: BaseException, place: str) -> StorageError:
    """Return what a failed write means: ``PermanentError`` only if the data is at fault."""
    code = code_of(error)
    if code in _DATA:
        told = f"ClickHouse refuses a value (error code {code})"
        return PermanentError(told, place=_place(error) if code == _VIOLATED else None)
    if code is not None:
        return RetryableError(f"ClickHouse at {place} cannot store now: {_told(code)}")
    return RetryableError(f"ClickHouse at {place} gave no answer ({type(error).__name__})")


def _place(error: BaseException) -> int | None:
    """Return the place of the row in its insert that a CONSTRAINT refuses, where the server says it."""
    found = _ROW.search(str(error))
    return int(found[1]) - 1 if found else None


def failed_setup(error: BaseException, place: str) -> StorageError:
    """Return what a failed connection or change of the table means."""
    code = code_of(error)
    if code is None and _is_about_certificate(error):
        return StorageError(
            f"the certificate of ClickHouse at {place} is not one to trust",
            "expected one for this host, signed by an authority that this machine knows",
            "name the authority's file with ?sslrootcert=",
        )
    if code is None:
        return failed_write(error, place)
    return StorageError(
        f"ClickHouse at {place} cannot be used: {_told(code)}",
        "expected a user who may read and write this table, and make it where it is missing",
        "check the storage URL and the user's rights",
    )


def _is_about_certificate(error: BaseException | None) -> bool:
    """Whether the driver's error comes from a check of the certificate."""
    for _ in range(10):
        if error is None or isinstance(error, ssl.SSLCertVerificationError):
            break
        inner = getattr(error, "certificate_error", None)  # aiohttp keeps it there
        error = inner or error.__cause__ or error.__context__
    return error is not None


def failed_query(error: BaseException, place: str) -> StorageError | QueryError:
    """Return what a failed query means."""
    code = code_of(error)
    if code == _OVERFLOW:
        return QueryError("a result beyond 64 bits", "expected smaller numbers")
    if code in _QUERY_LIMITS:
        return StorageError(
            f"the query was stopped by ClickHouse: {_told(code or 0)}",
            do="select a shorter time range, fewer columns or a limit",
        )
    if code is not None:
        return StorageError(f"the query failed in ClickHouse at {place}: {_told(code)}")
    return RetryableError(f"ClickHouse at {place} gave no answer ({type(error).__name__})")
