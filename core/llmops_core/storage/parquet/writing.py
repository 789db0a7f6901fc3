"""How a batch becomes Parquet: cut into days, in row groups that compress well, with its notes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from llmops_core.journal.ranges import Ranges
from llmops_core.schema import COLUMNS
from llmops_core.storage.parquet.files import day_of

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch

__all__ = ["days_of", "table_of", "write_options", "write_parquet"]

_FAMILY: Final = ("trace_id", "start_time")
_GROUP_ROWS: Final = 20_000
_GROUP_BYTES: Final = 256 * 1024 * 1024
# Few different values, so they are stored once a row group; and the keys of the two maps.
_REPEATED: Final = [
    *(c.name for c in COLUMNS if c.type == "enum"),
    *("trace_id", "parent_id", "agent_span_id", "session_id", "thread_id", "user_id", "project"),
    *("name", "agent", "target_agent", "error_type"),
    *("attributes.key_value.key", "measurements.key_value.key"),
]


def days_of(batch: SpanBatch) -> dict[str, Sequence[int]]:
    """Return the places of the spans that end on each UTC day."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = batch.column("end_time").cast(pa.int64())
    first, last = map(day_of, pc.min_max(ends).as_py().values())
    if first == last:
        return {first: range(len(batch))}
    days: dict[str, list[int]] = {}
    for at, end in enumerate(ends.to_pylist()):
        days.setdefault(day_of(end), []).append(at)
    return dict(days)


def table_of(batch: SpanBatch, rows: Sequence[int], held: Ranges) -> pa.Table | None:
    """Return the spans at the places *rows*, with the file's notes; None if none is left.

    *held* are the numbers of the batch's journal that compacted files speak for.
    """
    kept = _without(batch, rows, held)
    if not len(kept):
        return None
    table = batch.arrow if len(kept) == len(batch) else batch.arrow.take(list(kept))
    return table.replace_schema_metadata(_metadata(batch, table))


def write_parquet(table: pa.Table, file: pa.NativeFile) -> None:
    """Write a table of spans, in row groups."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, table.schema, **write_options(table.num_rows)) as writer:
        for group in _groups(table):
            writer.write_table(group, row_group_size=_GROUP_ROWS)


def _without(batch: SpanBatch, rows: Sequence[int], held: Ranges) -> Sequence[int]:
    """Leave out of the places *rows* those of spans that a compacted file speaks for."""
    if not len(held.within(batch.first_seq, batch.last_seq)):
        return rows
    seqs = batch.seqs()
    return [at for at in rows if (seqs[at] or 0) not in held]


def _metadata(batch: SpanBatch, table: pa.Table) -> dict[bytes | str, bytes | str]:
    """Return the file's notes: the schema's version and the range that it comes from."""
    source = f"{batch.writer_id}:{batch.first_seq}-{batch.last_seq}"
    return {**(table.schema.metadata or {}), "llmops.source": source}


def _groups(table: pa.Table) -> list[pa.Table]:
    """Cut into row groups in order of time, each sorted by trace: repeated histories compress."""
    average = max(1, table.nbytes // table.num_rows)
    rows = max(1, min(_GROUP_ROWS, _GROUP_BYTES // average))
    order = [(name, "ascending") for name in _FAMILY]
    return [table.slice(at, rows).sort_by(order) for at in range(0, table.num_rows, rows)]


def write_options(rows: int) -> dict[str, Any]:
    """Return how a file is written whose row groups have up to *rows* rows."""
    import pyarrow.parquet as pq

    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": _REPEATED,
        "data_page_size": 64 * 1024,
    }
    if "bloom_filter_options" in inspect.signature(pq.ParquetWriter.__init__).parameters:
        bloom = {"ndv": max(1, min(rows, _GROUP_ROWS)), "fpp": 0.01}
        options["bloom_filter_options"] = {"trace_id": bloom, "span_id": bloom}
    return options
