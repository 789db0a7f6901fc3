"""``llmops traces``: the newest requests, one line each."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmops_core.cli.options import JsonOption, SinceOption, StorageOption

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from llmops_core import StorageReader
    from llmops_core.query import SpanQuery

__all__ = ["traces"]

#: How many of the newest spans are searched for traces whose root has not ended.
_OPEN_SEARCH: Final = 2000
_COLUMNS: Final = (
    "trace_id", "span_id", "start_time", "kind", "name", "outcome", "duration_ms", "session_id",
    "framework", "error_type",
)  # fmt: skip


def traces(
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only roots of this kind.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only this outcome, such as error.")] = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Traces on a page.")] = 20,
    page: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The next page, as the last one named it.")
    ] = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest traces, one line each."""
    from llmops_core.cli.console import print_json, reading
    from llmops_core.query import SpanQuery

    _check("kind", kind)
    _check("outcome", outcome)
    equal = {"session_id": session, "kind": kind, "outcome": outcome}
    query = SpanQuery.build(
        where=[("parent_id", "is null")],
        since=since,
        columns=_COLUMNS,
        limit=limit,
        after=_decode(page),
        equal={k: v for k, v in equal.items() if v is not None},
    )
    with reading(storage) as reader:
        table = reader.query(query)
        rows = table.to_pylist()
        if page is None and outcome is None and kind is None:
            rows += _open_traces(reader, query, session)[:limit]
            rows.sort(key=lambda row: row["start_time"], reverse=True)
        _add_totals(reader, rows)
    following = query.next_page(table)
    cursor = _encode(following.after) if following is not None else None
    if as_json:
        print_json({"traces": rows, "next_page": cursor})
    else:
        _print(rows, cursor)


def _check(column: str, value: str | None) -> None:
    from llmops_core.errors import QueryError
    from llmops_core.span import KINDS, OUTCOMES

    known = KINDS if column == "kind" else OUTCOMES
    if value is not None and value not in known:
        raise QueryError(f"--{column} {value!r}", "one of " + ", ".join(known))


def _open_traces(
    reader: StorageReader, query: SpanQuery, session: str | None
) -> list[dict[str, Any]]:
    """Return traces among the newest spans whose root has not ended, newest first."""
    from llmops_core.query import SpanQuery

    newest = reader.query(
        SpanQuery.build(
            since=query.since,
            columns=_COLUMNS,
            limit=_OPEN_SEARCH,
            equal={"session_id": session} if session else None,
        )
    ).to_pylist()
    first: dict[str, dict[str, Any]] = {}
    for row in newest:  # newest first: the last one seen is the trace's earliest
        first[row["trace_id"]] = row
    if not first:
        return []
    ended = reader.query(
        where=[("trace_id", "in", list(first)), ("parent_id", "is null")],
        group_by=["trace_id"],
        aggregates=["count"],
    )
    for trace_id in ended["trace_id"].to_pylist():
        first.pop(trace_id, None)
    return [{**row, "outcome": "open", "duration_ms": None} for row in first.values()]


def _add_totals(reader: StorageReader, rows: Sequence[dict[str, Any]]) -> None:
    """Add the number of spans and the tokens of each row's trace."""
    if not rows:
        return
    totals = reader.query(
        where=[("trace_id", "in", sorted({row["trace_id"] for row in rows}))],
        group_by=["trace_id"],
        aggregates=["count", "sum:input_tokens", "sum:output_tokens"],
    ).to_pylist()
    by_trace = {total["trace_id"]: total for total in totals}
    for row in rows:
        total = by_trace.get(row["trace_id"], {})
        row["spans"] = total.get("count")
        row["input_tokens"] = total.get("sum_input_tokens")
        row["output_tokens"] = total.get("sum_output_tokens")


def _print(rows: Sequence[dict[str, Any]], cursor: str | None) -> None:
    from llmops_core.cli.console import console

    if not rows:
        typer.echo("No traces here. Run `llmops demo` to make some, or give --storage URL.")
        return
    out = console()
    out.print(_table(rows, out.width))
    typer.echo(f"llmops trace {_short_ids(rows)[0]} shows the first of them.", err=True)
    if cursor:
        typer.echo(f"More: add --page {cursor}", err=True)


#: Column, the cells that it keeps, and the width of the terminal from which on it is shown.
_SHOWN: Final = (
    ("trace", 12, 0), ("started (UTC)", 14, 0), ("name", 16, 0), ("outcome", 13, 0),
    ("time", 7, 0), ("spans", 5, 86), ("tokens in → out", 15, 102), ("session", 13, 122),
)  # fmt: skip


def _table(rows: Sequence[dict[str, Any]], width: int) -> Table:
    from rich.table import Table

    columns = [(name, cells, from_width <= width) for name, cells, from_width in _SHOWN]
    table = Table(box=None, pad_edge=False, header_style="bright_black", padding=(0, 2, 0, 0))
    for name, cells, shown in columns:
        if shown:
            number = name in ("time", "spans", "tokens in → out")
            table.add_column(
                name, justify="right" if number else "left", no_wrap=True, min_width=cells
            )
    others = sum(cells + 2 for name, cells, shown in columns if shown and name != "name")
    for row, short in zip(rows, _short_ids(rows), strict=True):
        texts = _cells(row, short)
        texts[2].truncate(max(16, min(40, width - others)), overflow="ellipsis")
        table.add_row(*(t for t, (_, _, shown) in zip(texts, columns, strict=True) if shown))
    return table


def _cells(row: dict[str, Any], short_id: str) -> list[Text]:
    from rich.text import Text

    from llmops_core.render.text import clipped, duration_text, kind_style, outcome_text

    label = Text().append(f"{clipped(row['kind'], 12)} ", style=kind_style(row["kind"]))
    used = [int(row[f"{side}_tokens"] or 0) for side in ("input", "output")]
    return [
        Text(clipped(short_id, 40), style="bold"),
        Text(_when(row["start_time"]).strftime("%m-%d %H:%M:%S")),
        label.append(clipped(row["name"], 40)),
        Text(*outcome_text(row["outcome"])),
        Text(duration_text(row["duration_ms"])),
        Text(f"{row['spans'] or 0:,}"),
        Text(f"{used[0]:,} → {used[1]:,}" if any(used) else ""),
        Text(clipped(row["session_id"] or "", 13), style="bright_black"),
    ]


def _when(moment: dt.datetime | int) -> dt.datetime:
    if isinstance(moment, int):
        return dt.datetime.fromtimestamp(moment / 1_000_000, dt.UTC)
    return moment.astimezone(dt.UTC)


def _short_ids(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Shorten ids as far as they differ on this page; ``llmops trace`` takes a prefix."""
    ids = {row["trace_id"] for row in rows}
    length = 12
    while length < 32 and len({i[:length] for i in ids}) < len(ids):
        length += 2
    return [row["trace_id"][:length] for row in rows]


def _encode(after: tuple[Any, ...] | None) -> str:
    return base64.urlsafe_b64encode(json.dumps(after).encode()).decode().rstrip("=")


def _decode(page: str | None) -> list[Any] | None:
    from llmops_core.errors import QueryError

    if page is None:
        return None
    try:
        decoded = json.loads(base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)))
    except (binascii.Error, ValueError):
        decoded = None
    if not isinstance(decoded, list):
        raise QueryError(
            f"--page {page!r}", "the cursor that the page before named", "leave --page out to start"
        )
    return decoded
