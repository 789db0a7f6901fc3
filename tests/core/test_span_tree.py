"""The text that the handler suites compare."""

from __future__ import annotations

from llmops_core.span import Span
from llmops_core.testing import span_tree
from llmops_core.testing.fixtures import CapturedSpans, FakeClock, spans  # noqa: F401 - a fixture

TRACE = "0" * 32


def _span(number, parent=None, **fields):
    base = {
        "span_id": f"{number:016x}",
        "trace_id": TRACE,
        "parent_id": None if parent is None else f"{parent:016x}",
        "kind": "task",
        "name": f"n{number}",
        "outcome": "ok",
        "start_time": number,
        "end_time": number,
    }
    return Span(**{**base, **fields})


def test_children_come_by_time_and_then_by_name():
    given = [
        _span(4, 1, name="b", start_time=3),
        _span(3, 1, name="a", start_time=3),
        _span(2, 1, name="c", start_time=2),
        _span(1),
    ]
    expected = "task n1 ok\n  task c ok\n  task a ok\n  task b ok\n"
    assert span_tree(given) == expected
    assert span_tree(reversed(given)) == expected


def test_a_line_tells_what_there_is_to_tell():
    told = [
        _span(1, kind="agent", name="boss", agent="boss", session_id="s"),
        _span(
            2,
            1,
            kind="llm",
            agent="boss",
            outcome="error",
            error_type="TimeoutError",
            attempt=2,
            input_tokens=12,
            output_tokens=3,
            ttft_ms=1.0,
        ),
        _span(
            3,
            1,
            kind="handoff",
            agent="boss",
            target_agent="bob",
            handoff_mechanism="tool",
            outcome="handed_off",
        ),
    ]
    assert span_tree(told) == (
        "agent boss ok session=s\n"
        "  llm n2 [boss] error TimeoutError attempt=2 12+3 tokens streamed\n"
        "  handoff n3 [boss] -> bob by tool handed_off\n"
    )


def test_content_and_times_are_shown_when_asked_for():
    told = [_span(1, input="x", output='{"y":1}', duration_ms=1.25)]
    assert span_tree(told, content=True, times=True) == (
        'task n1 ok 1.2ms\n  in: x\n  out: {"y":1}\n'
    )


def test_orphans_and_cycles_are_shown_once():
    assert span_tree([_span(1, 9)]) == "task n1 ok (orphan)\n"
    assert span_tree([_span(1, 2), _span(2, 1)]) == "task n1 ok\n  task n2 ok\n"
    assert span_tree([]) == ""


def test_the_clock_moves_only_by_readings_and_by_hand():
    clock = FakeClock()
    first = clock.monotonic_ns()
    clock.advance(ms=2)
    assert clock.monotonic_ns() - first == 2_001_000
    assert clock.wall_ns() > 1_700_000_000 * 10**9


def test_the_fixture_gives_what_was_recorded(spans: CapturedSpans):  # noqa: F811
    recorder = spans.monitor.recorder
    recorder.start(1, None, {"kind": "workflow", "name": "work"})
    spans.clock.advance(ms=5)
    recorder.end(1, None, {"kind": "workflow", "name": "work", "outcome": "ok"})
    assert spans.tree() == "workflow work ok\n"
    (span,) = spans()
    assert 5 <= span.duration_ms < 6


def test_what_never_ends_is_closed_when_its_root_has_ended(spans: CapturedSpans):  # noqa: F811
    recorder = spans.monitor.recorder
    recorder.start(1, None, {"kind": "workflow", "name": "work"})
    recorder.start(2, 1, {"kind": "llm", "name": "model"})
    recorder.end(1, None, {"kind": "workflow", "name": "work", "outcome": "cancelled"})
    assert spans.tree() == "workflow work cancelled\n  llm model cancelled\n"
