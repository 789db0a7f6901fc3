"""Spans that a storage refuses for good, each in a file of its own beside the journals.

A file appears by a rename and is named after the span, so a span that is refused again, also by a
replay after a crash, is there once. It is the user's content: only the owner may read it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from llmops_core.batch import SpanBatch
from llmops_core.span import Span
from llmops_core.storable import storable

__all__ = ["FOLDER", "MAX_SPANS", "Quarantine", "QuarantineFull", "Refused"]

FOLDER: Final = ".quarantine"
MAX_SPANS: Final = 100_000
_SUFFIX: Final = ".span"
_MOST_REASON: Final = 500
#: For how long a count of the files is good: counting 100,000 takes as long as keeping 1,000 more.
_COUNT_SECONDS: Final = 1.0


class QuarantineFull(Exception):  # noqa: N818 - it says what is wrong
    """The quarantine holds as many spans as it may."""


class Refused(msgspec.Struct, frozen=True):
    """A span that a storage refused, when (UTC microseconds), and what it said."""

    span: Span
    error_type: str
    reason: str
    time: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Refused)


class Quarantine:
    """The quarantine below a journals' root. Several processes may use it at once.

    Each counts what is there once a second, so *max_spans* is exceeded by what others add in one.
    """

    def __init__(self, root: Path, *, max_spans: int = MAX_SPANS) -> None:
        self.folder = root / FOLDER
        self._max_spans = max_spans
        self._count = 0
        self._count_again_at = 0.0

    def add(self, span: Span, error: BaseException) -> None:
        """Keep a span and why it was refused. Raises ``OSError``, or ``QuarantineFull``."""
        path = self._path(span.span_id)
        is_new = not path.exists()
        if is_new and self._is_full():
            raise QuarantineFull(f"{self._max_spans} spans")
        data = _encoded(span, error)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._count += is_new

    def _is_full(self) -> bool:
        now = time.monotonic()
        if now >= self._count_again_at:
            self._count, self._count_again_at = len(self), now + _COUNT_SECONDS
        return self._count >= self._max_spans

    def __len__(self) -> int:
        return sum(1 for _ in self._paths())

    def __iter__(self) -> Iterator[Refused]:
        """Yield what is kept, oldest first; a file that cannot be read is left out."""
        found = []
        for path in self._paths():
            try:
                found.append(_DECODER.decode(path.read_bytes()))
            except (OSError, msgspec.MsgspecError):
                continue
        return iter(sorted(found, key=lambda refused: refused.time))

    def remove(self, span_ids: Iterable[str]) -> int:
        """Forget spans; return how many were there."""
        removed = 0
        for span_id in span_ids:
            try:
                self._path(span_id).unlink()
            except FileNotFoundError:
                continue
            removed += 1
        self._count_again_at = 0.0
        return removed

    def _path(self, span_id: str) -> Path:
        # A digest: an id may be any text, and a file's name may not.
        digest = hashlib.sha256(span_id.encode(errors="surrogatepass")).hexdigest()[:32]
        return self.folder / f"{digest}{_SUFFIX}"

    def _paths(self) -> list[Path]:
        try:
            return [p for p in self.folder.iterdir() if p.suffix == _SUFFIX]
        except (FileNotFoundError, NotADirectoryError):
            return []


def _encoded(span: Span, error: BaseException) -> bytes:
    reason = str(error)[:_MOST_REASON].encode(errors="replace").decode()
    kind, now = type(error).__name__, time.time_ns() // 1000
    try:
        return _ENCODER.encode(Refused(span, kind, reason, now))
    except (UnicodeEncodeError, OverflowError):  # what no journal can hold either
        [span] = storable(SpanBatch([span])).rows
        return _ENCODER.encode(Refused(span, kind, reason, now))
