"""``llmops trace ID``: one request as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_core.cli.options import JsonOption, StorageOption

if TYPE_CHECKING:
    from llmops_core import StorageReader
    from llmops_core.span import Span

__all__ = ["find_trace", "span_rows", "trace"]


def trace(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="A trace id, or its beginning.")],
    content: Annotated[
        bool, typer.Option("--content", help="Also show what went in and what came out.")
    ] = False,
    rows: Annotated[int, typer.Option(min=1, max=100_000, help="Spans to show at most.")] = 400,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one trace as a tree: who did what, when, and how it ended."""
    from llmops_core.cli.console import console, print_json, print_lines, reading
    from llmops_core.render.trace import trace_lines

    with reading(storage) as reader:
        spans = reader.trace(find_trace(reader, trace_id))
        links = _links(reader, spans)
    if as_json:
        print_json({"trace_id": spans[0].trace_id, **links, "spans": span_rows(spans)})
        return
    print_lines(trace_lines(spans, width=console().width, content=content, max_rows=rows))
    for verb, others in links.items():
        for other in others:
            typer.echo(f"\n{verb.replace('_', ' ')}: llmops trace {other}")


def find_trace(reader: StorageReader, prefix: str) -> str:
    """Return the one trace id that starts with *prefix*, or raise and say which ones do."""
    from llmops_core.errors import QueryError

    wanted = prefix.strip().lower().replace("-", "")
    if not wanted or not set(wanted) <= set("0123456789abcdef") or len(wanted) > 32:
        raise QueryError(
            f"trace id {prefix!r}", "up to 32 hexadecimal digits", "llmops traces lists the ids"
        )
    found = reader.query(
        where=[("trace_id", "starts with", wanted)],
        group_by=["trace_id"],
        aggregates=["count"],
        limit=11,
    )["trace_id"].to_pylist()
    if not found:
        raise QueryError(
            f"no trace starts with {prefix!r}",
            "the id of a stored trace, or its beginning",
            "llmops traces lists the ids; --storage URL names another storage",
        )
    if len(found) > 1:
        listed = ", ".join(found[:10]) + (", ..." if len(found) > 10 else "")
        raise QueryError(
            f"{'more than 10' if len(found) > 10 else len(found)} traces start with {prefix!r}",
            "a beginning that only one trace has",
            f"add digits: {listed}",
        )
    return str(found[0])


def _links(reader: StorageReader, spans: list[Span]) -> dict[str, list[str]]:
    """Return the traces that an interrupted one went on in, or that a resumed one came from."""
    waits = sorted({s.wait_key for s in spans if s.wait_key})
    resumes = sorted({s.resume_key for s in spans if s.resume_key})
    links = {}
    for verb, column, keys in (
        ("resumed_in", "resume_key", waits),
        ("resumes", "wait_key", resumes),
    ):
        if keys:
            found = reader.query(
                where=[(column, "in", keys)], group_by=["trace_id"], aggregates=["count"]
            )
            links[verb] = found["trace_id"].to_pylist()
    return links


def span_rows(spans: list[Span]) -> list[dict[str, Any]]:
    """Return spans as JSON objects: columns that are set, times as ISO text."""
    import msgspec

    from llmops_core.cli.console import iso

    rows = []
    for span in spans:
        row = {k: v for k, v in msgspec.structs.asdict(span).items() if v is not None}
        row["start_time"], row["end_time"] = iso(span.start_time), iso(span.end_time)
        rows.append(row)
    return rows
