"""How ``llmops analyze`` prints its rows for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from llmops_core.cli.console import console, print_lines
from llmops_core.cli.table import TableColumn, print_table
from llmops_core.render.drift import LEGEND, MARKS, side_by_side
from llmops_core.render.text import clipped, count_text, duration_text, plural, visible

if TYPE_CHECKING:
    from llmops_core.analysis.agents import Agent
    from llmops_core.analysis.drift import Drift, Sides
    from llmops_core.analysis.edges import Edge
    from llmops_core.analysis.handoffs import Handoff, Loop
    from llmops_core.analysis.measures import Measure
    from llmops_core.analysis.repair import Quality

__all__ = [
    "print_agents", "print_drift", "print_edges", "print_handoffs", "print_loops", "print_quality",
]  # fmt: skip

_LEVELS = {
    "EXCELLENT": "green", "GOOD": "green", "ACCEPTABLE": "yellow", "POOR": "red", "FAILED": "bold red",
}  # fmt: skip
_STATUS = {
    "ok": ("✓ ok", "green"),
    "retried": ("↻ retried", "yellow"),
    "failed": ("✗ failed", "red"),
    "pending": ("◐ pending", "yellow"),
}


def print_agents(rows: Sequence[Agent]) -> None:
    """Print one line for each agent."""
    columns = [
        TableColumn("agent", 0, 12),
        TableColumn("role", 3),
        TableColumn("runs", 1, right=True),
        TableColumn("success", 2, right=True),
        TableColumn("p50", 4, right=True),
        TableColumn("p95", 5, right=True),
        TableColumn("tokens", 6, right=True),
        TableColumn("cost", 7, right=True),
        TableColumn("works with", 8, 12),
    ]
    print_table(
        columns,
        [
            [
                Text(clipped(row.agent, 40), style="bold"),
                Text(row.role),
                Text(f"{row.invocations:,}"),
                _share(row.success),
                _duration(row.latency_p50_ms),
                _duration(row.latency_p95_ms),
                Text(count_text(row.tokens) if row.tokens else "", style="bright_black"),
                Text(f"${row.cost_usd:.4f}" if row.cost_usd else "", style="bright_black"),
                Text(clipped(", ".join(row.collaborators), 60), style="bright_black"),
            ]
            for row in rows
        ],
    )


def print_edges(rows: Sequence[Edge]) -> None:
    """Print one line for each pair of agents."""
    columns = [
        TableColumn("handoff", 0, 16),
        TableColumn("n", 1, right=True),
        TableColumn("success", 2, right=True),
        TableColumn("quality", 3, right=True),
        TableColumn("arrived", 4, right=True),
        TableColumn("failed", 5, right=True),
        TableColumn("retried", 6, right=True),
        TableColumn("dropped", 7, right=True),
        TableColumn("bounced", 8, right=True),
        TableColumn("gap", 9, right=True),
    ]
    print_table(columns, [_edge(row) for row in rows])


def _edge(row: Edge) -> list[Text]:
    score = _measured(row.quality, "{:.2f}")
    if row.level is not None:
        score.append(f" {row.level}", style=_LEVELS[row.level])
    return [
        Text(clipped(f"{row.source} → {row.target}", 60), style="bold"),
        Text(f"{row.handoffs:,}"),
        _share(row.success),
        score,
        _share(row.retention),
        *(Text(f"{count:,}" if count else "") for count in (row.failed, row.retried, row.dropped)),
        _share(row.bounced),
        _duration(row.gap_p50_ms),
    ]


def print_handoffs(rows: Sequence[Handoff]) -> None:
    """Print one line for each handoff."""
    columns = [
        TableColumn("trace", 3),
        TableColumn("handoff", 0, 16),
        TableColumn("status", 1),
        TableColumn("how", 2),
        TableColumn("gap", 4, right=True),
    ]
    table = []
    for row in rows:
        shown, style = _STATUS[row.status]
        if row.status == "failed" and not row.confirmed:
            shown = "✗ dropped"
        gap = "" if row.gap_ms is None else duration_text(max(0.0, row.gap_ms))
        table.append(
            [
                Text(row.partition[:12], style="bright_black"),
                Text(clipped(f"{row.source} → {row.target}", 60), style="bold"),
                Text(shown, style=style),
                Text(row.mechanism),
                Text(gap, style="bright_black"),
            ]
        )
    print_table(columns, table)


def print_loops(rows: Sequence[Loop]) -> None:
    """Say who went in circles."""
    for row in rows:
        between = f"{visible(row.agents[0])} ⇄ {visible(row.agents[1])}"
        line = Text("↺ ", style="yellow").append(between, style="bold")
        line.append(f" went back and forth {row.turns} times in {row.partition[:12]}")
        print_lines([line])


def print_drift(
    rows: Sequence[Drift], count: int, sides: Mapping[str, Sides] | None = None
) -> None:
    """Print what each handoff lost, altered and added, and both texts if they are given."""
    out = console()
    for row in rows:
        head = Text(clipped(f"{row.source} → {row.target}", 60), style="bold")
        style = "bold red" if row.high else ""
        drift = "no drift" if row.drift is None else f"drift {row.drift:.0%}"
        head.append(f"  {drift}", style=style).append(f" of {row.n}", style="bright_black")
        head.append(f"  {row.mechanism}, trace {row.partition[:12]}", style="bright_black")
        print_lines([head, *_faults(row)])
        both = sides.get(row.key) if sides else None
        if both is not None:
            from llmops_core.analysis.texts import compare

            compared = compare(both.before, both.received, complete=both.complete)
            typer.echo()
            print_lines(side_by_side(both.before, both.received, compared, out.width))
        typer.echo()
    print_lines([Text(f"{LEGEND}   ({plural(count, 'handoff')} compared)", style="bright_black")])


def _faults(row: Drift) -> list[Text]:
    lines = []
    for lost in row.lost:
        note = "  asked for or fetched again" if lost.reacquired else ""
        lines.append(_fault("lost", lost.value, f"({lost.type})", note))
    lines += [_fault("altered", c.value, f"became {visible(c.becomes)}", "") for c in row.altered]
    lines += [_fault("added", value, "nothing supports it", "") for value in row.added]
    lines += [_fault("unknown", value, "the text was cut", "") for value in row.unknown]
    for thing in row.swapped:
        lines.append(Text(f"  ⇅ {visible(thing)} exchanged its number with another", "yellow"))
    for value in row.flipped:
        lines.append(Text(f"  ¬ {visible(value)} is excluded on one side only", "yellow"))
    return lines


def _fault(status: str, value: str, said: str, note: str) -> Text:
    mark, _, style = MARKS[status]
    line = Text(f"  {mark} {clipped(value, 60)}", style=style)
    return line.append(f"  {said}", style="bright_black").append(note, style="red")


def print_quality(quality: Quality) -> None:
    """Say on stderr what had to be repaired, where anything had."""
    repaired = [
        plural(count, name)
        for count, name in (
            (quality.duplicates, "repeated span"),
            (quality.reattached, "lost parent found"),
            (quality.orphans - quality.reattached, "lost parent not found"),
            (quality.inverted, "end before its start"),
            (quality.aliases, "name folded"),
        )
        if count
    ]
    if repaired:
        typer.echo(f"data quality {quality.score:.0%}: {'; '.join(repaired)}", err=True)


def _measured(measure: Measure, form: str, scale: float = 1.0) -> Text:
    if measure.value is None:
        return Text(f"too few ({measure.n})" if measure.n else "", style="bright_black")
    return Text(form.format(measure.value * scale))


def _share(measure: Measure) -> Text:
    if measure.value is None or measure.low is None or measure.high is None:
        return _measured(measure, "")
    text = Text(f"{measure.value:.0%}")
    return text.append(f" [{measure.low:.0%}\N{EN DASH}{measure.high:.0%}]", style="bright_black")


def _duration(measure: Measure) -> Text:
    if measure.value is None:
        return _measured(measure, "")
    return Text(duration_text(max(0.0, measure.value)))
