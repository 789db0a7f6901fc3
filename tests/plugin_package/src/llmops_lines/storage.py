"""The storage: one JSON object a line, appended under a lock, so several processes may write."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from llmops_core import ConfigError, Span, SpanBatch, SpanQuery
from llmops_core.query.duckdb_engine import DuckEngine

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LinesStorage"]


class LinesStorage:
    """Spans in one file. A span id is stored once, whoever writes it and however often.

    The file only grows, so there is no ``delete`` and no ``replace``.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._spans: dict[str, Span] = {}
        self._read_to = 0
        self._engine = DuckEngine()

    @classmethod
    def from_url(cls, url: str) -> LinesStorage:
        """Make the storage of a URL such as ``lines:./spans.jsonl``."""
        path = url.partition(":")[2]
        if not path:
            raise ConfigError(
                f"storage {url!r} names no file", "expected a URL such as 'lines:./spans.jsonl'"
            )
        return cls(path)

    async def open(self) -> None:
        """Create the folder and the file, so that a path that cannot be written fails at set-up."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    async def write(self, batch: SpanBatch) -> None:
        """Append the spans that are not in the file yet, and make them durable."""
        with self._path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            self._read_on(file)
            new = {s.span_id: s for s in batch.rows if s.span_id not in self._spans}
            # A writer that died in the middle left half a line behind what was read: cut it off.
            file.truncate(self._read_to)
            file.seek(self._read_to)
            file.write(b"".join(map(_line, new.values())))
            file.flush()
            os.fsync(file.fileno())
            self._read_to = file.tell()
        self._spans |= new

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer from memory, after reading what others have appended."""
        with self._path.open("rb") as file:
            self._read_on(file)
        table = SpanBatch(self._spans.values()).arrow
        return await asyncio.to_thread(self._engine.run, query, table)

    async def close(self) -> None:
        """Forget what was read; the file stays."""
        self._engine.close()
        self._spans, self._read_to = {}, 0

    def _read_on(self, file: BinaryIO) -> None:
        """Read the whole lines behind the last one that was read."""
        file.seek(self._read_to)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            span = _span(line)
            self._spans.setdefault(span.span_id, span)
        self._read_to += len(whole)


def _line(span: Span) -> bytes:
    return msgspec.json.encode(msgspec.structs.asdict(span)) + b"\n"


def _span(line: bytes) -> Span:
    fields = msgspec.json.decode(line)
    if fields["tags"] is not None:
        fields["tags"] = tuple(fields["tags"])
    return Span(**fields)
