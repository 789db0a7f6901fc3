"""How stored spans are rewritten: by one mutation, which takes the new values from a table beside.

The table beside has the ``Join`` engine, in which the mutation finds a value by the span's id. Its
name follows from the batch, so whoever was interrupted and calls again goes on where it was.
"""

# ruff: noqa: S608 - SQL is put together here, of names from the schema and of checked ones only

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from llmops_core.query.clickhouse import PRESENT
from llmops_core.storage.clickhouse.address import Address
from llmops_core.storage.clickhouse.table import COLUMN_TYPES, quoted, structure

if TYPE_CHECKING:
    import pyarrow as pa


__all__ = ["Replacement"]

#: What says where a row lies; a caller changes none of it.
_FIXED: Final = ("span_id", "start_time")


class Replacement:
    """The statements of one replacement, of rows that are in the form of an insert."""

    def __init__(self, address: Address, rows: pa.Table) -> None:
        ids = "\n".join(rows["span_id"].to_pylist())
        mark = hashlib.blake2b(ids.encode() + _fingerprint(rows), digest_size=8).hexdigest()
        self._table = quoted(address)
        self._name = f"{address.database}.{address.table[:32]}_new_{mark}"
        self._beside = quoted(address, f"{address.table[:32]}_new_{mark}")
        self._rows = rows

    @property
    def create(self) -> str:
        """Make the table beside."""
        columns = ", ".join(f"`{name}` {kind}" for name, kind in COLUMN_TYPES.items())
        return (
            f"CREATE TABLE IF NOT EXISTS {self._beside} ({columns})"
            " ENGINE = Join(ANY, LEFT, `span_id`)"
        )

    @property
    def fill(self) -> str:
        """Put the rows there, which follow the statement."""
        columns = ", ".join(f"`{name}`" for name in COLUMN_TYPES)
        return (
            f"INSERT INTO {self._beside} ({columns}) SELECT {columns}"
            f" FROM input('{structure()}') FORMAT ArrowStream\n"
        )

    @property
    def stored(self) -> str:
        """Read the rows as they are, in the order of their ids."""
        columns = ", ".join(f"`{name}`" for name in COLUMN_TYPES)
        return f"SELECT {columns} FROM {self._table} WHERE {self._where} ORDER BY `span_id`"

    def update(self, columns: list[str]) -> str:
        """Rewrite some columns; what comes behind ALTER TABLE."""
        set_ = ", ".join(f"`{c}` = joinGet('{self._name}', '{c}', `span_id`)" for c in columns)
        return f"UPDATE {set_} WHERE {self._where}"

    @property
    def drop(self) -> str:
        """Remove the table beside."""
        return f"DROP TABLE IF EXISTS {self._beside}"

    def changed(self, stored: pa.Table) -> list[str]:
        """Return the columns that differ from those of *stored*."""
        import pyarrow.compute as pc

        places = pc.index_in(stored["span_id"], value_set=self._rows["span_id"].combine_chunks())
        new = self._rows.take(places)
        found = [n for n in COLUMN_TYPES if n not in _FIXED and not _equal(new[n], stored[n])]
        # The bits of lists and maps go with them.
        return found if PRESENT in found or not found else [*found, PRESENT]

    @property
    def _where(self) -> str:
        times = self._rows["start_time"].cast("int64").to_pylist()
        # Whole numbers of ours: a mutation is kept as text, and a parameter is none there.
        began = (
            f"`start_time` BETWEEN fromUnixTimestamp64Micro({min(times)}, 'UTC')"
            f" AND fromUnixTimestamp64Micro({max(times)}, 'UTC')"
        )
        return f"{began} AND `span_id` IN (SELECT `span_id` FROM {self._beside})"


def _fingerprint(rows: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return hashlib.blake2b(sink.getvalue(), digest_size=16).digest()


def _equal(new: pa.ChunkedArray, old: pa.ChunkedArray) -> bool:
    """Compare as plain values: a missing list is an empty one here, as ``_present`` tells them apart."""
    return [value or None for value in new.to_pylist()] == [v or None for v in old.to_pylist()]
