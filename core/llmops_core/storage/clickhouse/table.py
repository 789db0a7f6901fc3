"""The table of spans in ClickHouse: how it is made, and how it gains columns.

Every name in a statement is the schema's own, or was checked when the URL was read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from llmops_core.query.clickhouse import CLICKHOUSE_TYPES, PRESENT
from llmops_core.schema import COLUMNS, Column
from llmops_core.storage.clickhouse.address import Address

__all__ = ["COLUMN_TYPES", "add_columns", "create", "local_table", "quoted", "structure"]

#: How many inserts are remembered by their token. What comes again later is found by its span ids.
TOKENS_REMEMBERED: Final = 10_000
_LARGE: Final = frozenset(("input", "output", "error_message", "attributes"))


def _required(column: Column) -> str:
    return {
        "text": "String",
        "enum": "LowCardinality(String)",
        "timestamp": "DateTime64(6, 'UTC')",
    }[column.type]


#: Every column of the table and its type.
COLUMN_TYPES: Final[Mapping[str, str]] = {
    **{c.name: CLICKHOUSE_TYPES[c.type] if c.nullable else _required(c) for c in COLUMNS},
    PRESENT: "UInt8",
}
_INDEXES: Final = (
    "INDEX by_trace `trace_id` TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX by_span `span_id` TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX by_session `session_id` TYPE bloom_filter(0.01) GRANULARITY 1",
    "INDEX by_attempt `attempt` TYPE minmax GRANULARITY 1",
)


def quoted(address: Address, table: str | None = None) -> str:
    """Return the table's name with its database, quoted."""
    return f"`{address.database}`.`{table or address.table}`"


def local_table(address: Address) -> str:
    """Return the name of the table that holds rows: in a cluster, the one of each server."""
    return f"{address.table}_local" if address.cluster else address.table


def structure() -> str:
    """Return the columns of an insert, as ``input()`` takes them: the text of a string literal."""
    columns = ", ".join(f"`{name}` {kind}" for name, kind in COLUMN_TYPES.items())
    return columns.replace("'", "\\'")


def create(address: Address) -> list[str]:
    """Return the statements that make what is missing, in order."""
    columns = ",\n    ".join([*map(_definition, COLUMN_TYPES), *_INDEXES])
    life = (
        f"\nTTL toDateTime(`start_time`) + INTERVAL {address.ttl_days} DAY"
        if address.ttl_days
        else ""
    )
    window = "non_replicated_deduplication_window"
    if address.cluster:
        window = "replicated_deduplication_window"
    local = f"{quoted(address, local_table(address))}{_everywhere(address)}"
    statements = [
        f"""CREATE TABLE IF NOT EXISTS {local} (
    {columns}
)
ENGINE = {_engine(address)}
PARTITION BY toYYYYMM(`start_time`)
ORDER BY (`start_time`, `span_id`){life}
SETTINGS {window} = {TOKENS_REMEMBERED}"""
    ]
    if address.cluster:
        place = f"'{address.cluster}', '{address.database}', '{local_table(address)}'"
        statements.append(
            f"""CREATE TABLE IF NOT EXISTS {quoted(address)}{_everywhere(address)}
AS {quoted(address, local_table(address))}
ENGINE = Distributed({place}, cityHash64(`trace_id`))"""
        )
    return statements


def add_columns(address: Address, present: Collection[str]) -> list[str]:
    """Return the statements that add the columns that an older table lacks."""
    missing = [name for name in COLUMN_TYPES if name not in present]
    if not missing:
        return []
    added = ", ".join(f"ADD COLUMN IF NOT EXISTS {_definition(name)}" for name in missing)
    tables = dict.fromkeys((local_table(address), address.table))
    return [f"ALTER TABLE {quoted(address, t)}{_everywhere(address)} {added}" for t in tables]


def _definition(name: str) -> str:
    codec = " CODEC(ZSTD(1))" if name in _LARGE else ""
    return f"`{name}` {COLUMN_TYPES[name]}{codec}"


def _engine(address: Address) -> str:
    if not address.cluster:
        return "MergeTree"
    path = f"/clickhouse/tables/{{shard}}/{address.database}/{local_table(address)}"
    return f"ReplicatedMergeTree('{path}', '{{replica}}')"


def _everywhere(address: Address) -> str:
    return f" ON CLUSTER `{address.cluster}`" if address.cluster else ""
