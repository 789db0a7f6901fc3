"""A batch of finished spans: as columns, as rows and as one Arrow table, each made when asked for."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise, repeat
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import msgspec

from llmops_core.schema import COLUMN_NAMES, arrow_schema
from llmops_core.span import Span

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ArrowValues",
    "SpanBatch",
    "SpanColumns",
    "copied_span",
    "spans_from_arrow",
    "spans_to_arrow",
]

#: Values by column, as many in each; what is null throughout is missing.
SpanColumns = dict[str, list[Any]]


class ArrowValues(Sequence[Any]):
    """Numbers that a collector measured, as an Arrow array: a sequence of plain values as well."""

    def __init__(self, array: pa.Array) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, at: Any) -> Any:
        found = self.array[at]
        return found.to_pylist() if isinstance(at, slice) else found.as_py()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array.to_pylist())


class SpanBatch:
    """Finished spans of one writer, a sealed range of its journal: never changed after it is made.

    ``first_seq`` to ``last_seq`` is the range; a replay of the same range has the same two numbers,
    so ``(writer_id, first_seq, last_seq)`` identifies the batch for ever. A storage may use it to
    make its write idempotent.
    """

    # No cached_property: on 3.11 it has one lock for all objects, and a child that is forked while
    # a batch is being converted would wait for it for ever.

    def __init__(
        self,
        rows: Iterable[Span] = (),
        *,
        writer_id: str = "",
        first_seq: int = 0,
        last_seq: int = 0,
    ) -> None:
        self.writer_id = writer_id
        self.first_seq = first_seq
        self.last_seq = last_seq
        self._rows: tuple[Span, ...] | None = tuple(rows)
        self._count = len(self._rows)
        self._columns: SpanColumns | None = None
        self._arrays: dict[str, pa.Array] = {}
        #: Columns whose values are in ``_arrays`` alone.
        self.measured: frozenset[str] = frozenset()
        self._arrow: pa.Table | None = None
        self._source: SpanBatch | None = None

    @classmethod
    def of_columns(cls, columns: SpanColumns, *, writer_id: str = "") -> SpanBatch:
        """Make a batch of columns, of which none is empty. The core's own way: they are not copied."""
        count = len(columns["span_id"])
        seqs = columns.get("seq") or [0]
        batch = cls(writer_id=writer_id, first_seq=seqs[0] or 0, last_seq=seqs[-1] or 0)
        batch._rows, batch._columns, batch._count = None, columns, count
        return batch

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        where = f"{self.writer_id}:{self.first_seq}-{self.last_seq}"
        return f"<SpanBatch {len(self)} spans, {where}>"

    @property
    def rows(self) -> tuple[Span, ...]:
        """The spans, made once."""
        rows = self._rows
        if rows is None:
            columns = self._all_columns()
            values = [columns.get(name) or repeat(None, self._count) for name in COLUMN_NAMES]
            rows = tuple(msgspec.convert(list(zip(*values, strict=True)), list[Span]))
            self._rows = rows
        return rows

    @property
    def arrow(self) -> pa.Table:
        """The spans as one Arrow table of :func:`~llmops_core.schema.arrow_schema`, made once."""
        import pyarrow as pa

        if self._source is not None:
            return self._source.arrow
        made = self._arrow
        if made is None:
            arrays = [self.column(name) for name in COLUMN_NAMES]
            made = self._arrow = pa.Table.from_arrays(arrays, schema=arrow_schema())
        return made

    def forget_arrays(self) -> None:
        """Let go of what can be made again: a batch that has to wait would hold its texts twice."""
        self._arrow = None
        self._arrays = {name: self._arrays[name] for name in self.measured}

    def column(self, name: str) -> pa.Array:
        """One column of :attr:`arrow`, made once. Cheaper than all of them."""
        if self._source is not None:
            return self._source.column(name)
        array = self._arrays.get(name)
        if array is None:
            values = self.plain_columns().get(name)
            array = _array(values, arrow_schema().field(name).type, self._count)
            self._arrays[name] = array
        return array

    def values(self, name: str) -> Sequence[Any]:
        """The plain values of one column, without making rows or arrays."""
        if name in self.measured:
            return list(ArrowValues(self._arrays[name]))
        if self._columns is None:
            return [getattr(row, name) for row in self.rows]
        return self._columns.get(name) or [None] * self._count

    def with_rows(self, rows: Iterable[Span]) -> SpanBatch:
        """Return a batch of the same range with other *rows*."""
        return SpanBatch(
            rows, writer_id=self.writer_id, first_seq=self.first_seq, last_seq=self.last_seq
        )

    def with_columns(self, arrays: Mapping[str, pa.Array]) -> SpanBatch:
        """Return a batch with other values in some columns; where they are null, the old ones stay."""
        import pyarrow.compute as pc

        batch = SpanBatch(
            writer_id=self.writer_id, first_seq=self.first_seq, last_seq=self.last_seq
        )
        batch._rows, batch._columns, batch._count = None, self.plain_columns(), self._count
        batch._arrays = dict(self._arrays)
        for name, array in arrays.items():
            known = name in self.measured or name in batch._columns
            batch._arrays[name] = pc.coalesce(array, self.column(name)) if known else array
        batch.measured = self.measured | arrays.keys()
        return batch

    def copied(self) -> SpanBatch:
        """Return a batch with spans of its own: who changes them by force changes nobody else's.

        Each plugin is given one. The Arrow table, which cannot be changed, is shared.
        """
        if self._columns is None:
            made = self.with_rows(map(copied_span, self.rows))
        else:  # rows are made of columns anew, and share nothing that can be changed
            made = self.with_columns({})
            made._arrays, made.measured = self._arrays, self.measured
        made._source = self
        return made

    def records(self) -> Sequence[Any]:
        """Return what a journal encodes: spans, or tuples of their values, which is the same."""
        if self._rows is not None:
            return self._rows
        columns = self._all_columns()
        values = [columns.get(name) or repeat(None, self._count) for name in COLUMN_NAMES]
        return list(zip(*values, strict=True))

    def seqs(self) -> Sequence[int | None]:
        """Return the places of the spans in the journal."""
        return self.values("seq")

    def cut(self, start: int, stop: int) -> SpanBatch:
        """Return the batch of the spans from *start* up to *stop*, of which there is one at least."""
        stop = min(stop, self._count)
        if start == 0 and stop == self._count:
            return self
        if self._columns is None:
            rows = self.rows[start:stop]
            first, last = rows[0].seq or 0, rows[-1].seq or 0
            return SpanBatch(rows, writer_id=self.writer_id, first_seq=first, last_seq=last)
        columns = {name: values[start:stop] for name, values in self._columns.items()}
        part = SpanBatch.of_columns(columns, writer_id=self.writer_id)
        # A list, as an exporter's thread may be adding to what is there.
        arrays = list(self._arrays.items())
        part._arrays = {name: array.slice(start, stop - start) for name, array in arrays}
        part.measured = self.measured
        return part

    def parted(self, place: int | None) -> list[SpanBatch]:
        """Cut off the span at *place*, which a storage refuses; halve where it is not known."""
        if place is None or not 0 <= place < self._count:
            edges = {0, self._count // 2, self._count}
        else:
            edges = {0, place, place + 1, self._count}
        ordered = sorted(edges)
        return [self.cut(a, b) for a, b in pairwise(ordered)]

    @classmethod
    def joined(cls, batches: Sequence[SpanBatch]) -> SpanBatch:
        """Return one batch of batches that follow each other."""
        if len(batches) == 1:
            return batches[0]
        first, last = batches[0], batches[-1]
        if any(batch._columns is None for batch in batches):
            return cls(
                chain.from_iterable(batch.rows for batch in batches),
                writer_id=first.writer_id,
                first_seq=first.first_seq,
                last_seq=last.last_seq,
            )
        whole = cls.of_columns(_joined_columns(batches), writer_id=first.writer_id)
        whole.measured = frozenset().union(*(batch.measured for batch in batches))
        for name in whole.measured:
            whole._arrays[name] = _concatenated([batch.column(name) for batch in batches])
        for name in set(first._arrays) - whole.measured:
            arrays = [b._arrays[name] for b in batches if name in b._arrays]
            if len(arrays) == len(batches):
                whole._arrays[name] = _concatenated(arrays)
        return whole

    def plain_columns(self) -> SpanColumns:
        """Return the values by column, without what is null throughout or was measured since.

        Made once and shared: not to be changed.
        """
        if self._columns is None:
            rows = map(msgspec.structs.astuple, self._rows or ())
            named = zip(COLUMN_NAMES, zip(*rows, strict=True), strict=False)
            self._columns = {n: list(c) for n, c in named if not _is_null(c)}
        return self._columns

    def _all_columns(self) -> SpanColumns:
        measured = {name: self._arrays[name].to_pylist() for name in self.measured}
        return {**self.plain_columns(), **measured}


def copied_span(span: Span) -> Span:
    """Return a span that shares nothing that can be changed."""
    changed: dict[str, dict[str, object]] = {}
    for name in ("attributes", "measurements"):
        values = getattr(span, name)
        if values is not None:
            changed[name] = dict(values)
    return msgspec.structs.replace(span, **changed) if changed else copy.copy(span)


def _joined_columns(batches: Sequence[SpanBatch]) -> SpanColumns:
    parts = [(len(batch), batch.plain_columns()) for batch in batches]
    return {
        name: list(
            chain.from_iterable(part.get(name) or repeat(None, count) for count, part in parts)
        )
        for name in set().union(*(part for _, part in parts))
    }


def _concatenated(arrays: Sequence[pa.Array]) -> pa.Array:
    import pyarrow as pa

    return pa.concat_arrays(arrays)


def _is_null(values: Sequence[Any]) -> bool:
    return values[0] is None and values.count(None) == len(values)


def _array(values: Sequence[Any] | None, kind: pa.DataType, count: int) -> pa.Array:
    """Return one column as Arrow. What is null throughout costs next to nothing."""
    import pyarrow as pa

    if values is None or _is_null(values):
        return pa.nulls(count, kind)
    if pa.types.is_dictionary(kind) and values[-1] == values[0]:
        if values.count(values[0]) == count:
            places = pa.repeat(pa.scalar(0, kind.index_type), count)
            return pa.DictionaryArray.from_arrays(places, pa.array(values[:1], kind.value_type))
    elif pa.types.is_map(kind):
        return _map_array(values, kind)
    return pa.array(values, kind)


def _map_array(values: Sequence[Mapping[str, Any] | None], kind: pa.MapType) -> pa.Array:
    import pyarrow as pa

    maps = list(filter(None, values))
    keys = pa.array(list(chain.from_iterable(maps)), kind.key_type)
    items = chain.from_iterable(map(methodcaller("values"), maps))
    if len(maps) == len(values):
        starts: list[int | None] = list(accumulate(map(len, maps), initial=0))
    else:
        ends = list(accumulate((len(value or ()) for value in values), initial=0))
        # Where a start is null, the map is; the last number is an end.
        starts = [None if v is None else at for v, at in zip(values, ends, strict=False)]
        starts.append(ends[-1])
    taken = pa.array(list(items), kind.item_type)
    return pa.MapArray.from_arrays(pa.array(starts, pa.int32()), keys, taken)


def spans_to_arrow(rows: Sequence[Span]) -> pa.Table:
    """Turn spans into one Arrow table. A column that is null throughout costs next to nothing."""
    return SpanBatch(rows).arrow


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
