"""Spans to test with: deterministic, valid, and as hostile as real ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from llmops_core.batch import SpanBatch
from llmops_core.schema import COLUMNS
from llmops_core.span import Span

__all__ = ["HOSTILE_TEXTS", "START", "full_span", "make_batch", "make_span"]

#: 2026-01-01T00:00:00Z, in microseconds.
START: Final = 1_767_225_600_000_000

HOSTILE_TEXTS: Final[tuple[str, ...]] = (
    "",
    " ",
    "two\nlines\r\nand\ta tab",
    "'; DROP TABLE spans; --",
    "\"double\" and 'single' and `back` and \\backslash\\",
    "100% _under_ %s {braces} $1 ?",
    "👩‍👩‍👧‍👦 emoji, e\u0301 and é, \u202e right to left",
    "\u2400 stands for a zero byte",
    "null",
    "\U0001d56c beyond the basic plane",
)


def make_span(number: int = 1, /, **overrides: Any) -> Span:
    """Return a valid span; *number* sets its id, its name and, in milliseconds, its start."""
    start = overrides.get("start_time", START + number * 1_000)
    values: dict[str, Any] = {
        "span_id": f"{number:016x}",
        "trace_id": f"{1:032x}",
        "kind": "llm",
        "name": f"span-{number}",
        "outcome": "ok",
        "start_time": start,
        "end_time": start + 500,
    }
    return Span(**(values | overrides))


def full_span(number: int = 1, /) -> Span:
    """Return a span with a value in every column, all of them different."""
    values: dict[str, Any] = {}
    for position, column in enumerate(COLUMNS):
        mark = number * 1_000 + position
        made: dict[str, Any] = {
            "text": f"{column.name} {mark}",
            "enum": f"{column.name}-{mark}",
            "int": mark,
            "float": mark + 0.1,
            "bool": mark % 2 == 0,
            "list": (f"tag {mark}", "👍", "tag"),
            "map": {"langgraph.step": str(mark), 'a "quoted" key': "it's"},
            "numbers": {"score": mark / 7, "negative": -0.5},
        }
        values[column.name] = made.get(column.type)
    kept = {name: value for name, value in values.items() if value is not None}
    fixed = {"kind": "handoff", "outcome": "handed_off", "writer_id": "writer0"}
    ids = {"span_id": f"{number:016x}", "trace_id": f"{number:032x}"}
    return make_span(number, **(kept | fixed | ids))


def make_batch(
    spans: Iterable[Span], *, writer_id: str = "writer1", first_seq: int = 1
) -> SpanBatch:
    """Return spans as a journal seals them: numbered without gaps, with their range."""
    rows = [span.replace(writer_id=writer_id, seq=first_seq + at) for at, span in enumerate(spans)]
    return SpanBatch(
        rows, writer_id=writer_id, first_seq=first_seq, last_seq=first_seq + len(rows) - 1
    )
