"""Pauses as rows: which resume answers which pause, whatever the spans say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops_core import Span
from llmops_core.analysis.waiting import Pause, Question, waiting
from llmops_core.render.trace import Waits, plain, trace_lines
from llmops_core.testing.spans import START, make_span

SECOND = 1_000_000


def paused(number: int, at: float, **fields: Any) -> Span:
    """A root that pauses *at* seconds after the start."""
    end = START + int(at * SECOND)
    made = {
        "trace_id": f"{number:032x}",
        "kind": "workflow",
        "outcome": "interrupted",
        "wait_key": "k1",
        "start_time": end - 1000,
        "end_time": end,
    }
    return make_span(number, **(made | fields))


def resumed(number: int, at: float, answer: Any = "yes", **fields: Any) -> Span:
    """A root that resumes *at* seconds after the start."""
    start = START + int(at * SECOND)
    made = {
        "trace_id": f"{number:032x}",
        "kind": "workflow",
        "resume_key": "k1",
        "input": json.dumps({"goto": [], "resume": answer}),
        "start_time": start,
        "end_time": start + 1000,
    }
    return make_span(number, **(made | fields))


def rows(*spans: Span, **kwargs: Any) -> list[Pause]:
    return waiting(spans, now=START + 100 * SECOND, **kwargs)


def test_a_key_without_a_resume_waits() -> None:
    (row,) = rows(paused(1, at=40, thread_id="t1", output='{"__interrupt__":[{"value":"ok?"}]}'))
    assert (row.answered, row.answer, row.waited_ms) == (False, None, 60_000.0)
    assert row.asked == (Question(None, "ok?"),)
    assert (row.since, row.thread_id) == (START + 40 * SECOND, "t1")


def test_a_resume_of_the_same_key_answers_it() -> None:
    (row,) = rows(paused(1, at=10), resumed(2, at=25, answer={"a": 1}))
    assert (row.answered, row.answer, row.waited_ms) == (True, {"a": 1}, 15_000.0)
    assert row.resumed_trace_ids == (f"{2:032x}",)


def test_another_key_answers_nothing() -> None:
    assert [row.answered for row in rows(paused(1, at=1), resumed(2, at=2, resume_key="k2"))] == [
        False
    ]


def test_a_resume_answers_the_last_pause_before_it() -> None:
    again = resumed(2, at=20, answer="a", wait_key="k1", outcome="interrupted")
    found = rows(paused(1, at=10), again, resumed(3, at=30, answer="b"))
    assert [(row.trace_id[-1], row.answer) for row in found] == [("2", "b"), ("1", "a")]


def test_a_run_that_resumed_and_paused_again_waits_again() -> None:
    again = resumed(2, at=20, answer="a", wait_key="k1", outcome="interrupted")
    waits, answered = rows(paused(1, at=10), again)
    assert (waits.trace_id[-1], waits.answered, answered.answer) == ("2", False, "a")


def test_the_first_of_several_resumes_is_the_answer() -> None:
    (row,) = rows(paused(1, at=10), resumed(3, at=30, answer="b"), resumed(2, at=20, answer="a"))
    assert (row.answer, row.waited_ms) == ("a", 10_000.0)
    assert row.resumed_trace_ids == (f"{2:032x}", f"{3:032x}")


def test_clocks_that_disagree_give_no_negative_wait() -> None:
    (row,) = rows(paused(1, at=10), resumed(2, at=9.5))
    assert (row.answered, row.waited_ms) == (True, 0.0)


def test_the_longest_waiting_comes_first_and_the_answered_last() -> None:
    found = rows(
        paused(1, at=1),
        resumed(2, at=2),
        paused(3, at=20, wait_key="k3"),
        paused(4, at=10, wait_key="k4"),
    )
    assert [row.wait_key for row in found] == ["k4", "k3", "k1"]


def test_a_span_that_is_given_twice_counts_once() -> None:
    assert len(rows(paused(1, at=1), paused(1, at=1), resumed(2, at=2), resumed(2, at=2))) == 1


def test_a_thread_that_went_on_without_an_answer_is_told() -> None:
    activity = {"t1": START + 50 * SECOND, "t2": START + 9 * SECOND}
    spans = [paused(n, at=10, thread_id=f"t{n}", wait_key=f"k{n}") for n in (1, 2, 3)]
    told = {r.thread_id: r.thread_went_on for r in rows(*spans, thread_activity=activity)}
    assert told == {"t1": START + 50 * SECOND, "t2": None, "t3": None}
    (answered,) = rows(
        paused(1, at=10, thread_id="t1"), resumed(2, at=50), thread_activity=activity
    )
    assert answered.thread_went_on is None


@pytest.mark.parametrize(
    "output",
    [None, "", "text", "{", "[1]", "{}", '{"__interrupt__":5}', '{"__interrupt__":[]}', "null"],
)
def test_content_that_holds_no_question_asks_nothing(output: str | None) -> None:
    (row,) = rows(paused(1, at=1, output=output))
    assert row.asked == ()


def test_odd_questions_are_kept_as_they_are() -> None:
    output = json.dumps({"__interrupt__": [5, {"value": None, "id": 3}, {"id": "x"}]})
    (row,) = rows(paused(1, at=1, output=output))
    assert row.asked == (Question(None, 5), Question(None, None), Question(None, {"id": "x"}))


@pytest.mark.parametrize("given", [None, "text", "{", '{"goto":[]}'])
def test_a_resume_without_a_decision_answers_none(given: str | None) -> None:
    (row,) = rows(paused(1, at=1), resumed(2, at=2, input=given))
    assert (row.answered, row.answer) == (True, None)


# ---- how a trace says it ----


def _head(span: Span, **waits: float) -> str:
    told = Waits(waits.get("resumed"), waits.get("answered"))
    return plain(trace_lines([span], waits=told)).splitlines()[0][len("trace ") + 32 :].strip()


def test_a_paused_trace_says_that_it_waits_and_how_long_it_waited() -> None:
    assert _head(paused(1, at=1)) == "◐ waits for a human"
    assert _head(paused(1, at=1), answered=125_000) == "◐ waited 2m 05s for a human"


def test_a_resumed_trace_says_after_how_long() -> None:
    assert _head(resumed(2, at=2), resumed=90_000) == "↳ resumed after 1m 30s"
    assert _head(resumed(2, at=2)) == "↳ resumed"


def test_a_resumed_trace_that_pauses_again_says_both() -> None:
    again = resumed(2, at=2, wait_key="k1", outcome="interrupted")
    assert _head(again, resumed=1_500) == "↳ resumed after 1.50 s   ◐ waits for a human"
