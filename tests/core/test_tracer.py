"""The tracer pairs starts and ends, in whatever order and number they come."""

from __future__ import annotations

from typing import Any

import pytest

from llmops_core.config import Settings
from llmops_core.intake.queue import END, MARK, POINT, START
from llmops_core.intake.tracer import Tracer, span_id_of

MS = 1_000_000
WALL = 1_700_000_000 * 1_000_000_000


class HandClock:
    def __init__(self) -> None:
        self.now = 0

    def monotonic_ns(self) -> int:
        return self.now

    def wall_ns(self) -> int:
        return WALL + self.now


class Bench:
    """A tracer, and short ways to feed it: each call is one millisecond later."""

    def __init__(self, **settings: Any) -> None:
        self.clock = HandClock()
        self.tracer = Tracer(Settings(**settings), self.clock)

    def _put(
        self, what: int, run: int, parent: int | None, fields: Any, flag: bool = False
    ) -> None:
        self.clock.now += MS
        now = self.clock.now
        self.tracer.feed((what, run, parent, now, WALL + now, dict(fields), 0, flag))

    def start(
        self, run: int, parent: int | None = None, kind: str = "chain", **fields: Any
    ) -> None:
        promotable = fields.pop("promotable", False)
        self._put(START, run, parent, {"kind": kind, "name": f"r{run}", **fields}, promotable)

    def end(self, run: int, parent: int | None = None, **fields: Any) -> None:
        self._put(END, run, parent, {"kind": "chain", "name": f"r{run}", **fields})

    def mark(self, run: int) -> None:
        self._put(MARK, run, None, {})

    def point(self, run: int, parent: int | None) -> None:
        self._put(POINT, run, parent, {"kind": "event", "name": f"r{run}"})

    def wait(self, seconds: float) -> None:
        self.clock.now += int(seconds * 1000 * MS)
        self.tracer.sweep()

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        return {d["name"]: d for d in self.tracer.finished}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_child_is_below_its_parent_and_in_its_trace(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1)
    bench.end(2)
    bench.end(1)
    root, child = bench.done["r1"], bench.done["r2"]
    assert root["trace_id"] == child["trace_id"] == f"{1:032x}"
    assert child["parent_id"] == root["span_id"] == span_id_of(1)
    assert root["parent_id"] is None
    assert child["duration_ms"] == 1.0
    assert root["duration_ms"] == 3.0


def test_interleaved_runs_keep_their_own_parents(bench: Bench) -> None:
    bench.start(1)
    bench.start(2)
    bench.start(11, 1)
    bench.start(12, 2)
    for run in (11, 12, 1, 2):
        bench.end(run)
    assert bench.done["r11"]["trace_id"] == f"{1:032x}"
    assert bench.done["r12"]["trace_id"] == f"{2:032x}"


def test_twice_is_once(bench: Bench) -> None:
    bench.start(1)
    bench.start(1)
    bench.end(1)
    bench.end(1)
    assert len(bench.tracer.finished) == bench.tracer.made == 1
    assert bench.tracer.notes == {"duplicate_start": 1, "duplicate_end": 1}


def test_a_run_id_that_starts_again_after_its_end_is_a_new_span(bench: Bench) -> None:
    for _ in range(2):
        bench.start(1)
        bench.end(1)
    ids = [d["span_id"] for d in bench.tracer.finished]
    assert ids == [span_id_of(1), span_id_of(1, 2)]
    assert len(set(ids)) == 2
    assert bench.tracer.notes == {"restarted_run": 1}


def test_an_end_before_its_start_is_paired(bench: Bench) -> None:
    bench.start(1)
    bench.end(2, 1, outcome="error")
    assert "r2" not in bench.done
    bench.start(2, 1)
    assert bench.done["r2"]["outcome"] == "error"
    assert bench.done["r2"]["duration_ms"] >= 0


def test_an_end_without_a_start_still_makes_a_span(bench: Bench) -> None:
    bench.start(1)
    bench.end(2, 1, kind="llm", output="kept")
    bench.end(1)
    bench.wait(6)
    span = bench.done["r2"]
    assert (span["kind"], span["output"]) == ("llm", "kept")
    assert span["parent_id"] == span_id_of(1)
    assert "duration_ms" not in span
    assert bench.tracer.notes == {"end_without_start": 1}


def test_a_child_that_starts_before_its_parent_joins_it(bench: Bench) -> None:
    bench.start(3, 2, _late_parent=True)
    bench.end(3)
    assert bench.done == {}, "its trace is not known yet"
    bench.start(1, session_id="s")
    bench.start(2, 1)
    bench.end(2)
    bench.end(1)
    assert {d["trace_id"] for d in bench.tracer.finished} == {f"{1:032x}"}
    assert bench.done["r3"]["parent_id"] == span_id_of(2)
    assert bench.done["r3"]["session_id"] == "s"


