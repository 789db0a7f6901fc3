"""Draw a trace as text: the span tree, aligned columns, and a waterfall of when each span ran.

Pure: spans in, lines of :class:`rich.text.Text` out; the caller prints them. Every text of a span
is hostile (a prompt can hold terminal escapes), so it passes through :func:`visible` first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from llmops_core.render.text import (
    clipped,
    count_text,
    duration_text,
    kind_style,
    outcome_text,
    plural,
    tokens_text,
    visible,
    wrapped,
)
from llmops_core.render.tree import More, Node, tree
from llmops_core.span import Span

__all__ = ["Waits", "plain", "trace_lines"]

MUTED: Final = "bright_black"
#: These only hold others: a thin bar, so that the eye finds the work.
_CONTAINERS: Final = frozenset({"workflow", "agent", "task", "chain", "handoff"})
_MIN_NAME, _MIN_BAR, _MAX_BAR, _WIDE = 24, 12, 44, 100
#: A name longer than this never widens its column, and no name is cut shorter for its notes.
_MAX_NAME, _MIN_SHORT = 60, 6
_CONTENT_LINES: Final = 3
_TOKENS: Final = "tokens in → out"


class Waits(NamedTuple):
    """How long a human took, before this trace resumed, and after it paused; None if unknown."""

    resumed_after_ms: float | None
    answered_after_ms: float | None


class _Columns(NamedTuple):
    """Widths in cells; 0 leaves a column out."""

    name: int
    outcome: int
    time: int
    tokens: int
    bar: int
    total: int


class _Clock(NamedTuple):
    """The trace's extent in microseconds, for the waterfall."""

    start: int
    length: int


def plain(lines: Iterable[Text]) -> str:
    """Return lines as plain text, without trailing blanks."""
    return "\n".join(line.plain.rstrip() for line in lines)


def trace_lines(
    spans: Sequence[Span],
    *,
    width: int = 100,
    content: bool = False,
    max_rows: int = 400,
    waits: Waits | None = None,
) -> list[Text]:
    """Draw the spans of one trace, at most *max_rows* of them, no line wider than *width*.

    With *content*, each span is followed by the beginning of its input and output. *waits* says
    what other traces tell about waiting for a human.
    """
    if not spans:
        return [Text("no spans", style=MUTED)]
    start = min(s.start_time for s in spans)
    clock = _Clock(start, max(1, max(s.end_time for s in spans) - start))
    rows = list(tree(spans, max_rows=max_rows))
    columns = _layout(rows, max(width, 40))
    lines = [
        *_header(spans, clock, max(width, 40), waits or Waits(None, None)),
        _titles(columns, clock),
    ]
    for row in rows:
        if isinstance(row, More):
            lines.append(_more(row, columns))
        else:
            lines.append(_row(row, columns, clock))
            lines.extend(_details(row, columns, content))
    return lines


def _header(spans: Sequence[Span], clock: _Clock, width: int, waits: Waits) -> Iterator[Text]:
    root = next((s for s in spans if s.parent_id is None), None)
    first = root or min(spans, key=lambda s: s.start_time)
    started = dt.datetime.fromtimestamp(clock.start / 1_000_000, dt.UTC)
    calls = [s for s in spans if s.kind == "llm"]
    facts = [
        f"{started:%Y-%m-%d %H:%M:%S} UTC",
        duration_text(clock.length / 1000),
        plural(len(spans), "span"),
    ]
    if calls:
        facts.append(plural(len(calls), "model call"))
        used = [
            sum(getattr(s, f"{side}_tokens") or 0 for s in calls) for side in ("input", "output")
        ]
        if any(used):
            facts.append(f"{used[0]:,} → {used[1]:,} tokens")
    if first.session_id:
        facts.append(f"session {clipped(first.session_id, 40)}")
    title = Text().append("trace ", style=MUTED).append(visible(first.trace_id), style="bold")
    for mark in _marks(spans, root, waits):
        title.append(f"   {mark}", style="yellow")
    yield _cut(title, width)
    yield _cut(Text(" · ".join(facts), style=MUTED), width)
    yield Text()


def _marks(spans: Sequence[Span], root: Span | None, waits: Waits) -> Iterator[str]:
    """What stands beside the trace's id: it is open, was resumed, or waits for a human."""
    if root is None:
        yield "○ open: its root has not ended, or was lost"
    if waits.resumed_after_ms is not None:
        yield f"↳ resumed after {duration_text(waits.resumed_after_ms)}"
    elif any(span.resume_key for span in spans):
        yield "↳ resumed"  # from a checkpoint where nothing stored waited
    if root is not None and root.outcome == "interrupted":
        if waits.answered_after_ms is None:
            yield "◐ waits for a human"
        else:
            yield f"◐ waited {duration_text(waits.answered_after_ms)} for a human"


def _layout(rows: Sequence[Node | More], width: int) -> _Columns:
    nodes = [row for row in rows if isinstance(row, Node)]
    name = max(cell_len(_label(n).plain) for n in nodes)
    outcome = max(len("outcome"), *(cell_len(outcome_text(n.span.outcome)[0]) for n in nodes))
    time = max(6, *(len(duration_text(n.span.duration_ms)) for n in nodes))
    tokens = max(len(tokens_text(n.span)) for n in nodes)
    tokens = max(tokens, len(_TOKENS) if width >= _WIDE else len("tokens")) if tokens else 0
    fixed = outcome + 2 + time + 2
    if width - fixed - tokens - 2 - _MIN_BAR - 2 < _MIN_NAME:
        tokens = 0  # a narrow terminal: the waterfall says more than the tokens
    fixed += tokens + 2 if tokens else 0
    room = width - fixed - 2
    bar = 0 if room - _MIN_BAR - 2 < _MIN_NAME else max(_MIN_BAR, min(_MAX_BAR, room - 2 - name))
    name = max(min(name, room - (bar + 2 if bar else 0)), 12)
    total = 2 + name + fixed + (bar + 2 if bar else 0)
    return _Columns(name, outcome, time, tokens, bar, min(width, total))


