"""``llmops analyze``: agents, handoffs and context drift, over any storage and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from llmops_core.cli.analyze_named import COMMAND, AnalyzeGroup, named
from llmops_core.cli.options import JsonOption, SinceOption, StorageOption, moment

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core import StorageReader
    from llmops_core.analysis.equivalence import Equivalences
    from llmops_core.analysis.multi_agent import MultiAgent
    from llmops_core.scanner import EntityExtractor

__all__ = ["analyze", "trace_tables"]

#: Spans that are read at once; a longer trace is read whole.
_BATCH_SPANS: Final = 20_000
#: Trace ids that one query names.
_BATCH_TRACES: Final = 500

analyze = typer.Typer(
    cls=AnalyzeGroup,
    help="Analyse what several agents did: who, with whom, and what got lost."
    " Any other NAME is an analyzer that a plugin registers.",
    no_args_is_help=True,
    add_completion=False,
)
analyze.command(name=COMMAND, hidden=True)(named)

SessionOption = Annotated[str | None, typer.Option(help="Only this session.")]
ExtractorOption = Annotated[
    list[str] | None,
    typer.Option("--extractor", metavar="NAME", help="Also entities of this plugin; repeatable."),
]
EquivalenceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--equivalence", metavar="NAME", help="Ask this plugin what means the same; repeatable."
    ),
]


@analyze.command()
def agents(
    session: SessionOption = None,
    since: SinceOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the agents: what they do, how often, how well, how fast and at what cost."""
    from llmops_core.analysis.multi_agent import MultiAgent
    from llmops_core.analysis.rows import plain
    from llmops_core.cli.analyze_tables import print_agents, print_quality
    from llmops_core.cli.console import print_json

    total = MultiAgent(drift=False)
    for table in _read(storage, session, since, content=False):
        total.add_arrow(table)
    rows = total.agents()
    if as_json:
        print_json({"agents": plain(rows), **_quality(total)})
    elif rows:
        print_agents(rows)
        print_quality(total.quality)
    else:
        typer.echo("No agents here.")


