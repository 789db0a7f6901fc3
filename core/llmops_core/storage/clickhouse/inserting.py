"""How a batch gets into ClickHouse, once.

Two things see to it that a span is stored once, and neither costs a query anything:

- **A token.** Each insert has one, made of the journal's range and of the ids in it. The server
  remembers the last ones and ignores an insert whose token it has, also while the first is still
  under way: an answer that got lost, a timeout, a replay by another process.
- **A look at what is there.** The insert leaves out the spans whose ids the table has. That covers
  what is cut otherwise than before (halves of a batch, spans out of the quarantine, a copy) and what
  comes long after its token was forgotten. The server looks at one narrow column of the rows that
  began when spans of the batch did, which the order of the table finds without a scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_core.query.clickhouse import PRESENT, PRESENT_BITS
from llmops_core.storage.clickhouse.table import COLUMN_TYPES, structure

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch

__all__ = ["Insert", "encode", "inserts", "prepared"]

#: What one insert holds at most. It becomes one block on the server, which is stored or is not.
MAX_ROWS: Final = 20_000
MAX_BYTES: Final = 32 * 1024 * 1024
#: Start times further apart are looked for apart: roots that ran for long are not to widen the look.
_GAP_MICROS: Final = 5_000_000
_MOST_INTERVALS: Final = 32


class Insert(NamedTuple):
    """One insert: its rows, its token, and when its spans began."""

    rows: pa.Table
    token: str
    intervals: list[tuple[int, int]]

    def statement(self, table: str, *, spread: bool = False) -> str:
        """Return the statement that the encoded rows follow."""
        columns = ", ".join(f"`{name}`" for name in COLUMN_TYPES)
        began = " OR ".join(
            f"(`start_time` BETWEEN {_at(a)} AND {_at(z)})" for a, z in self.intervals
        )
        everywhere = "GLOBAL " if spread else ""
        return (
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM input('{structure()}')"  # noqa: S608
            f" WHERE `span_id` {everywhere}NOT IN (SELECT `span_id` FROM {table} WHERE {began})"
            " FORMAT ArrowStream\n"
        )


def _at(micros: int) -> str:
    # No parameter, as the driver sends none beside a body; a whole number can say nothing else.
    return f"fromUnixTimestamp64Micro({micros:d}, 'UTC')"


def inserts(batch: SpanBatch, epoch: str = "") -> Iterator[Insert]:
    """Cut a batch into inserts. *epoch* changes when spans were deleted, and tokens with it."""
    table = prepared(batch)
    average = max(1, table.nbytes // table.num_rows)
    size = max(1, min(MAX_ROWS, MAX_BYTES // average))
    for at in range(0, table.num_rows, size):
        part = table.slice(at, size)
        ids = "\n".join(part["span_id"].to_pylist()).encode(errors="replace")
        about = f"{epoch} {batch.writer_id}:{batch.first_seq}-{batch.last_seq}\n".encode()
        token = hashlib.blake2b(about + ids, digest_size=16).hexdigest()
        yield Insert(part, token, _intervals(part["start_time"]))


def prepared(batch: SpanBatch) -> pa.Table:
    """Return the spans as rows of the table, each id once.

    They have one more column, which says what lists and maps are there: ClickHouse has no null ones.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _distinct(batch.arrow)
    bits = pa.repeat(pa.scalar(0, pa.uint8()), table.num_rows)
    for name, bit in PRESENT_BITS.items():
        column = table[name]
        if column.null_count == table.num_rows:
            continue
        there = pc.is_valid(column).cast(pa.uint8())
        bits = pc.bit_wise_or(bits, pc.shift_left(there, pa.scalar(bit, pa.uint8())))
    return table.append_column(PRESENT, bits)


def encode(table: pa.Table) -> bytes:
    """Return rows as one block of an Arrow stream, in the order of the table's columns."""
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    sink = pa.BufferOutputStream()
    table = table.combine_chunks()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _distinct(table: pa.Table) -> pa.Table:
    """Keep the first of spans that have the same id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.count_distinct(table["span_id"]).as_py() == table.num_rows:
        return table
    seen: dict[Any, int] = {}
    for at, span_id in enumerate(table["span_id"].to_pylist()):
        seen.setdefault(span_id, at)
    return table.take(pa.array(list(seen.values()), pa.int64()))


def _intervals(starts: pa.ChunkedArray) -> list[tuple[int, int]]:
    """Return the times within which spans began, apart where nothing began for a while."""
    import pyarrow as pa

    times = sorted(starts.cast(pa.int64()).to_pylist())
    found = [[times[0], times[0]]]
    for time in times:
        if time - found[-1][1] > _GAP_MICROS:
            found.append([time, time])
        found[-1][1] = time
    while len(found) > _MOST_INTERVALS:
        at = min(range(len(found) - 1), key=lambda i: found[i + 1][0] - found[i][1])
        found[at][1] = found.pop(at + 1)[1]
    return [(first, last) for first, last in found]
