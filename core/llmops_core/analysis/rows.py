"""Typed rows as Arrow tables: the columns and their types are those of the row's fields."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["plain", "to_arrow"]


def to_arrow(rows: Sequence[Any], row_type: type[tuple[Any, ...]]) -> pa.Table:
    """Return rows of a NamedTuple as a table; an empty one has the same columns. Imports pyarrow."""
    import pyarrow as pa

    schema = pa.schema([(name, _arrow(hint)) for name, hint in get_type_hints(row_type).items()])
    return pa.Table.from_pylist([plain(row) for row in rows], schema=schema)


def plain(value: Any) -> Any:
    """Return a row as dictionaries and lists, as JSON and Arrow take it."""
    if hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def _arrow(hint: Any) -> pa.DataType:
    import pyarrow as pa

    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return _arrow(next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        return pa.list_(_arrow(arguments[0]))
    if origin is Literal:
        return pa.string()
    if isinstance(hint, type) and issubclass(hint, tuple):
        return pa.struct([(name, _arrow(of)) for name, of in get_type_hints(hint).items()])
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint]
