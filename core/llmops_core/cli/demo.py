"""``llmops demo``: run a small application of several agents, and look at what was recorded."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmops_core.cli.options import StorageOption

if TYPE_CHECKING:
    from llmops_core.span import Span

__all__ = ["demo"]

_LATENCY_S: Final = 0.03
_THINKING_S: Final = 0.4
_STORY: Final = (
    "Customers write to a support desk: a router, two specialists, a reviewer and a human."
)
_INSTALL: Final = "pip install 'llmops-integrations[demo]'"


def demo(
    storage: StorageOption = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Also measure what monitoring costs.")
    ] = True,
) -> None:
    """Run a small multi-agent application and show what was recorded.

    The model is scripted: no key, no network. Running it again adds to the same storage.
    """
    from llmops_core.cli.console import console, masked, print_lines, reading
    from llmops_core.config import storage_url
    from llmops_core.errors import StorageError
    from llmops_core.render.trace import trace_lines

    url = storage or storage_url()
    console().print(_STORY, style="bright_black")
    typer.echo()
    app = _application()
    sessions, stats = _run(app, url)
    with reading(url) as reader:
        traces = [_session_traces(reader, session) for session in sessions]
    if not all(traces):
        raise StorageError(
            f"the demo's spans cannot be read back from {masked(url)}",
            "a storage that other readers can open",
            "use --storage parquet:./llmops_data",
        )
    width = console().width
    for spans in traces[0]:
        print_lines(trace_lines(spans, width=width))
        typer.echo()
    _heading("What there is to see")
    for line in _observations(traces[0]):
        _marked(line)
    typer.echo()
    _heading("What it cost")
    typer.echo(f"  {_stored(stats, [s for talk in traces for t in talk for s in t], url)}")
    if measure:
        for line in _cost_lines(app.measure()):
            typer.echo(f"  {line}".rstrip())
    typer.echo()
    _heading("What you can type now")
    for line in _next(traces[0][0][0].trace_id, url, masked(url)):
        typer.echo(f"  {line}".rstrip())


def _application() -> Any:
    """Import the demo by name: the core knows no framework, and the demo needs one."""
    import importlib

    from llmops_core.errors import MissingDependency

    try:
        return importlib.import_module("llmops_integrations.demo")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("langchain_core", "langgraph"):
            raise
        raise MissingDependency(
            f"the demo needs {error.name}, which is not installed", do=_INSTALL
        ) from error


def _run(app: Any, url: str) -> tuple[list[str], dict[str, Any]]:
    """Hold every conversation, monitored; return the sessions and the monitor's numbers."""
    from llmops_core import Monitor

    graph = app.support_desk(_LATENCY_S)
    with Monitor(storage=url) as monitor:
        callbacks = [app.handler(monitor)]
        sessions = [
            app.hold(graph, talk, callbacks=callbacks, thinking_s=_THINKING_S)[0]
            for talk in app.CONVERSATIONS
        ]
        monitor.flush()
        stats = monitor.stats()
    return sessions, stats


def _session_traces(reader: Any, session: str) -> list[list[Span]]:
    from llmops_core.batch import spans_from_arrow

    spans = spans_from_arrow(reader.query(session_id=session, order=["start_time"]))
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    return list(by_trace.values())


def _heading(text: str) -> None:
    from llmops_core.cli.console import console

    console().print(text, style="bold")


def _marked(line: str) -> None:
    """Print a line whose first character is its mark, and the mark in colour."""
    from rich.text import Text

    from llmops_core.cli.console import console

    style = {"✗": "bold red", "◐": "yellow"}.get(line[0], "")
    console().print(Text("  ").append(line[0], style=style).append(line[1:]), soft_wrap=True)


def _observations(traces: list[list[Span]]) -> list[str]:
    """Say what went wrong in the first conversation, read from its stored spans alone."""
    from llmops_core.render.text import duration_text, visible

    spans = [s for trace in traces for s in trace]
    lines = []
    asked = next((s.input or "" for s in spans if s.parent_id is None), "")
    order = re.search(r"\b[A-Z]-\d{4}\b", asked)
    for agent in dict.fromkeys(s.agent for s in spans if s.agent):
        first = next((s for s in spans if s.kind == "llm" and s.agent == agent), None)
        if order and first and order[0] not in (first.input or ""):
            lines.append(
                f"✗ order {order[0]} did not reach {visible(agent)}: not in its first prompt"
            )
    for span in spans:
        if span.outcome == "error":
            again = [
                s for s in spans if s.name == span.name and (s.attempt or 1) > (span.attempt or 1)
            ]
            how = "; the next attempt worked" if any(s.outcome == "ok" for s in again) else ""
            lines.append(f"✗ {visible(span.name)} failed: {visible(span.error_message or '')}{how}")
    if len(traces) > 1:
        waited = traces[1][0].start_time - max(s.end_time for s in traces[0])
        lines.append(
            f"◐ the refund waited {duration_text(waited / 1000)} for a human; "
            f"trace {traces[1][0].trace_id[:12]} went on"
        )
    return lines


def _stored(stats: dict[str, Any], spans: list[Span], url: str) -> str:
    from llmops_core.render.text import plural

    counted = stats["spans"]
    text = f"{plural(len(spans), 'span')} stored, {sum(counted['dropped'].values())} dropped"
    folder = Path(url.partition(":")[2])
    if url.startswith("parquet:") and folder.is_dir():
        files = [p for p in folder.rglob("*.parquet") if ".journal" not in p.parts]
        size = sum(p.stat().st_size for p in files)
        text += f"; {plural(len(files), 'Parquet file')} of {size / 1000:,.0f} kB in {folder}"
    return text


def _cost_lines(cost: Any) -> list[str]:
    alone, more = cost.alone_ms, cost.monitored_ms - cost.alone_ms
    return [
        f"CPU of one conversation ({cost.spans:.0f} spans, a model that takes no time):",
        f"  {alone:.1f} ms alone, monitored {more:.1f} ms more: {cost.span_us:.0f} µs a span,",
        f"  every thread and the writing included; medians of {cost.blocks} interleaved pairs",
    ]


def _next(trace_id: str, url: str, shown: str) -> list[str]:
    option = "" if url == "parquet:./llmops_data" else f" --storage {shlex.quote(shown)}"
    lines = [
        f"llmops trace {trace_id[:12]} --content{option}",
        f"llmops analyze drift --texts{option}",
        f"llmops analyze agents{option}",
        f"llmops traces{option}",
    ]
    folder = url.partition(":")[2].rstrip("/").removeprefix("./")
    if url.startswith("parquet:") and re.fullmatch(r"[\w./-]+", folder):
        lines += ["", *(f"python -c '{code}'" for code in _one_liners(folder))]
    return lines


def _one_liners(folder: str) -> list[str]:
    """The same question, in SQL and in two data frame libraries, from the files themselves."""
    files = f"{folder}/*/events_*.parquet"
    # $$ quotes a text in DuckDB: the shell and Python have used up the other quotes.
    source = f"read_parquet($${files}$$, union_by_name=true)"
    keys = '"kind", "outcome"'
    return [
        f'import duckdb; print(duckdb.sql("from {source} select kind, outcome, count(*) group by all"))',
        f'import pandas; print(pandas.read_parquet("{folder}").groupby([{keys}], observed=True).size())',
        f'import polars; print(polars.read_parquet("{files}").group_by({keys}).len())',
    ]
