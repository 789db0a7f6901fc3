"""``llmops traces``: the newest requests, one line each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmops_core.cli.options import JsonOption, SinceOption, StorageOption, moment
from llmops_core.cli.paging import PageOption, cursor, page_key
from llmops_core.cli.table import TableColumn, print_table
from llmops_core.context import REMOTE_PARENT

if TYPE_CHECKING:
    from rich.text import Text

    from llmops_core import StorageReader
    from llmops_core.query import SpanQuery

__all__ = ["short_ids", "short_time", "traces"]

#: How many of the newest spans are searched for traces whose root has not ended.
_OPEN_SEARCH: Final = 2000
_COLUMNS: Final = (
    "trace_id", "span_id", "start_time", "kind", "name", "outcome", "duration_ms", "session_id",
    "framework", "error_type",
)  # fmt: skip


def traces(
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only where the root is of this kind.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only where the root ended so, such as error.")
    ] = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Traces on a page.")] = 20,
    page: PageOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest traces, one line each.

    A trace is listed by its root: --kind and --outcome are the root's, whatever happened below it.
    Where that is another process's, by what began here below it.
    """
    from llmops_core.cli.console import print_json, reading
    from llmops_core.query import SpanQuery

    _check("kind", kind)
    _check("outcome", outcome)
    equal = {"session_id": session, "kind": kind, "outcome": outcome}
    query = SpanQuery.build(
        where=[("parent_id", "is null")],
        since=moment("--since", since),
        columns=_COLUMNS,
        limit=limit,
        after=page_key(page),
        equal={k: v for k, v in equal.items() if v is not None},
    )
    with reading(storage) as reader:
        table = reader.query(query)
        rows = table.to_pylist()
        if page is None:
            asked = {k: v for k, v in (("kind", kind), ("outcome", outcome)) if v is not None}
            rows += _open_traces(reader, query, session, asked)[:limit]
            rows.sort(key=lambda row: row["start_time"], reverse=True)
        _add_totals(reader, rows)
        stored = bool(rows) or reader.query(limit=1, columns=["trace_id"]).num_rows > 0
    following = query.next_page(table)
    next_page = cursor(following.after) if following is not None else None
    if as_json:
        print_json({"traces": rows, "next_page": next_page})
    elif rows:
        _print(rows, next_page)
    elif not stored:
        typer.echo("No traces here. Run `llmops demo` to make some, or give --storage URL.")
    else:
        typer.echo(_none_match(kind, outcome, page))


def _check(column: str, value: str | None) -> None:
    from llmops_core.errors import QueryError
    from llmops_core.span import KINDS, OUTCOMES

    known = KINDS if column == "kind" else OUTCOMES
    if value is not None and value not in known:
        raise QueryError(f"--{column} {value!r}", "one of " + ", ".join(known))


def _open_traces(
    reader: StorageReader, query: SpanQuery, session: str | None, asked: dict[str, str]
) -> list[dict[str, Any]]:
    """Return traces among the newest spans without a root, newest first.

    The root has not ended, or is another process's: then what is stored begins with its child.
    Only those of the kind and the outcome *asked* for; what has not ended has neither yet.
    """
    from llmops_core.query import SpanQuery

    elsewhere = [(f"attributes.{REMOTE_PARENT}", "is not null")] if asked else []
    newest = reader.query(
        SpanQuery.build(
            since=query.since,
            columns=(*_COLUMNS, "attributes"),
            limit=_OPEN_SEARCH,
            where=elsewhere,
            equal={**asked, **({"session_id": session} if session else {})},
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
    return [_without_root(row) for row in first.values()]


def _without_root(row: dict[str, Any]) -> dict[str, Any]:
    attributes = dict(row.pop("attributes") or {})
    if REMOTE_PARENT in attributes:
        return row
    return {**row, "outcome": "open", "duration_ms": None}


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


def _none_match(kind: str | None, outcome: str | None, page: str | None) -> str:
    """Say that the storage holds traces, and where a kind or an outcome below a root is found."""
    if page is not None:
        return "No more traces."
    text = "No trace matches."
    asked = [("kind", kind), ("outcome", outcome)]
    conditions = [f"--where '{name} = {value}'" for name, value in asked if value is not None]
    if conditions:
        options = " and ".join(f"--{name}" for name, value in asked if value is not None)
        verb = "are" if len(conditions) > 1 else "is"
        text += f" {options} {verb} the root's; for every span: llmops query {' '.join(conditions)}"
    return text


def _print(rows: Sequence[dict[str, Any]], next_page: str | None) -> None:
    from llmops_core.cli.console import console

    short = console().is_terminal
    ids = short_ids([row["trace_id"] for row in rows])
    cells = [
        _cells(row, ids[row["trace_id"]] if short else row["trace_id"], short=short) for row in rows
    ]
    # Of these two, one that is empty in every row tells nothing.
    shown = [
        index
        for index, column in enumerate(_SHOWN)
        if column.title not in ("tokens in → out", "session") or any(c[index].plain for c in cells)
    ]
    print_table([_SHOWN[i] for i in shown], [[c[i] for i in shown] for c in cells])
    typer.echo(f"llmops trace {ids[rows[0]['trace_id']]} shows the first of them.", err=True)
    if next_page:
        typer.echo(f"More: add --page {next_page}", err=True)


_SHOWN: Final = (
    TableColumn("trace", 0),
    TableColumn("started (UTC)", 3),
    TableColumn("name", 0, least=10),
    TableColumn("outcome", 0),
    TableColumn("time", 2, right=True),
    TableColumn("spans", 4, right=True),
    TableColumn("tokens in → out", 5, right=True),
    TableColumn("session", 6, least=13),
)


def _cells(row: dict[str, Any], trace_id: str, *, short: bool) -> list[Text]:
    """Return a row's cells; in a terminal names and ids are shortened, elsewhere nothing is."""
    from rich.text import Text

    from llmops_core.render.text import clipped, duration_text, kind_style, outcome_text, visible

    def fit(text: str, cells: int) -> str:
        return clipped(text, cells) if short else visible(text)

    label = Text().append(f"{fit(row['kind'], 12)} ", style=kind_style(row["kind"]))
    used = [int(row[f"{side}_tokens"] or 0) for side in ("input", "output")]
    return [
        Text(fit(trace_id, 40), style="bold"),
        Text(short_time(row["start_time"]) if short else f"{_when(row['start_time']):%F %T}"),
        label.append(fit(row["name"], 40)),
        Text(*outcome_text(row["outcome"])),
        Text(duration_text(row["duration_ms"])),
        Text(f"{row['spans'] or 0:,}"),
        Text(f"{used[0]:,} → {used[1]:,}" if any(used) else ""),
        Text(fit(row["session_id"] or "", 40), style="bright_black"),
    ]


def short_time(moment: dt.datetime | int) -> str:
    """``11-24 22:23:05``, in UTC."""
    return f"{_when(moment):%m-%d %H:%M:%S}"


def _when(moment: dt.datetime | int) -> dt.datetime:
    if isinstance(moment, int):
        return dt.datetime.fromtimestamp(moment / 1_000_000, dt.UTC)
    return moment.astimezone(dt.UTC)


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Shorten ids as far as they differ on this page; ``llmops trace`` takes a prefix."""
    distinct = set(ids)
    length = 12
    while length < 32 and len({i[:length] for i in distinct}) < len(distinct):
        length += 2
    return {i: i[:length] for i in distinct}
