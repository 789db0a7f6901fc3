"""``llmops trace ID``: one request as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_core.cli.options import JsonOption, StorageOption

if TYPE_CHECKING:
    from llmops_core import StorageReader
    from llmops_core.analysis.waiting import Pause
    from llmops_core.render.trace import Waits
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
        pauses = _pauses(reader, spans)
    links = _links(spans, pauses)
    if as_json:
        print_json({"trace_id": spans[0].trace_id, **links, "spans": span_rows(spans)})
        return
    print_lines(
        trace_lines(
            spans,
            width=console().width,
            content=content,
            max_rows=rows,
            waits=_waits(spans, pauses),
        )
    )
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


def _pauses(reader: StorageReader, spans: list[Span]) -> list[Pause]:
    """Return the pauses that this trace made, or that it resumed."""
    from llmops_core.cli.waiting import pauses_in

    keys = sorted({key for s in spans for key in (s.wait_key, s.resume_key) if key})
    return pauses_in(reader, wait_key=keys) if keys else []


def _links(spans: list[Span], pauses: list[Pause]) -> dict[str, list[str]]:
    """Return the traces that a paused one went on in, and those that a resumed one came from."""
    here = spans[0].trace_id
    links = {
        "resumed_in": [i for p in pauses if p.trace_id == here for i in p.resumed_trace_ids],
        "resumes": [p.trace_id for p in pauses if here in p.resumed_trace_ids],
    }
    found = {verb: list(dict.fromkeys(ids)) for verb, ids in links.items()}
    return {verb: ids for verb, ids in found.items() if ids}


def _waits(spans: list[Span], pauses: list[Pause]) -> Waits:
    from llmops_core.render.trace import Waits

    here = spans[0].trace_id
    resumed = [p.waited_ms for p in pauses if p.resumed_trace_ids[:1] == (here,)]
    own = [p for p in pauses if p.trace_id == here]
    answered = [p.waited_ms for p in own if all(other.answered for other in own)]
    return Waits(max(resumed, default=None), max(answered, default=None))


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
