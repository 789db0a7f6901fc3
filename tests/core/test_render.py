"""A trace as text: exact, aligned, bounded, and safe to print whatever a span holds."""

from __future__ import annotations

from typing import Any

import pytest
from inline_snapshot import snapshot
from rich.cells import cell_len

from llmops_core.render.text import clipped, duration_text, outcome_text, visible, wrapped
from llmops_core.render.trace import plain, trace_lines
from llmops_core.span import KINDS, OUTCOMES, Span

T0 = 1_795_000_000_000_000
TRACE = "019ab3f2c1d07e4a9b1c2d3e4f5a6b7c"


def span(
    span_id: str, parent: str | None, kind: str, name: str, a: float, b: float, **kw: Any
) -> Span:
    fields: dict[str, Any] = {"outcome": "ok", "duration_ms": float(b - a), "trace_id": TRACE}
    return Span(
        span_id=span_id,
        parent_id=parent,
        kind=kind,
        name=name,
        start_time=T0 + int(a * 1000),
        end_time=T0 + int(b * 1000),
        **{**fields, **kw},
    )


def desk() -> list[Span]:
    down = {"error_type": "ConnectionError", "error_message": "order service did not answer"}
    to = {"outcome": "handed_off", "agent": "router", "handoff_confirmed": True}
    used = {"input_tokens": 1355, "output_tokens": 40}
    return [
        span(
            "r", None, "workflow", "support-desk", 0, 92, outcome="interrupted", session_id="demo-1"
        ),
        span("a", "r", "agent", "router", 1, 13, agent="router"),
        span(
            "a1", "a", "llm", "scripted-1", 2, 12, agent="router", input_tokens=7, output_tokens=2
        ),
        span("h", "r", "handoff", "handoff", 13, 14, target_agent="billing", **to),
        span("b", "r", "agent", "billing", 14, 60, agent="billing"),
        span(
            "b2", "b", "tool", "lookup", 26, 31, outcome="error", attempt=1, agent="billing", **down
        ),
        span("b3", "b", "tool", "lookup", 31, 36, attempt=2, agent="billing"),
        span("b4", "b", "llm", "scripted-1", 37, 59, agent="billing", **used),
        span("d", "r", "task", "approve_refund", 61, 91, outcome="interrupted"),
    ]


def text(spans: list[Span], **options: Any) -> str:
    return plain(trace_lines(spans, **options))


def test_a_trace_reads_as_an_aligned_tree_with_a_waterfall() -> None:
    assert text(desk(), width=100) == snapshot("""\
trace 019ab3f2c1d07e4a9b1c2d3e4f5a6b7c   ◐ waits for a human
2026-11-18 11:06:40 UTC · 92 ms · 9 spans · 2 model calls · 1,362 → 42 tokens · session demo-1

                                 outcome          time  tokens in → out  0                     92 ms
  workflow support-desk          ◐ interrupted   92 ms                   ───────────────────────────
  ├─ agent router                ✓ ok            12 ms                   ────
  │  └─ llm scripted-1           ✓ ok            10 ms          7 →   2  ╺━━━
  ├─ handoff router → billing    ⇢ handed off   1.0 ms                      ╶╴
  ├─ agent billing               ✓ ok            46 ms                       ──────────────
  │  ├─ tool lookup              ✗ error        5.0 ms                          ╺━╸
  │  │     ✗ ConnectionError: order service did not answer  ↻ tried again
  │  ├─ tool lookup ↻ attempt 2  ✓ ok           5.0 ms                            ━━
  │  └─ llm scripted-1           ✓ ok            22 ms      1,355 →  40            ╺━━━━━━╸
  └─ task approve_refund         ◐ interrupted   30 ms                                    ╶─────────\
""")


def test_a_narrow_terminal_keeps_names_and_gives_up_columns() -> None:
    assert text(desk(), width=60) == snapshot("""\
trace 019ab3f2c1d07e4a9b1c2d3e4f5a6b7c   ◐ waits for a human
2026-11-18 11:06:40 UTC · 92 ms · 9 spans · 2 model calls ·…

                                 outcome          time
  workflow support-desk          ◐ interrupted   92 ms
  ├─ agent router                ✓ ok            12 ms
  │  └─ llm scripted-1           ✓ ok            10 ms
  ├─ handoff router → billing    ⇢ handed off   1.0 ms
  ├─ agent billing               ✓ ok            46 ms
  │  ├─ tool lookup              ✗ error        5.0 ms
  │  │     ✗ ConnectionError: order se…  ↻ tried again
  │  ├─ tool lookup ↻ attempt 2  ✓ ok           5.0 ms
  │  └─ llm scripted-1           ✓ ok            22 ms
  └─ task approve_refund         ◐ interrupted   30 ms\
""")


