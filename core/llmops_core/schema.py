"""The columns of a span, read off :class:`~llmops_core.span.Span`; Arrow types made on demand.

Importing this module imports no pyarrow: :func:`arrow_schema` does, when it is first called.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import msgspec

from llmops_core.span import SCHEMA_VERSION, Span

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "COLUMNS",
    "COLUMN_NAMES",
    "MAP_COLUMNS",
    "Column",
    "ColumnType",
    "arrow_schema",
    "import_arrow",
]

ColumnType = Literal["text", "enum", "int", "float", "bool", "timestamp", "list", "map", "numbers"]


class Column(msgspec.Struct, frozen=True):
    """One column: its name, type, group, whether it may be null, and what it means."""

    name: str
    type: ColumnType
    group: str
    nullable: bool
    unit: str
    description: str


def _plain(annotation: Any) -> tuple[Any, bool]:
    """Strip ``Annotated`` and ``None`` from an annotation; say whether None was there."""
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        args = [a for a in get_args(annotation) if a is not type(None)]
        if type(None) in get_args(annotation):
            return args[0], True
    return annotation, False


def _column_type(name: str, plain: Any, enum: bool) -> ColumnType:
    if name.endswith("_time"):
        return "timestamp"
    if plain is str:
        return "enum" if enum else "text"
    simple: dict[Any, ColumnType] = {int: "int", float: "float", bool: "bool"}
    if plain in simple:
        return simple[plain]
    if get_origin(plain) is tuple:
        return "list"
    return "map" if get_args(plain)[1] is str else "numbers"


def _columns() -> tuple[Column, ...]:
    columns = []
    for field in msgspec.structs.fields(Span):
        meta = field.type.__metadata__[0]
        plain, nullable = _plain(field.type)
        columns.append(
            Column(
                name=field.name,
                type=_column_type(field.name, plain, meta.extra["enum"]),
                group=meta.extra["group"],
                nullable=nullable,
                unit=meta.extra["unit"],
                description=meta.description,
            )
        )
    return tuple(columns)


COLUMNS: Final[tuple[Column, ...]] = _columns()
COLUMN_NAMES: Final[tuple[str, ...]] = tuple(c.name for c in COLUMNS)
MAP_COLUMNS: Final[frozenset[str]] = frozenset(
    c.name for c in COLUMNS if c.type in ("map", "numbers")
)


@functools.cache
def arrow_schema() -> pa.Schema:
    """Return the Arrow schema of stored spans. Imports pyarrow."""
    import pyarrow as pa

    arrow_types: dict[ColumnType, pa.DataType] = {
        "text": pa.string(),
        "enum": pa.dictionary(pa.int32(), pa.string()),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "list": pa.list_(pa.string()),
        "map": pa.map_(pa.string(), pa.string()),
        "numbers": pa.map_(pa.string(), pa.float64()),
    }
    fields = [pa.field(c.name, arrow_types[c.type], nullable=c.nullable) for c in COLUMNS]
    return pa.schema(fields, metadata={"llmops.schema_version": str(SCHEMA_VERSION)})


def import_arrow() -> None:
    """Import all of pyarrow that is used later, on the thread that opens a monitor.

    A first import on a worker hangs a child that is forked meanwhile; one at exit fails, as it
    registers exit handlers, and changes the exit code of SIGINT (test_processes).
    """
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet

    # The first conversion of a list imports pandas, where it is installed.
    pa.array([None])
