"""``llmops query``: rows or groups of spans, from conditions typed as text."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmops_core.cli.options import JsonOption, SinceOption, StorageOption, moment
from llmops_core.cli.paging import PageOption, cursor, page_key
from llmops_core.cli.table import TableColumn, print_table
from llmops_core.cli.traces import short_ids, short_time

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.text import Text

    from llmops_core.query import Filter, SpanQuery

__all__ = ["answer_rows", "parse_condition", "parse_seconds", "print_answer", "query"]

_DEFAULT_COLUMNS: Final = (
    "start_time,kind,name,agent,outcome,duration_ms,input_tokens,output_tokens,trace_id"
)
_CONDITION: Final = re.compile(
    r"""\s*(?P<column>[^\s=!<>]+)\s*
        (?P<op>[=!<>]+|\bis\s+not\s+null\b|\bis\s+null\b|\bnot\s+in\b|\bin\b
            |\bcontains\b|\bstarts\s+with\b)
        \s*(?P<value>.*?)\s*""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
#: A word where an operator should be.
_UNKNOWN: Final = re.compile(r"\s*[^\s=!<>]+\s+(?P<op>[^\s=!<>\d'\"]+)\s+\S.*", re.DOTALL)
_WANTED: Final = {
    "int": "a whole number", "float": "a number", "bool": "true or false",
    "timestamp": "ISO time, or a duration back from now such as 15m,",
}  # fmt: skip
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
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows on a page.")] = 50,
    page: PageOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read spans: filter, choose columns, or group and aggregate."""
    from llmops_core.cli.console import print_json, reading
    from llmops_core.query import SpanQuery

    grouped = _grouped(
        {"--group-by": group_by, "--agg": agg, "--bucket": bucket},
        {"--columns": columns, "--page": page},
    )
    shown = "" if grouped else columns or _DEFAULT_COLUMNS
    asked = SpanQuery.build(
        where=[parse_condition(text) for text in where or ()],
        since=moment("--since", since),
        until=moment("--until", until),
        columns=() if shown == "all" else _names(shown),
        order=_names(order),
        limit=limit,
        after=page_key(page),
        group_by=_names(group_by),
        bucket_seconds=parse_seconds(bucket) if bucket else None,
        aggregates=_aggregates(agg) or (["count"] if grouped else []),
    )
    with reading(storage) as reader:
        answer = reader.query(asked)
    table = answer
    if not grouped and shown != "all":
        table = answer.select(list(_names(shown)))
    if as_json:
        print_json(answer_rows(table))
    elif table.num_rows:
        print_answer(table, _names(group_by))
    else:
        typer.echo("No more spans." if page else "No span matches.")
    _tell_the_rest(asked, answer)


def _grouped(groups: dict[str, Any], rows: dict[str, Any]) -> bool:
    """Whether groups are asked for; raise where an option of rows stands beside one of groups."""
    from llmops_core.errors import QueryError

    for_groups = [option for option, value in groups.items() if value]
    for_rows = [option for option, value in rows.items() if value]
    if for_groups and for_rows:
        raise QueryError(f"{for_rows[0]} beside {for_groups[0]}", "rows or groups, not both")
    return bool(for_groups)


def _aggregates(texts: list[str] | None) -> list[str]:
    from llmops_core.errors import QueryError

    for text in texts or ():
        if "," in text:
            again = " ".join(f"--agg {part.strip()}" for part in text.split(",") if part.strip())
            raise QueryError(f"--agg {text!r}", "one function", f"repeat the option: {again}")
    return texts or []


def _tell_the_rest(asked: SpanQuery, answer: pa.Table) -> None:
    """Say on stderr that a page is full, and how to go on; also beside JSON."""
    from llmops_core.render.text import plural

    if answer.num_rows != asked.limit:
        return
    following = None if asked.is_grouped else asked.next_page(answer)
    go_on = f"add --page {cursor(following.after)}" if following else "raise --limit"
    typer.echo(f"{plural(answer.num_rows, 'row')}; there may be more: {go_on}", err=True)


def parse_condition(text: str) -> Filter:
    """Turn ``duration_ms > 100`` into a filter, its value of the column's type."""
    from llmops_core.errors import QueryError
    from llmops_core.query import OPERATORS, Filter

    match = _CONDITION.fullmatch(text)
    wrong = _UNKNOWN.fullmatch(text) if match is None else match
    if wrong is not None and not _is_operator(wrong["op"]):
        raise QueryError(
            f"operator {wrong['op']!r} in the condition {text!r}",
            "one of " + ", ".join(OPERATORS),
            "put a value that begins with such a sign in quotes",
        )
    if match is None:
        raise QueryError(
            f"condition {text!r}",
            "COLUMN OPERATOR VALUE",
            "for example --where 'duration_ms > 100'",
        )
    column, value, operator = match["column"], match["value"], _operator(match["op"])
    if operator in ("is null", "is not null"):
        if value:
            raise QueryError(f"condition {text!r}", f"nothing after {operator!r}")
        return Filter(column, operator)
    if operator in ("in", "not in"):
        items = next(csv.reader([value.strip("()[]")], skipinitialspace=True), [])
        return Filter(column, operator, tuple(_typed(column, item, text) for item in items))
    return Filter(column, operator, _typed(column, value, text))


