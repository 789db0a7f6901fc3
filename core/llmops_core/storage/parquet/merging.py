"""Many files into one, sorted by trace, in the memory of one piece of it.

The order is found from two narrow columns; then the rows of one piece after another are collected
from the row groups that hold them. Each step is short, so whoever runs them can do other things in
between.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from llmops_core.schema import COLUMN_NAMES, arrow_schema
from llmops_core.span import SCHEMA_VERSION

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["DamagedFile", "Outline", "complete", "encoded", "merge", "outline"]

_KEYS: Final = ["trace_id", "start_time"]
_GROUP_ROWS: Final = 20_000
#: A piece that turns out to be so many times larger than it should be is cut in two.
_OVERSIZE: Final = 4
#: Compaction has the time that a writer has not.
_ZSTD_LEVEL: Final = 3


class DamagedFile(Exception):  # noqa: N818 - it says what is wrong
    """A file could not be read to its end, although its footer is sound."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Outline(NamedTuple):
    """A file as its footer describes it."""

    path: str
    bytes: int
    rows: int
    #: Rows and bytes, as they are in memory, of each row group.
    groups: list[tuple[int, int]]
    first_trace: str


def outline(path: str) -> Outline | str:
    """Read a footer; return why the file must stay as it is, if it must.

    ``newer``: it has columns, types or a version that are not known here, which would be lost.
    ``damaged``: it cannot be read. Raises ``FileNotFoundError`` if it is gone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        size = Path(path).stat().st_size
        metadata = pq.read_metadata(path)
        if not _is_known(metadata):
            return "newer"
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        sizes = [(g.num_rows, max(g.total_byte_size, g.num_rows)) for g in groups]
        return Outline(path, size, metadata.num_rows, sizes, _first_trace(metadata))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return "damaged"


def _is_known(metadata: pq.FileMetaData) -> bool:
    import pyarrow as pa

    version = (metadata.metadata or {}).get(b"llmops.schema_version", b"1")
    if not version.isdigit() or int(version) > SCHEMA_VERSION:
        return False
    expected, names = arrow_schema(), set()
    for field in metadata.schema.to_arrow_schema():
        if field.name in names or field.name not in COLUMN_NAMES:
            return False
        names.add(field.name)
        known = expected.field(field.name).type
        if _plain_type(field.type) != _plain_type(known) and not pa.types.is_null(field.type):
            return False
    return all(f.nullable or f.name in names for f in expected)


def _plain_type(found: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_dictionary(found):
        return found.value_type
    if pa.types.is_map(found):
        return pa.map_(found.key_type, found.item_type)
    return pa.list_(found.value_type) if pa.types.is_list(found) else found


def _first_trace(metadata: pq.FileMetaData) -> str:
    at = metadata.schema.to_arrow_schema().get_field_index("trace_id")
    first = []
    for i in range(metadata.num_row_groups):
        statistics = metadata.row_group(i).column(_leaf(metadata, "trace_id")).statistics
        if at >= 0 and statistics is not None and statistics.has_min_max:
            first.append(str(statistics.min))
    return min(first, default="")


def _leaf(metadata: pq.FileMetaData, name: str) -> int:
    return next(i for i in range(metadata.num_columns) if metadata.schema.column(i).path == name)


class _Unit(NamedTuple):
    """One row group of one file: what is read at once."""

    path: str
    group: int
    row_bytes: float


def merge(
    sources: Sequence[Outline], target: Path, metadata: dict[bytes, bytes], piece_bytes: int
) -> Iterator[None]:
    """Write the rows of *sources*, sorted, into *target*, a new file; sync it. One step a yield.

    Raises ``DamagedFile`` if one of them cannot be read, ``OSError`` if there is no space. The
    caller removes the target then. Closing the iterator closes the target.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    units = [
        _Unit(s.path, i, size / max(rows, 1))
        for s in sources
        for i, (rows, size) in enumerate(s.groups)
    ]
    order = yield from _order(units)
    schema = arrow_schema()
    schema = schema.with_metadata({**(schema.metadata or {}), **metadata})
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    written = 0
    with (
        pa.OSFile(str(target), "wb") as file,
        pq.ParquetWriter(file, schema, **_options(order.num_rows)) as writer,
    ):
        for first, count in _pieces(order, units, piece_bytes):
            for table in _collect(order.slice(first, count), units, piece_bytes):
                writer.write_table(table, row_group_size=_GROUP_ROWS)
                written += table.num_rows
                yield
    if written != sum(s.rows for s in sources):
        raise ValueError(f"{written} rows written of {sum(s.rows for s in sources)}")
    with target.open("rb") as done:
        os.fsync(done.fileno())
    yield