def test_content_stands_below_its_span() -> None:
    spans = [span("a", None, "tool", "find", 0, 5, input="order A-1042", output='{"found":1}')]
    assert text(spans, width=80, content=True) == snapshot("""\
trace 019ab3f2c1d07e4a9b1c2d3e4f5a6b7c
2026-11-18 11:06:40 UTC · 5.0 ms · 1 span

                outcome    time  0                                     5.0 ms
  tool find     ✓ ok     5.0 ms  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
     in  order A-1042
     out {"found":1}\
""")


def test_a_trace_without_its_root_is_open() -> None:
    assert text([span("b", "gone", "tool", "find", 0, 5)], width=90) == snapshot("""\
trace 019ab3f2c1d07e4a9b1c2d3e4f5a6b7c   ○ open: its root has not ended, or was lost
2026-11-18 11:06:40 UTC · 5.0 ms · 1 span

                                 outcome    time  0                                 5.0 ms
  tool find (parent not stored)  ✓ ok     5.0 ms  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━\
""")


@pytest.mark.parametrize("width", [40, 57, 80, 133, 250])
def test_no_line_is_wider_than_asked(width: int) -> None:
    spans = [*desk(), span("x", "b", "tool", "名前" * 60, 40, 41, agent="someone-else" * 9)]
    for line in trace_lines(spans, width=width, content=True):
        assert cell_len(line.plain) <= width


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "a\rb",
        "x\u202egnp.exe",
        "\u2066a\u2069",
        "\x9b31m",
        "\ue0041\U000e0041",
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape_in_every_field(hostile: str) -> None:
    texts = {"name": hostile, "kind": hostile, "outcome": "error", "session_id": hostile}
    more = {"agent": hostile, "target_agent": hostile, "error_type": hostile, "input": hostile}
    evil = span("a", None, "kind", "name", 0, 5).replace(
        **texts, **more, trace_id=hostile, error_message=hostile, output=hostile, parent_id=hostile
    )
    shown = text([evil, evil.replace(span_id="b", kind="handoff", outcome=hostile)], content=True)
    assert not {c for c in shown if c in hostile and not c.isascii()}
    assert all(c.isprintable() for c in shown.replace("\n", ""))


def test_escapes_leave_ordinary_writing_alone() -> None:
    words = "naïve 名前 🙂 क्\u200dष 👩\u200d💻"
    assert visible(words) == words
    assert visible("bil\u200dling\n\t\x00") == "bil\\u200dling\\n\\t\\x00"
    assert visible("\ud800") == "\\ud800"


def test_ten_thousand_spans_are_bounded_and_the_errors_among_them_shown() -> None:
    spans = [span("r", None, "workflow", "w", 0, 10_000)]
    spans += [span(f"s{i}", "r", "tool", "t", i, i + 1) for i in range(9_998)]
    spans.append(span("bad", "r", "tool", "broken", 9_999, 10_000, outcome="error"))
    lines = text(spans).splitlines()
    assert len(lines) < 60
    assert any("broken" in line for line in lines)
    assert lines[-1].strip() == "└─ … 9,968 more"


def test_deep_and_wide_traces_stop_at_the_number_of_rows_asked_for() -> None:
    chain = [span("0", None, "chain", "c", 0, 900)]
    chain += [span(str(i), str(i - 1), "chain", "c", i, 900) for i in range(1, 500)]
    lines = text(chain, max_rows=50).splitlines()
    assert lines[-1].strip() == "… 450 more"
    assert max(map(cell_len, lines)) <= 100


def test_cycles_doubled_ids_and_own_parents_show_each_span_once() -> None:
    spans = [
        span("a", "b", "tool", "one", 0, 1),
        span("b", "a", "tool", "two", 1, 2),
        span("c", "c", "tool", "three", 2, 3),
        span("c", None, "tool", "four", 2, 3),
    ]
    shown = text(spans)
    assert [shown.count(name) for name in ("one", "two", "three", "four")] == [1, 1, 1, 0]


def test_every_outcome_has_a_word_and_an_icon_of_one_cell() -> None:
    for outcome in (*OUTCOMES, "open"):
        icon, _, word = outcome_text(outcome)[0].partition(" ")
        assert cell_len(icon) == 1
        assert word == outcome.replace("_", " ")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(kind: str) -> None:
    assert f"{kind} thing" in text([span("a", None, kind, "thing", 0, 1)])


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (None, "-"), (0.04, "0.0 ms"), (9.94, "9.9 ms"), (9.96, "10 ms"), (999.4, "999 ms"),
        (999.6, "1.00 s"), (59_990, "59.99 s"), (59_999, "1m 00s"), (3_599_400, "59m 59s"),
        (3_725_000, "1h 02m"),
    ],
)  # fmt: skip
def test_durations_read_at_every_scale(ms: float | None, shown: str) -> None:
    assert duration_text(ms) == shown


def test_text_is_cut_to_cells_not_characters() -> None:
    assert clipped("名前名前", 5) == "名前…"
    assert clipped("abcdef", 6) == "abcdef"
    assert wrapped("one two three four", 9, 2) == ["one two", "three fo…"]
    assert wrapped("", 9, 2) == []


def test_no_spans_is_said() -> None:
    assert text([]) == "no spans"
