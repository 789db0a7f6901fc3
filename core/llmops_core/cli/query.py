"""``llmops query``: rows or groups of spans, from conditions typed as text."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmops_core.cli.options import JsonOption, SinceOption, StorageOption

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.query import Filter

__all__ = ["parse_condition", "parse_seconds", "query"]

_DEFAULT_COLUMNS: Final = (
    "start_time,kind,name,agent,outcome,duration_ms,input_tokens,output_tokens,trace_id"
)
_CONDITION: Final = re.compile(
    r"""\s*(?P<column>[^\s=!<>]+)\s*
        (?P<op>!=|<=|>=|==?|<|>|\bis\s+not\s+null\b|\bis\s+null\b|\bnot\s+in\b|\bin\b
            |\bcontains\b|\bstarts\s+with\b)
        \s*(?P<value>.*?)\s*""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def query(
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION", help="'duration_ms > 100', 'kind in llm, tool'; repeatable."
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="One row a group, such as model,outcome.")
    ] = None,
    agg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FUNCTION:COLUMN", help="count, error_rate, p95:duration_ms; repeatable."
        ),
    ] = None,
    bucket: Annotated[
        str | None, typer.Option(metavar="TIME", help="One row a time bucket, such as 1m or 1h.")
    ] = None,
    since: SinceOption = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="End of the range.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to show, comma-separated; 'all' for every one.")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="Columns to order by; -duration_ms for the largest first.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows at most.")] = 50,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read spans: filter, choose columns, or group and aggregate."""
    from llmops_core.cli.console import print_json, print_renderable, reading
    from llmops_core.query import SpanQuery

    grouped = bool(group_by or agg or bucket)
    shown = "" if grouped and columns is None else columns or _DEFAULT_COLUMNS
    asked = SpanQuery.build(
        where=[parse_condition(text) for text in where or ()],
        since=since,
        until=until,
        columns=() if shown == "all" else _names(shown),
        order=_names(order),
        limit=limit,
        group_by=_names(group_by),
        bucket_seconds=parse_seconds(bucket) if bucket else None,
        aggregates=agg or (["count"] if grouped else []),
    )
    with reading(storage) as reader:
        table = reader.query(asked)
    if not grouped and shown != "all":
        table = table.select(list(_names(shown)))
    if as_json:
        print_json(_rows(table))
    else:
        print_renderable(_table(table))
        if table.num_rows == limit:
            typer.echo(f"{limit} rows; there may be more: add --limit", err=True)


def parse_condition(text: str) -> Filter:
    """Turn ``duration_ms > 100`` into a filter, its value of the column's type."""
    from llmops_core.errors import QueryError
    from llmops_core.query import Filter

    match = _CONDITION.fullmatch(text)
    if match is None:
        raise QueryError(
            f"condition {text!r}",
            "COLUMN OPERATOR VALUE",
            "for example --where 'duration_ms > 100'",
        )
    column, value = match["column"], match["value"]
    operator = {"==": "="}.get(match["op"], " ".join(match["op"].lower().split()))
    if operator in ("is null", "is not null"):
        if value:
            raise QueryError(f"condition {text!r}", f"nothing after {operator!r}")
        return Filter(column, operator)
    if operator in ("in", "not in"):
        items = next(csv.reader([value.strip("()[]")], skipinitialspace=True), [])
        return Filter(column, operator, tuple(_typed(column, item, text) for item in items))
    return Filter(column, operator, _typed(column, value, text))


def parse_seconds(text: str) -> float:
    """Turn ``1m`` into seconds."""
    from llmops_core.errors import QueryError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None:
        raise QueryError(f"bucket {text!r}", "a number and one of s, m, h, d, w", "for example 1m")
    return float(match[1]) * _UNITS_S[match[2]]


def _column_type(column: str) -> str:
    from llmops_core.schema import COLUMNS

    if column.startswith("measurements."):
        return "float"
    return next((c.type for c in COLUMNS if c.name == column), "text")


def _typed(column: str, value: str, text: str) -> Any:
    from llmops_core.errors import QueryError
    from llmops_core.query import micros

    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    kind = _column_type(column)
    try:
        if kind == "int":
            return int(value.replace("_", ""))
        if kind == "float":
            return float(value)
        if kind == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
    except (ValueError, KeyError):
        what = {"int": "a whole number", "float": "a number", "bool": "true or false"}[kind]
        raise QueryError(f"condition {text!r}", f"{what} for {column}") from None
    return micros(value) if kind == "timestamp" else value


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows for JSON: maps as objects, what JSON has no number for as null."""
    import math

    import pyarrow as pa

    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in maps:
            row[name] = None if row[name] is None else dict(row[name])
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                row[name] = None
    return rows


def _table(table: pa.Table) -> Any:
    import pyarrow as pa
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bright_black", padding=(0, 2, 0, 0))
    for field in table.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        shown.add_column(
            Text(field.name),
            justify="right" if number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in _rows(table):
        shown.add_row(*(Text(_cell(name, value)) for name, value in row.items()))
    return shown


def _cell(name: str, value: Any) -> str:
    from llmops_core.cli.console import wire
    from llmops_core.render.text import clipped

    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}" if "rate" in name else f"{value:,.2f}"
    if isinstance(value, (bool, str)):
        return clipped(str(value), 60)
    if isinstance(value, int):
        return f"{value:,}"
    return clipped(str(wire(value)), 60)
