"""Append spans to a file, one JSON object a line: ``jsonl:./spans.jsonl``.

A line holds every column that is not null, in the order of the schema. Times are ISO 8601 text in
UTC with microseconds (``2026-01-31T12:00:00.000000Z``), which people and other tools read as they
are and which sorts as text.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmops_core.errors import ConfigError, StorageError
from llmops_core.hookspecs import hookimpl
from llmops_core.schema import COLUMN_NAMES, COLUMNS

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = ["JsonLinesExporter", "json_line"]

_TIMES: Final = frozenset(c.name for c in COLUMNS if c.type == "timestamp")
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - written as UTC, with a Z
_encoder: Final = msgspec.json.Encoder()


class JsonLinesExporter:
    """Appends to one file, which only its owner may read (0600); several processes may share it.

    Each batch is one append. The file is opened with the first batch and a line that was torn by a
    full disk is closed off, so that the next one starts on a line of its own.
    """

    name = "jsonl"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _checked(path)
        self._file: int | None = None
        self._torn = False

    async def export(self, batch: SpanBatch) -> None:
        """Append the batch. Called on the exporter's own thread; the write runs on a helper thread.

        Raises ``OSError`` if the disk does not take it; the batch is then counted as failed.
        """
        await asyncio.to_thread(self._append, batch.rows)

    async def close(self) -> None:
        """Close the file. What was exported is with the operating system already."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, rows: tuple[Span, ...]) -> None:
        if self._file is None:
            self._file, self._torn = _opened(self.path)
        data = b"".join(json_line(span) for span in rows)
        rest = memoryview(b"\n" + data if self._torn and data else data)
        while rest:
            try:
                written = os.write(self._file, rest)
            except OSError:
                # Whether our last byte ended a line is not known here; an empty line does no harm.
                self._torn = True
                raise
            rest = rest[written:]
            self._torn = bool(rest)


def json_line(span: Span) -> bytes:
    """Return a span as one line of JSON, its line break included. NaN and infinity become null."""
    values: dict[str, Any] = {}
    for name in COLUMN_NAMES:
        value = getattr(span, name)
        if value is not None:
            values[name] = _iso(value) if name in _TIMES else value
    return _encoder.encode(values) + b"\n"


def _iso(micros: int) -> str | int:
    try:
        moment = _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        return micros  # no calendar has it: better the number than no line
    return moment.isoformat(timespec="microseconds") + "Z"


def _opened(path: Path) -> tuple[int, bool]:
    """Open for appending; say whether the last line that is there has no end."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return file, False
    return file, os.pread(file, 1, status.st_size - 1) != b"\n"


def _checked(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path that can be appended to, or raise. Creates nothing."""
    if not os.fspath(path):
        raise ConfigError(
            "exporter 'jsonl' without a path", "expected jsonl:PATH", "jsonl:./spans.jsonl"
        )
    full = Path(path).expanduser().absolute()
    if full.is_dir():
        raise ConfigError(
            f"the jsonl path {str(full)!r} is a folder", "expected a file", "add a file name"
        )
    if not full.parent.is_dir():
        raise ConfigError(
            f"the jsonl folder {str(full.parent)!r} does not exist",
            "expected a folder",
            "create it first",
        )
    target = full if full.exists() else full.parent
    if not os.access(target, os.W_OK):
        raise StorageError(
            f"the jsonl path {str(target)!r} is not writable", "expected write permission"
        )
    return full


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the exporter; its argument is the path."""
    registry.exporter("jsonl", JsonLinesExporter)
