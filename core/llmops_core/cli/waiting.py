"""``llmops waiting``: what waits for a human, since when, and what was answered."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmops_core.cli.options import JsonOption, SinceOption, StorageOption

if TYPE_CHECKING:
    from rich.table import Table

    from llmops_core import StorageReader
    from llmops_core.analysis.waiting import Pause
    from llmops_core.span import Span

__all__ = ["pauses_in", "waiting"]

#: How many keys are asked for at once.
_BATCH: Final = 500


def waiting(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were answered.")
    ] = False,
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Pauses at most.")] = 50,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs that wait for a human: what they asked, and since when."""
    from llmops_core.cli.console import print_json, print_renderable, reading

    equal = {"session_id": session} if session else {}
    with reading(storage) as reader:
        found = pauses_in(reader, since=since, **equal)
    rows = [row for row in found if everything or not row.answered]
    if as_json:
        print_json({"waiting": [_wire(row) for row in rows[:limit]], "more": len(rows) > limit})
        return
    if not rows:
        typer.echo("Nothing waits for a human." if found or not everything else "No pauses here.")
        return
    print_renderable(_table(rows[:limit], everything))
    if len(rows) > limit:
        typer.echo(f"{len(rows) - limit:,} more: add --limit", err=True)
    if any(row.thread_went_on for row in rows[:limit]):
        typer.echo("went on: the thread was at work since, and no answer is stored (yet)", err=True)


def pauses_in(reader: StorageReader, **conditions: Any) -> list[Pause]:
    """Read the pauses that meet *conditions*, and what answered them. Blocks."""
    from llmops_core.analysis import waiting as analysis
    from llmops_core.batch import spans_from_arrow

    paused = spans_from_arrow(
        reader.query(where=[("wait_key", "is not null")], columns=analysis.COLUMNS, **conditions)
    )
    keys = sorted({span.wait_key for span in paused if span.wait_key})
    resumed: list[Span] = []
    for batch in _batches(keys):
        table = reader.query(where=[("resume_key", "in", batch)], columns=analysis.COLUMNS)
        resumed += spans_from_arrow(table)
    found = analysis.waiting(
        # A resumed run that paused again outside of the conditions only answers here.
        [*paused, *resumed],
        now=time.time_ns() // 1000,
        thread_activity=_activity(reader, {s.thread_id for s in paused if s.thread_id}),
    )
    asked = {span.span_id for span in paused}
    return [row for row in found if row.span_id in asked]


def _activity(reader: StorageReader, threads: set[str]) -> dict[str, int]:
    """Return when a span last started in each of the threads."""
    newest: dict[str, int] = {}
    for batch in _batches(sorted(threads)):
        table = reader.query(
            where=[("thread_id", "in", batch)],
            group_by=["thread_id"],
            aggregates=["max:start_time"],
        )
        for row in table.to_pylist():
            moment = row["max_start_time"]
            newest[row["thread_id"]] = (
                moment if isinstance(moment, int) else int(moment.timestamp() * 1_000_000)
            )
    return newest


def _batches(items: Sequence[str]) -> list[list[str]]:
    return [list(items[at : at + _BATCH]) for at in range(0, len(items), _BATCH)]


def _wire(row: Pause) -> dict[str, Any]:
    from llmops_core.cli.console import iso

    return {
        **row._asdict(),
        "resumed_trace_ids": list(row.resumed_trace_ids),
        "asked": [question._asdict() for question in row.asked],
        "since": iso(row.since),
        "answered_at": iso(row.answered_at),
        "thread_went_on": iso(row.thread_went_on),
    }


def _table(rows: Sequence[Pause], everything: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    from llmops_core.render.text import clipped, duration_text

    table = Table(box=None, pad_edge=False, header_style="bright_black", padding=(0, 2, 0, 0))
    for name in ("trace", "name", "thread"):
        table.add_column(name, no_wrap=True)
    table.add_column("waited", justify="right", no_wrap=True)
    table.add_column("asked", overflow="fold")
    if everything:
        table.add_column("answer", overflow="fold")
    for row in rows:
        waited = Text(duration_text(row.waited_ms), style="" if row.answered else "yellow")
        if row.thread_went_on:
            waited.append(" went on", style="bright_black")
        cells = [
            Text(row.trace_id[:12], style="bold"),
            Text(clipped(row.name, 30)),
            Text(clipped(row.thread_id or "", 24), style="bright_black"),
            waited,
            Text(clipped(_asked(row), 400)),
        ]
        if everything:
            cells.append(_answer(row))
        table.add_row(*cells)
    return table


def _asked(row: Pause) -> str:
    if row.asked:
        return " | ".join(_said(question.value) for question in row.asked)
    return f"({(row.cause or 'pause').replace('_', ' ')})"


def _answer(row: Pause) -> Any:
    from rich.text import Text

    from llmops_core.render.text import clipped

    if not row.answered:
        return Text("◐ waits", style="yellow")
    answer = row.answer
    ids = {question.id for question in row.asked}
    if isinstance(answer, dict) and answer and set(answer) <= ids:  # answers by question
        shown = " | ".join(_said(value) for value in answer.values())
    else:
        shown = "(went on)" if answer is None else _said(answer)
    more = len(row.resumed_trace_ids) - 1
    times = f"  (resumed {more} more)" if more > 0 else ""
    return Text(clipped(shown, 400) + times)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
