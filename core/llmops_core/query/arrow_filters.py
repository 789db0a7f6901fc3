"""What of a query pyarrow can do while it reads Parquet: leave out columns, and most rows.

Rows are left out by the statistics of row groups first, so most of what is not wanted is not even
read. Whoever asks selects again: an expression may keep more than the query selects, never less.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any, Final

from llmops_core.query.answers import checked_value, column_type
from llmops_core.query.description import Filter, SpanQuery
from llmops_core.schema import COLUMN_NAMES, COLUMNS
from llmops_core.storable import clean_text

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

__all__ = ["columns_of", "plain_schema", "row_filter"]

_SCALARS: Final = frozenset(c.name for c in COLUMNS if c.type not in ("list", "map", "numbers"))
_ATTEMPTS: Final = ("trace_id", "parent_id", "name", "attempt", "outcome")


def columns_of(query: SpanQuery) -> list[str]:
    """Return the columns of the schema that a query needs, in the schema's order."""
    if not query.is_grouped and not query.columns:
        return list(COLUMN_NAMES)
    named = {*query.columns, *query.group_by, *(f.column for f in query.where)}
    named |= {a.column for a in query.aggregates if a.column}
    if not query.is_grouped:
        named |= {order.column for order in query.effective_order}
    if query.since is not None or query.until is not None or query.bucket_seconds:
        named.add("start_time")
    if _counts_attempts(query):
        named |= set(_ATTEMPTS)
    bases = {name if name in COLUMN_NAMES else name.partition(".")[0] for name in named}
    return [name for name in COLUMN_NAMES if name in (bases or {"span_id"})]


def row_filter(query: SpanQuery, bound: Filter | None = None) -> pc.Expression | None:
    """Return an expression that keeps the rows that a query selects; None if it keeps all."""
    import pyarrow.compute as pc

    filters = [*query.where, *([bound] if bound is not None else [])]
    if query.since is not None:
        filters.append(Filter("start_time", ">=", query.since))
    if query.until is not None:
        filters.append(Filter("start_time", "<", query.until))
    found = [e for e in map(_expression, filters) if e is not None]
    if not found:
        return None
    whole = reduce(and_, found)
    if _counts_attempts(query):
        # Whether a failure was made good does not depend on the filters.
        whole = whole | (pc.field("attempt") > 1)
    return whole


def plain_schema(names: Iterable[str]) -> pa.Schema:
    """Return the schema of some columns, with text where it has dictionaries."""
    import pyarrow as pa

    from llmops_core.schema import arrow_schema

    fields = []
    for name in names:
        field = arrow_schema().field(name)
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _counts_attempts(query: SpanQuery) -> bool:
    return any(a.function == "error_rate" for a in query.aggregates)


def _expression(item: Filter) -> pc.Expression | None:
    """Return a filter as an expression; None for one that only DuckDB can do."""
    import pyarrow.compute as pc

    if item.column not in _SCALARS:
        return None
    field = pc.field(item.column)
    if item.op == "is null":
        return field.is_null()
    if item.op == "is not null":
        return field.is_valid()
    if item.op == "in":
        import pyarrow as pa

        kind = plain_schema([item.column]).field(0).type
        return field.isin(pa.array([_bare(item.column, v) for v in item.value], kind))
    made: dict[str, Any] = {
        "=": field.__eq__,
        "<": field.__lt__,
        "<=": field.__le__,
        ">": field.__gt__,
        ">=": field.__ge__,
    }
    if item.op not in made:
        return None
    expression: pc.Expression = made[item.op](_scalar(item.column, item.value))
    return expression


def _scalar(column: str, value: Any) -> pa.Scalar:
    import pyarrow as pa

    return pa.scalar(_bare(column, value), plain_schema([column]).field(0).type)


def _bare(column: str, value: Any) -> Any:
    value = checked_value(column, value)
    if isinstance(value, str):
        return clean_text(value)  # as storing it made of it
    return int(value) if column_type(column) == "int" else value
