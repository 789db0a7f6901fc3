"""Spans as rows for COPY, and rows back as the values of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_core.schema import COLUMN_NAMES

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch

__all__ = ["Records", "records", "write_seconds"]

BASE_SECONDS: Final = 8.0
#: A server that takes less than this is taken for one that hangs.
LEAST_BYTES_PER_SECOND: Final = 500_000


class Records(NamedTuple):
    """The columns in which a batch has values, and a tuple of these for each span."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def records(batch: SpanBatch) -> Records:
    """Return what to copy. A column that is null throughout is left out, and costs nothing."""
    plain = batch.plain_columns()
    columns = [name for name in COLUMN_NAMES if name in plain or name in batch.measured]
    values = [batch.values(name) for name in columns]
    return Records(columns, list(zip(*values, strict=True)))


def write_seconds(batch: SpanBatch) -> float:
    """Return how long a write may take before its connection is given up."""
    texts: Sequence[Sequence[str | None]] = [batch.values("input"), batch.values("output")]
    size = sum(len(text) for column in texts for text in column if text is not None)
    return BASE_SECONDS + len(batch) / 1_000 + size / LEAST_BYTES_PER_SECOND