def _titles(columns: _Columns, clock: _Clock) -> Text:
    line = Text(" " * (2 + columns.name + 2))
    line.append("outcome".ljust(columns.outcome), style=MUTED).append("  ")
    line.append("time".rjust(columns.time), style=MUTED)
    if columns.tokens:
        title = _TOKENS if columns.tokens >= len(_TOKENS) else "tokens"
        line.append("  ").append(title.rjust(columns.tokens), style=MUTED)
    if columns.bar:
        end = duration_text(clock.length / 1000).rjust(columns.bar - 1)
        line.append("  ").append("0" + end, style=MUTED)
    return line


def _label(node: Node, width: int | None = None) -> Text:
    """The tree's branch, the kind, the name and notes; of these the name gives way to *width*."""
    span = node.span
    bold = "bold" if span.kind in ("workflow", "agent") else ""
    label = Text().append(node.guide, style=MUTED)
    label.append(f"{clipped(span.kind, 12)} ", style=kind_style(span.kind))
    room = _MAX_NAME if width is None else width - cell_len(label.plain)
    notes = "".join(f" {note}" for note in _notes(node))
    if cell_len(_name(span)) + cell_len(notes) > room:
        notes = notes.replace("↻ attempt ", "↻")
    room -= cell_len(notes)
    label.append(clipped(_name(span), max(room, _MIN_SHORT)), style=bold)
    return label.append(notes, style=MUTED)


def _name(span: Span) -> str:
    if span.kind == "handoff" and span.agent and span.target_agent:
        return f"{span.agent} → {span.target_agent}"
    return span.name or "(no name)"


def _notes(node: Node) -> Iterator[str]:
    span = node.span
    if span.attempt and span.attempt > 1:
        yield f"↻ attempt {span.attempt}"
    if span.agent and node.shows_agent:
        yield f"@{clipped(span.agent, 20)}"
    if span.handoff_confirmed is False:
        yield "never started"
    if node.orphan:
        yield "(parent not stored)"


def _row(node: Node, columns: _Columns, clock: _Clock) -> Text:
    span = node.span
    line = Text("  ")
    line.append_text(_fit(_label(node, columns.name), columns.name)).append("  ")
    word, style = outcome_text(span.outcome)
    line.append(set_cell_size(word, columns.outcome), style=style)
    line.append("  " + duration_text(span.duration_ms).rjust(columns.time))
    if columns.tokens:
        line.append("  " + tokens_text(span).rjust(columns.tokens), style=MUTED)
    if columns.bar:
        style = style if span.outcome == "error" else kind_style(span.kind)
        line.append("  ").append(_bar(span, clock, columns.bar), style=style)
    return line


def _bar(span: Span, clock: _Clock, width: int) -> str:
    """The span's place in the trace, to half a cell; nothing is drawn shorter than that."""
    halves = 2 * width
    first = min(halves - 1, (span.start_time - clock.start) * halves // clock.length)
    last = -(-(span.end_time - clock.start) * halves // clock.length)
    last = min(halves, max(first + 1, last))
    if span.kind == "event":
        return (" " * (first // 2) + "◆").ljust(width)
    full, right, left = "─╶╴" if span.kind in _CONTAINERS else "━╺╸"
    cells = []
    for cell in range(width):
        has_left, has_right = (first <= half < last for half in (2 * cell, 2 * cell + 1))
        cells.append(
            full if has_left and has_right else left if has_left else right if has_right else " "
        )
    return "".join(cells)


def _details(node: Node, columns: _Columns, content: bool) -> Iterator[Text]:
    """What stands below a row: why it failed, and with *content* what went in and came out."""
    span = node.span
    margin = Text("  ").append(node.below, style=MUTED)
    room = max(20, columns.total - cell_len(margin.plain))
    if span.outcome == "error" and (span.error_type or span.error_message):
        why = ": ".join(filter(None, (span.error_type, span.error_message)))
        again = "  ↻ tried again" if node.retried else ""
        parts = wrapped(why, room - 2 - len(again), 6 if content else 1)
        for index, part in enumerate(parts):
            line = margin.copy().append(("✗ " if index == 0 else "  ") + part, style="red")
            yield line.append(again if index == len(parts) - 1 else "", style=MUTED)
    if content:
        for label, text in (("in ", span.input), ("out", span.output)):
            for index, part in enumerate(wrapped(text or "", room - 4, _CONTENT_LINES)):
                head = f"{label} " if index == 0 else "    "
                yield margin.copy().append(head, style=MUTED).append(part)


def _more(more: More, columns: _Columns) -> Text:
    text = f"… {count_text(more.hidden)} more"
    if more.errors:
        text += f", {count_text(more.errors)} in error"
    return _cut(Text("  ").append(more.guide, style=MUTED).append(text, style=MUTED), columns.total)


def _fit(text: Text, width: int) -> Text:
    """Cut or pad to exactly *width* cells."""
    text.truncate(width, overflow="ellipsis", pad=True)
    return text


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text
