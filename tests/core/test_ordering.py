"""Events that say when they happened are told in that order, however they come."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from llmops_core import Monitor, span_tree, spans_from_arrow
from llmops_core.intake.ordering import HOLD_NS, Ordering
from llmops_core.testing.fixtures import spans  # noqa: F401 - a fixture

MS = 1_000_000


class Telling:
    """A teller that holds nothing back."""

    def __init__(self, told: Any) -> None:
        self.told = told

    def __call__(self, run: int, parent: int | None, fields: dict[str, Any], tell: Any) -> None:
        self.told(run, parent, fields, tell)

    def settle(self, tell: Any, *, closing: bool) -> None:
        pass


def _event(mono: int, fields: dict[str, Any], told: Any) -> Any:
    return (0, 1, None, mono, mono, fields, 600, Telling(told))


def test_what_was_held_is_told_oldest_first() -> None:
    told: list[int] = []
    ordering = Ordering(lambda event: None)
    times = list(range(100))
    random.Random(7).shuffle(times)
    for at in times:
        ordering.hold(
            _event(at, {"at": at}, lambda run, parent, fields, tell: told.append(fields["at"]))
        )
    ordering.release(None, pytest.fail)
    assert told == sorted(times)
    assert len(ordering) == 0


def test_an_event_waits_only_as_long_as_an_earlier_one_may_come() -> None:
    told: list[int] = []
    ordering = Ordering(lambda event: None)
    for at in (0, 1, HOLD_NS):
        ordering.hold(
            _event(at, {"at": at}, lambda run, parent, fields, tell: told.append(fields["at"]))
        )
    ordering.release(HOLD_NS - 1, pytest.fail)
    assert told == []
    ordering.release(HOLD_NS + 1, pytest.fail)
    assert told == [0, 1]


def test_a_teller_that_raises_costs_one_event() -> None:
    told: list[int] = []
    failed: list[BaseException] = []

    def teller(run: int, parent: int | None, fields: dict[str, Any], tell: Any) -> None:
        if fields["at"] == 1:
            raise ValueError("broken")
        told.append(fields["at"])

    ordering = Ordering(lambda event: None)
    for at in range(3):
        ordering.hold(_event(at, {"at": at}, teller))
    ordering.release(None, failed.append)
    assert told == [0, 2]
    assert [str(error) for error in failed] == ["broken"]


def _tell(run: int, parent: int | None, fields: dict[str, Any], tell: Any) -> None:
    if fields.pop("ends", False):
        tell.end(run, parent, fields)
    else:
        tell.start(run, parent, fields)


def test_a_tree_told_backwards_by_many_threads_is_the_same_tree() -> None:
    with Monitor(storage="memory:", durability="memory") as monitor:
        recorder = monitor.recorder.in_order(Telling(_tell))
        now = monitor.recorder.wall() - 1_000 * MS
        calls = []
        for run in range(1, 6):
            about = {"kind": "chain", "name": f"run {run}"}
            above = run - 1 or None
            calls.append((recorder.start, run, above, about, now + run * MS))
            end = {**about, "outcome": "ok", "ends": True}
            calls.append((recorder.end, run, above, end, now + (20 - run) * MS))
        threads = [threading.Thread(target=c[0], args=c[1:]) for c in reversed(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monitor.flush()
        stored = spans_from_arrow(monitor.query())
    expected = "".join(f"{'  ' * (run - 1)}chain run {run} ok\n" for run in range(1, 6))
    assert span_tree(stored) == expected
    outer = min(stored, key=lambda s: s.start_time)
    assert outer.duration_ms == pytest.approx(18, abs=0.01)
    assert outer.start_time == (now + MS) // 1_000


def test_held_events_are_told_without_a_flush(spans) -> None:  # noqa: F811
    recorder = spans.monitor.recorder.in_order(Telling(_tell))
    at = spans.clock.wall_ns()
    recorder.start(9, None, {"kind": "chain", "name": "alone"}, at)
    recorder.end(9, None, {"kind": "chain", "name": "alone", "outcome": "ok", "ends": True}, at)
    spans.clock.advance(2_000)
    done = threading.Event()
    for _ in range(100):
        if spans.monitor.stats()["spans"]["made"]:
            break
        done.wait(0.05)
    assert spans.monitor.stats()["spans"]["made"] == 1


def test_a_clock_that_is_set_moves_no_duration() -> None:
    class Stepping:
        def __init__(self) -> None:
            self.mono, self.step = 0, 0

        def monotonic_ns(self) -> int:
            return self.mono

        def wall_ns(self) -> int:
            return 1_700_000_000 * 1_000 * MS + self.mono + self.step

    clock = Stepping()
    with Monitor(storage="memory:", durability="memory", clock=clock) as monitor:
        recorder = monitor.recorder.in_order(Telling(_tell))
        about = {"kind": "chain", "name": "alone"}
        clock.mono = 10 * MS
        recorder.start(5, None, about, clock.wall_ns())
        clock.mono, clock.step = 40 * MS, 3_600_000 * MS
        recorder.end(5, None, {**about, "outcome": "ok", "ends": True}, clock.wall_ns())
        monitor.flush()
        (span,) = spans_from_arrow(monitor.query())
    assert span.duration_ms == pytest.approx(30)


def test_a_flush_lets_a_framework_deliver_first_and_survives_one_that_cannot() -> None:
    with Monitor(storage="memory:", durability="memory") as monitor:
        recorder = monitor.recorder
        asked: list[float] = []

        def deliver(seconds: float) -> None:
            asked.append(seconds)
            run = 100 + len(asked)
            recorder.point(run, None, {"kind": "event", "name": "delivered", "outcome": "ok"})

        def broken(seconds: float) -> None:
            raise RuntimeError("the bus is gone")

        monitor.before_flush(broken)
        monitor.before_flush(deliver)
        monitor.before_flush(deliver)
        assert monitor.flush(8).complete
        assert len(asked) == 1
        assert 0 < asked[0] <= 2
        assert monitor.query().num_rows == 1
        assert any("before_flush" in str(key) for key in monitor.stats()["failures"])


class HoldsBack(Telling):
    """Holds every event back until it is asked to settle."""

    def __init__(self) -> None:
        super().__init__(lambda *told: self.held.append(told))
        self.held: list[Any] = []

    def settle(self, tell: Any, *, closing: bool) -> None:
        for run, parent, fields, then in self.held if closing else []:
            _tell(run, parent, fields, then)
        self.held = self.held if not closing else []


def test_what_a_teller_holds_back_is_told_when_the_monitor_closes(tmp_path: Any) -> None:
    monitor = Monitor(f"parquet:{tmp_path}/data")
    recorder = monitor.recorder.in_order(HoldsBack())
    at = monitor.recorder.wall()
    recorder.start(5, None, {"kind": "chain", "name": "alone"}, at)
    recorder.end(5, None, {"kind": "chain", "name": "alone", "outcome": "ok", "ends": True}, at)
    monitor.flush()
    assert monitor.stats()["spans"]["made"] == 0
    monitor.close()
    assert monitor.stats()["spans"]["made"] == 1


def test_a_teller_that_fails_to_settle_is_counted_and_the_others_settle(tmp_path: Any) -> None:
    class Broken(Telling):
        def settle(self, tell: Any, *, closing: bool) -> None:
            raise ValueError("broken")

    monitor = Monitor(f"parquet:{tmp_path}/data")
    at = monitor.recorder.wall()
    for run, teller in enumerate((Broken(_tell), HoldsBack()), start=5):
        recorder = monitor.recorder.in_order(teller)
        recorder.point(run, None, {"kind": "chain", "name": "alone"}, at)
    monitor.close()
    assert any("teller" in str(key) for key in monitor.stats()["failures"])
    assert monitor.stats()["spans"]["made"] == 2