def _options(rows: int) -> dict[str, Any]:
    from llmops_core.storage.parquet.writing import write_options

    return {**write_options(rows), "compression_level": _ZSTD_LEVEL}


def _order(units: Sequence[_Unit]) -> Generator[None, None, pa.Table]:
    """Find the order of all rows: a table of the unit and the row in it. The generator's result."""
    import pyarrow as pa

    keys = []
    for number, unit in enumerate(units):
        table = _read(unit, _KEYS)
        count = table.num_rows
        columns = [_plain(table[name]) for name in _KEYS]
        where = [
            pa.repeat(pa.scalar(number, pa.int32()), count),
            pa.array(range(count), pa.int32()),
        ]
        keys.append(pa.table([*columns, *where], names=[*_KEYS, "unit", "row"]))
        yield
    table = pa.concat_tables(keys).sort_by([(name, "ascending") for name in _KEYS])
    yield
    return table.select(["unit", "row"])


def _pieces(order: pa.Table, units: Sequence[_Unit], piece_bytes: int) -> list[tuple[int, int]]:
    """Cut the rows, in their order, into pieces of about *piece_bytes*."""
    import pyarrow as pa
    import pyarrow.compute as pc

    each = pa.array([u.row_bytes for u in units], pa.float64()).take(order["unit"].combine_chunks())
    number = pc.floor(pc.divide(pc.cumulative_sum(each), float(piece_bytes)))
    pieces, first = [], 0
    for counted in pc.value_counts(number).to_pylist():
        pieces.append((first, counted["counts"]))
        first += counted["counts"]
    return pieces


def _collect(rows: pa.Table, units: Sequence[_Unit], piece_bytes: int) -> Iterator[pa.Table]:
    """Read *rows*, in their order; in two halves if they are much larger than they should be."""
    import pyarrow as pa
    import pyarrow.compute as pc

    count = rows.num_rows
    at = rows.append_column("at", pa.array(range(count), pa.int64()))
    at = at.sort_by([("unit", "ascending"), ("row", "ascending")])
    parts, size, first = [], 0, 0
    for counted in pc.value_counts(at["unit"]).to_pylist():
        wanted = at["row"].slice(first, counted["counts"]).combine_chunks()
        first += counted["counts"]
        unit = units[counted["values"]]
        parts.append(complete(_read(unit), wanted, unit.path))
        size += parts[-1].nbytes
        if size > _OVERSIZE * piece_bytes and count > 1:
            del parts
            yield from _collect(rows.slice(0, count // 2), units, piece_bytes)
            yield from _collect(rows.slice(count // 2), units, piece_bytes)
            return
    table = pa.concat_tables(parts).take(pc.sort_indices(at["at"]))
    yield pa.Table.from_arrays(
        [encoded(table[f.name], f.type) for f in arrow_schema()], schema=arrow_schema()
    )


def _read(unit: _Unit, columns: Sequence[str] | None = None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(unit.path) as file:
            return file.read_row_group(unit.group, columns=columns, use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedFile(unit.path) from error


def complete(table: pa.Table, rows: pa.Array, path: str) -> pa.Table:
    """Take rows of a file, with every column of the schema: those that it lacks are null."""
    import pyarrow as pa

    columns = []
    try:
        for field in arrow_schema():
            kind = _plain_type(field.type)
            if field.name in table.column_names:
                column = _plain(table[field.name]).take(rows)
                columns.append(column.cast(kind) if column.type != kind else column)
            else:
                columns.append(pa.nulls(len(rows), kind))
    except (pa.ArrowException, IndexError, ValueError) as error:
        raise DamagedFile(path) from error
    return pa.Table.from_arrays(columns, names=arrow_schema().names)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def encoded(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a plain column in a type of the schema."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        column = column.combine_chunks().dictionary_encode()
    return column.cast(kind) if column.type != kind else column
