"""A batch of finished spans, as rows and, when somebody asks, as one Arrow table."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from llmops_core.schema import COLUMN_NAMES, arrow_schema
from llmops_core.span import Span

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SpanBatch", "spans_from_arrow", "spans_to_arrow"]


class SpanBatch:
    """Finished spans of one writer, a sealed range of its journal: never changed after it is made.

    ``first_seq`` to ``last_seq`` is the range; a replay of the same range has the same two numbers,
    so ``(writer_id, first_seq, last_seq)`` identifies the batch for ever. A storage may use it to
    make its write idempotent.
    """

    def __init__(
        self, rows: Iterable[Span], *, writer_id: str = "", first_seq: int = 0, last_seq: int = 0
    ) -> None:
        self.rows: tuple[Span, ...] = tuple(rows)
        self.writer_id = writer_id
        self.first_seq = first_seq
        self.last_seq = last_seq
        self._arrow: pa.Table | None = None
        self._source: SpanBatch | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        where = f"{self.writer_id}:{self.first_seq}-{self.last_seq}"
        return f"<SpanBatch {len(self.rows)} spans, {where}>"

    @property
    def arrow(self) -> pa.Table:
        """The rows as one Arrow table of :func:`~llmops_core.schema.arrow_schema`, made once."""
        # Not cached_property: on 3.11 it has one lock for all objects, and a child that is forked
        # while a batch is being converted would wait for it for ever.
        if self._source is not None:
            return self._source.arrow
        if self._arrow is None:
            self._arrow = spans_to_arrow(self.rows)
        return self._arrow

    def with_rows(self, rows: Iterable[Span]) -> SpanBatch:
        """Return a batch of the same range with other *rows*."""
        return SpanBatch(
            rows, writer_id=self.writer_id, first_seq=self.first_seq, last_seq=self.last_seq
        )

    def copied(self) -> SpanBatch:
        """Return a batch with spans of its own: who changes them by force changes nobody else's.

        Each plugin is given one. The Arrow table, which cannot be changed, is shared.
        """
        made = self.with_rows(map(_copied, self.rows))
        made._source = self
        return made


def _copied(span: Span) -> Span:
    changed: dict[str, dict[str, object]] = {}
    for name in ("attributes", "measurements"):
        values = getattr(span, name)
        if values is not None:
            changed[name] = dict(values)
    return msgspec.structs.replace(span, **changed) if changed else copy.copy(span)


def spans_to_arrow(rows: Sequence[Span]) -> pa.Table:
    """Turn spans into one Arrow table. A column that is null throughout costs next to nothing."""
    import pyarrow as pa

    schema = arrow_schema()
    if not rows:
        return schema.empty_table()
    count = len(rows)
    arrays = []
    columns = zip(*map(msgspec.structs.astuple, rows), strict=True)
    for field, values in zip(schema, columns, strict=True):
        if values[0] is None and values.count(None) == count:
            arrays.append(pa.nulls(count, field.type))
        elif pa.types.is_map(field.type):
            pairs = [None if v is None else list(v.items()) for v in values]
            arrays.append(pa.array(pairs, field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def spans_from_arrow(table: pa.Table) -> list[Span]:
    """Turn an Arrow table with (some of) the schema's columns back into spans."""
    import pyarrow as pa

    names = [n for n in COLUMN_NAMES if n in table.column_names]
    columns = []
    for name in names:
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        values = column.to_pylist()
        if pa.types.is_map(column.type):
            values = [None if v is None else dict(v) for v in values]
        elif pa.types.is_list(column.type):
            values = [None if v is None else tuple(v) for v in values]
        columns.append(values)
    return [Span(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