def _operator(text: str) -> str:
    return {"==": "="}.get(text, " ".join(text.lower().split()))


def _is_operator(text: str) -> bool:
    from llmops_core.query import OPERATORS

    return _operator(text) in OPERATORS


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
        if kind == "timestamp":
            return micros(value)
    except (ValueError, KeyError):  # a QueryError is a ValueError too
        raise QueryError(f"condition {text!r}", f"{_WANTED[kind]} for {column}") from None
    return value


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def answer_rows(table: pa.Table) -> list[dict[str, Any]]:
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


#: Columns that give way last, and those before them; all others give way from the right.
_LAST: Final = ("kind", "name", "outcome")
_LATE: Final = ("trace_id", "start_time", "duration_ms")
#: Cells that a long text may be cut to in a terminal, and beyond which it never widens its column.
_LEAST, _MOST = 12, 60


def print_answer(
    table: pa.Table,
    groups: tuple[str, ...],
    *,
    wider: str = "name fewer with --columns, or add --json",
) -> None:
    """Print an answer for people."""
    import pyarrow as pa

    from llmops_core.cli.console import console

    short = console().is_terminal
    rows = answer_rows(table)
    ids = short_ids([row["trace_id"] for row in rows]) if "trace_id" in table.column_names else {}
    columns = []
    for field in table.schema:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        timestamp = pa.types.is_timestamp(field.type)
        fixed = number or timestamp or field.name in ("kind", "outcome")
        columns.append(
            TableColumn(
                f"{field.name} UTC" if timestamp else field.name,
                _gives_way(field.name, groups),
                least=None if fixed or field.name.endswith("_id") else _LEAST,
                right=number,
            )
        )
    cells = [[_cell(name, value, ids, short) for name, value in row.items()] for row in rows]
    print_table(columns, cells, wider=wider)


def _gives_way(name: str, groups: tuple[str, ...]) -> int:
    if name in _LAST or name in groups or name == "bucket":
        return 0
    return _LATE.index(name) + 1 if name in _LATE else len(_LATE) + 1


def _cell(name: str, value: Any, ids: dict[str, str], short: bool) -> Text:
    """Return a value as text: shortened in a terminal, whole elsewhere."""
    import datetime as dt

    from rich.text import Text

    from llmops_core.cli.console import wire
    from llmops_core.render.text import clipped, visible

    if value is None:
        text = ""
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float):
        text = f"{value:.4f}" if "rate" in name else f"{value:,.2f}"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif short and isinstance(value, dt.datetime):
        text = short_time(value)
    elif short and name == "trace_id":
        text = ids[value]
    else:
        text = str(wire(value)) if not isinstance(value, str) else value
    return Text(clipped(text, _MOST) if short else visible(text))