@analyze.command()
def handoffs(
    session: SessionOption = None,
    since: SinceOption = None,
    every: Annotated[
        bool, typer.Option("--each", help="List each handoff instead of each pair of agents.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Handoffs at most.")] = 100,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """List who hands over to whom, how it ends and how good it is; and who goes in circles."""
    from llmops_core.analysis.multi_agent import MultiAgent
    from llmops_core.analysis.rows import plain
    from llmops_core.cli.analyze_tables import (
        print_edges,
        print_handoffs,
        print_loops,
        print_quality,
    )
    from llmops_core.cli.console import print_json

    total = MultiAgent(drift=True)
    each: list[Any] = []
    loops: list[Any] = []
    count = 0
    for table in _read(storage, session, since, content=True):
        found = total.add_arrow(table)
        count += len(found.handoffs)
        each += found.handoffs[: max(0, limit - len(each))]
        loops += found.loops[: max(0, limit - len(loops))]
    if as_json:
        shown = {"handoffs": plain(each), "more": count > len(each)} if every else {}
        edges = {"edges": plain(total.edges()), "loops": plain(loops)}
        print_json({**edges, **shown, **_quality(total)})
        return
    if not count:
        typer.echo("No handoffs here.")
        return
    if every:
        print_handoffs(each)
        if count > len(each):
            typer.echo(f"{count - len(each):,} more: add --limit", err=True)
    else:
        print_edges(total.edges())
    print_loops(loops)
    print_quality(total.quality)


@analyze.command()
def drift(
    session: SessionOption = None,
    since: SinceOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also handoffs that lost, altered and added nothing.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Handoffs at most.")] = 20,
    texts: Annotated[
        bool, typer.Option("--texts", help="Show both texts side by side, with what became of it.")
    ] = False,
    extractor: ExtractorOption = None,
    equivalence: EquivalenceOption = None,
    equivalence_calls: Annotated[
        int, typer.Option(min=0, help="Calls of equivalences at most.")
    ] = 1_000,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what handoffs lost, altered and added on the way: the worst first."""
    from llmops_core.analysis.multi_agent import MultiAgent
    from llmops_core.analysis.rows import plain
    from llmops_core.cli.analyze_tables import print_drift, print_quality
    from llmops_core.cli.console import print_json
    from llmops_core.cli.worst import Worst

    equivalences = _equivalences(equivalence or [], equivalence_calls)
    total = MultiAgent(extractors=_extractors(extractor or []), equivalences=equivalences)
    worst = Worst(limit)
    count = 0
    for table in _read(storage, session, since, content=True):
        for row in total.add_arrow(table).drift:
            count += 1
            worst.add(row, everything)
    rows = worst.rows()
    if as_json:
        asked = {"equivalences": dict(equivalences.counts)} if equivalences else {}
        print_json({"drift": plain(rows), "handoffs": count, **asked, **_quality(total)})
        return
    if equivalences:
        said = ", ".join(f"{name} {many:,}" for name, many in sorted(equivalences.counts.items()))
        typer.echo(f"equivalences: {said or 'nothing to ask'}", err=True)
    if not rows:
        typer.echo(
            f"{count:,} handoffs lost, altered and added nothing." if count else "No handoffs here."
        )
        return
    print_drift(rows, count, _sides(storage, rows) if texts else None)
    print_quality(total.quality)


def trace_tables(
    reader: StorageReader, *, session: str | None, since: int | None, content: bool
) -> Iterator[tuple[pa.Table, int, int]]:
    """Yield whole traces that agents worked in, with how many spans were read, and of how many.

    Blocks. Holds the ids of the traces and one batch of spans.
    """
    from llmops_core.analysis.events import COLUMNS
    from llmops_core.analysis.multi_agent import ALL_COLUMNS

    equal: dict[str, Any] = {"session_id": session} if session else {}
    named = reader.query(
        where=[("kind", "in", ["agent", "handoff"])],
        since=since,
        group_by=["trace_id"],
        aggregates=["count"],
        order=["trace_id"],
        **equal,
    )["trace_id"].to_pylist()
    sizes: list[tuple[str, int]] = []
    for at in range(0, len(named), _BATCH_TRACES):
        counted = reader.query(
            where=[("trace_id", "in", named[at : at + _BATCH_TRACES])],
            group_by=["trace_id"],
            aggregates=["count"],
            order=["trace_id"],
        )
        sizes += zip(counted["trace_id"].to_pylist(), counted["count"].to_pylist(), strict=True)
    every = sum(size for _, size in sizes)
    done = 0
    for ids in _batches(sizes):
        table = reader.query(
            where=[("trace_id", "in", ids)],
            columns=ALL_COLUMNS if content else COLUMNS,
            order=["start_time"],
        )
        done += table.num_rows
        yield table, done, every


def _batches(sizes: list[tuple[str, int]]) -> Iterator[list[str]]:
    batch: list[str] = []
    spans = 0
    for trace_id, size in sizes:
        if batch and (spans + size > _BATCH_SPANS or len(batch) >= _BATCH_TRACES):
            yield batch
            batch, spans = [], 0
        batch.append(trace_id)
        spans += size
    if batch:
        yield batch


def _read(
    storage: str | None, session: str | None, since: str | None, *, content: bool
) -> Iterator[pa.Table]:
    """Yield the tables of a command's storage, and show how far it is."""
    from llmops_core.cli.console import reading

    start = moment("--since", since)
    with reading(storage) as reader, _progress() as told:
        for table, done, every in trace_tables(
            reader, session=session, since=start, content=content
        ):
            yield table
            told(done, every)


@contextmanager
def _progress() -> Iterator[Any]:
    """Show a bar on stderr, on a terminal only; it is gone at the end."""
    from llmops_core.cli.console import console

    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda done, every: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("analysing spans"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, every: bar.update(task, completed=done, total=every)


def _extractors(names: list[str]) -> list[EntityExtractor]:
    from llmops_core.scanner import EntityExtractor

    return _parts("entity_extractor", names, EntityExtractor, "an object with extract(text)")


def _equivalences(names: list[str], calls: int) -> Equivalences | None:
    from llmops_core.analysis.equivalence import Equivalence, Equivalences

    expected = "an object with same(kind, first, second)"
    made = _parts("equivalence", names, Equivalence, expected)
    return Equivalences(made, calls=calls) if made else None


def _parts(kind: str, names: list[str], protocol: Any, expected: str) -> list[Any]:
    """Return registered parts by name; raise where one is not what its kind is."""
    from llmops_core.errors import ConfigError
    from llmops_core.plugins import PluginHost

    host = PluginHost()
    found = []
    for name in names:
        made = host.part(kind, name)
        if not isinstance(made, protocol):
            said = kind.replace("_", " ")
            raise ConfigError(f"{said} {name!r} is of type {type(made).__name__}", expected)
        found.append(made)
    return found


def _sides(storage: str | None, rows: list[Any]) -> dict[str, Any]:
    """Return the two texts of the handoffs that are shown, by what they lead to."""
    from llmops_core.analysis.drift import sides_of
    from llmops_core.analysis.multi_agent import ALL_COLUMNS
    from llmops_core.batch import spans_from_arrow
    from llmops_core.cli.console import reading

    traces = sorted({row.partition for row in rows})
    with reading(storage) as reader:
        spans = spans_from_arrow(
            reader.query(where=[("trace_id", "in", traces)], columns=ALL_COLUMNS)
        )
    return sides_of(spans)


def _quality(total: MultiAgent) -> dict[str, Any]:
    return {"data_quality": {**total.quality._asdict(), "score": round(total.quality.score, 4)}}
