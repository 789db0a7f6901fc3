"""Spans as rows for COPY, and rows back as the values of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from llmops_core.schema import COLUMN_NAMES

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch

__all__ = ["records", "write_seconds"]

BASE_SECONDS: Final = 8.0
#: A server that takes less than this is taken for one that hangs.
LEAST_BYTES_PER_SECOND: Final = 500_000


def records(batch: SpanBatch) -> Iterator[tuple[Any, ...]]:
    """Return a tuple for each span, in the order of the columns."""
    plain = batch.plain_columns()
    columns: list[Iterable[Any]] = []
    for name in COLUMN_NAMES:
        if name in batch.measured:
            columns.append(batch.values(name))
        else:
            columns.append(plain.get(name) or repeat(None, len(batch)))
    return zip(*columns, strict=True)


def write_seconds(batch: SpanBatch) -> float:
    """Return how long a write may take before its connection is given up."""
    texts: Sequence[Sequence[str | None]] = [batch.values("input"), batch.values("output")]
    size = sum(len(text) for column in texts for text in column if text is not None)
    return BASE_SECONDS + len(batch) / 1_000 + size / LEAST_BYTES_PER_SECOND