def test_what_starts_in_a_child_that_was_early_knows_who_is_around_it(bench: Bench) -> None:
    bench.start(3, 2, _late_parent=True)
    bench.end(3)
    bench.start(1, session_id="s", kind="agent", agent="helper")
    bench.start(2, 1)
    bench.start(4, 3)
    for run in (4, 2, 1):
        bench.end(run)
    assert bench.done["r4"]["parent_id"] == span_id_of(3)
    assert (bench.done["r4"]["agent"], bench.done["r4"]["session_id"]) == ("helper", "s")


def test_a_child_whose_parent_never_comes_is_kept(bench: Bench) -> None:
    bench.start(3, 2, _late_parent=True)
    bench.end(3)
    bench.wait(6)
    assert bench.done["r3"]["parent_id"] == span_id_of(2)
    assert bench.done["r3"]["trace_id"] == f"{2:032x}"


def test_a_child_may_outlive_its_parent(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1)
    bench.end(1)
    bench.end(2, outcome="error")
    bench.wait(6)
    assert bench.done["r2"]["outcome"] == "error"
    assert bench.tracer.open_count == 0


def test_a_child_that_starts_after_its_parent_ended_is_still_below_it(bench: Bench) -> None:
    bench.start(1, session_id="s")
    bench.end(1)
    bench.start(2, 1)
    bench.end(2)
    assert bench.done["r2"]["parent_id"] == span_id_of(1)
    assert bench.done["r2"]["session_id"] == "s"


@pytest.mark.parametrize(
    ("parent_outcome", "expected"),
    [("ok", "incomplete"), ("error", "incomplete"), ("cancelled", "cancelled")],
)
def test_a_child_that_never_ends_is_closed_after_its_root(
    bench: Bench, parent_outcome: str, expected: str
) -> None:
    bench.start(1)
    bench.start(2, 1)
    bench.end(1, outcome=parent_outcome)
    last_known = bench.done["r1"]["end_time"]
    bench.wait(4)
    assert "r2" not in bench.done, "its own end may still come"
    bench.wait(2)
    assert bench.done["r2"]["outcome"] == expected
    assert bench.done["r2"]["end_time"] <= last_known


def test_a_late_end_after_the_closing_is_counted_and_not_stored(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1)
    bench.end(1)
    bench.wait(6)
    bench.end(2)
    assert [d["name"] for d in bench.tracer.finished] == ["r1", "r2"]
    assert bench.tracer.notes == {"late_end": 1}


def test_a_parent_that_ends_well_above_an_open_stream_is_abandoned(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1, kind="llm")
    bench.mark(2)
    bench.end(1)
    bench.end(2, outcome="abandoned")
    assert bench.done["r1"]["outcome"] == "abandoned"


def test_a_parent_whose_stream_ended_is_ok(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1, kind="llm")
    bench.mark(2)
    bench.mark(2)
    bench.end(2)
    bench.end(1)
    assert bench.done["r1"]["outcome"] == "ok"
    assert bench.done["r2"]["ttft_ms"] == 1.0


def test_a_node_that_calls_a_model_directly_is_an_agent(bench: Bench) -> None:
    bench.start(1, kind="workflow")
    bench.start(2, 1, kind="task", promotable=True)
    bench.start(3, 2, kind="chain")
    bench.start(4, 3, kind="llm")
    for run in (4, 3, 2, 1):
        bench.end(run, kind=None)
    done = bench.done
    assert done["r2"]["kind"] == "agent"
    assert [done[f"r{i}"]["agent"] for i in (2, 3, 4)] == ["r2", "r2", "r2"]
    assert done["r4"]["agent_span_id"] == span_id_of(2)
    assert done["r2"]["agent_span_id"] is None, "the enclosing one, not itself"


def test_a_node_with_an_agent_inside_stays_a_task(bench: Bench) -> None:
    bench.start(1, kind="workflow")
    bench.start(2, 1, kind="task", promotable=True)
    bench.start(3, 2, kind="agent", agent="helper")
    bench.start(4, 3, kind="llm")
    bench.start(5, 2, kind="llm")
    for run in (5, 4, 3, 2, 1):
        bench.end(run, kind=None)
    assert bench.done["r2"]["kind"] == "task"
    assert bench.done["r4"]["agent"] == "helper"


def test_session_thread_and_user_are_inherited(bench: Bench) -> None:
    bench.start(1, session_id="s", thread_id="t", user_id="u")
    bench.start(2, 1, user_id="other")
    bench.start(3, 2, _late_parent=True)
    for run in (3, 2, 1):
        bench.end(run)
    span = bench.done["r3"]
    assert (span["session_id"], span["thread_id"], span["user_id"]) == ("s", "t", "other")


def test_an_event_is_a_span_of_zero_duration(bench: Bench) -> None:
    bench.start(1)
    bench.point(2, 1)
    bench.end(1)
    span = bench.done["r2"]
    assert span["start_time"] == span["end_time"]
    assert span["duration_ms"] == 0.0


def test_a_wall_clock_that_steps_changes_no_duration(bench: Bench) -> None:
    bench.start(1)
    bench.clock.now += MS
    bench.tracer.feed((START, 2, 1, bench.clock.now, 0, {"kind": "tool", "name": "r2"}, 0, False))
    bench.end(2)
    bench.end(1)
    child, root = bench.done["r2"], bench.done["r1"]
    assert root["start_time"] <= child["start_time"] <= child["end_time"] <= root["end_time"]
    assert child["duration_ms"] == 1.0


def test_a_trace_keeps_as_many_spans_as_it_may_and_counts_the_others() -> None:
    bench = Bench(trace_spans=3)
    bench.start(1)
    for run in range(2, 12):
        bench.start(run, 1)
    bench.start(50, 11)
    bench.end(50)
    for run in range(2, 12):
        bench.end(run)
    bench.end(1)
    assert set(bench.done) == {"r1", "r2", "r3"}
    assert bench.done["r1"]["attributes"] == {"llmops.span_limit_exceeded": "9"}
    assert bench.tracer.skipped == {"span_limit": 9}
    assert bench.tracer.made == len(bench.tracer.finished) + 9


def test_below_a_root_that_nobody_saw_the_topmost_span_says_what_is_missing() -> None:
    bench = Bench(trace_spans=2)
    bench.start(2, 1)
    for run in range(3, 7):
        bench.start(run, 2)
        bench.end(run)
    bench.end(2)
    bench.wait(6)
    assert set(bench.done) == {"r2", "r3"}
    assert bench.done["r2"]["attributes"] == {"llmops.span_limit_exceeded": "3"}


def test_runs_that_never_end_do_not_fill_the_memory() -> None:
    bench = Bench(open_spans=100)
    for run in range(1, 1001):
        bench.start(run, None if run % 2 else run - 1)
    assert bench.tracer.open_count <= 100
    evicted = bench.tracer.finished
    assert {d["outcome"] for d in evicted} == {"incomplete"}
    assert len(evicted) + bench.tracer.open_count == 1000
    for draft in evicted:  # whole trees: no child without its parent
        if draft["parent_id"]:
            assert any(d["span_id"] == draft["parent_id"] for d in evicted)


def test_a_tree_without_any_event_for_the_idle_time_is_closed() -> None:
    bench = Bench(idle_seconds=60)
    bench.start(1)
    bench.start(2, 1)
    bench.wait(59)
    assert bench.tracer.open_count == 2
    bench.wait(70)
    assert bench.tracer.open_count == 0
    assert bench.done["r2"]["end_time"] == bench.done["r1"]["end_time"]


def test_a_tree_that_still_moves_is_not_closed_by_its_age() -> None:
    bench = Bench(idle_seconds=60)
    bench.start(1)
    for run in range(2, 10):
        bench.wait(50)
        bench.start(run, 1)
        bench.end(run)
    assert "r1" not in bench.done


def test_what_is_open_can_be_seen_without_changing_it(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1)
    drafts = bench.tracer.open_drafts()
    assert [(d["name"], d["outcome"]) for d in drafts] == [
        ("r1", "incomplete"),
        ("r2", "incomplete"),
    ]
    assert bench.tracer.open_count == 2
    bench.end(2)
    assert bench.done["r2"]["outcome"] == "ok"


def test_closing_closes_everything(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1)
    bench.end(9, 1)
    bench.start(21, 20, _late_parent=True)
    bench.end(21)
    bench.tracer.close_all()
    assert set(bench.done) == {"r1", "r2", "r9", "r21"}
    assert bench.tracer.open_count == bench.tracer.pending_held == 0


def test_ended_runs_are_forgotten_in_the_end() -> None:
    bench = Bench()
    for run in range(1, 30_001):
        bench.start(run)
        bench.end(run)
    assert len(bench.tracer._ended) == 20_000
    assert not bench.tracer._lingering
    assert bench.tracer.pending_held == 0


def test_tries_of_one_node_are_numbered_and_the_first_only_if_it_failed(bench: Bench) -> None:
    bench.start(1)
    for run, outcome in ((2, "error"), (3, "error"), (4, "ok")):
        bench.start(run, 1, name="flaky", _retry_key="node:uuid", kind="task")
        bench.end(run, name="flaky", outcome=outcome)
    bench.start(5, 1, _retry_key="other:uuid")
    bench.end(5)
    done = bench.done
    tries = [(d["attempt"], d["outcome"]) for d in bench.tracer.finished if d["name"] == "flaky"]
    assert tries == [(1, "error"), (2, "error"), (3, "ok")]
    assert "attempt" not in done["r5"]
    assert "_retry_key" not in done["r5"]


def test_a_run_that_never_ended_has_no_duration(bench: Bench) -> None:
    bench.start(1)
    bench.start(2, 1)
    bench.end(1)
    bench.wait(6)
    assert "duration_ms" not in bench.done["r2"]
    assert bench.done["r1"]["duration_ms"] == 2.0


def test_a_model_that_routes_makes_no_node_an_agent(bench: Bench) -> None:
    bench.start(1, kind="workflow")
    bench.start(2, 1, kind="task", promotable=True)
    bench.start(3, 2, kind="llm", _in_edge=True)
    bench.end(3, kind="llm")
    bench.end(2, kind=None)
    assert bench.done["r2"]["kind"] == "task"


def test_an_end_that_waits_for_its_start_is_open(bench: Bench) -> None:
    bench.end(7)
    assert bench.tracer.open_count == 1
