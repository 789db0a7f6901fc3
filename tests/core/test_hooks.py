"""The hooks that a monitor calls: when, with what, and what a failing one does."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import msgspec
import pytest

from llmops_core import Monitor, SpanBatch, hookimpl
from llmops_core.delivery import isolation, notifying


def record(monitor: Monitor, count: int = 1) -> None:
    """Record model calls, without a framework."""
    for _ in range(count):
        run_id = uuid.uuid4().int
        monitor.recorder.start(run_id, None, {"kind": "llm", "name": "scripted"})
        monitor.recorder.end(run_id, None, {"kind": "llm", "name": "scripted"})


class Diary:
    """Writes down every call."""

    name = "diary"

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.batches: list[SpanBatch] = []
        self.failures: list[tuple[str, str, str]] = []
        self.written = threading.Event()

    @hookimpl
    def llmops_monitor_started(self, monitor: Monitor) -> None:
        self.lines.append(f"started, {monitor.query().num_rows} spans")

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self.batches.append(batch)
        self.written.set()

    @hookimpl
    def llmops_monitor_stopping(self, monitor: Monitor) -> None:
        record(monitor)
        self.lines.append(f"stopping, closed={monitor.closed}")

    @hookimpl
    def llmops_plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        self.failures.append((plugin, where, type(error).__name__))


class Failing:
    """Raises from each hook."""

    name = "failing"

    @hookimpl
    def llmops_monitor_started(self, monitor: Any) -> None:
        raise OSError("started")

    @hookimpl
    def llmops_spans_stored(self, batch: Any) -> None:
        raise OSError("stored")

    @hookimpl
    def llmops_monitor_stopping(self, monitor: Any) -> None:
        raise OSError("stopping")

    @hookimpl
    def llmops_plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        raise OSError("never recurses")


def test_a_monitor_says_when_it_starts_and_when_it_stops() -> None:
    diary = Diary()
    with Monitor(storage="memory:", plugins=[diary]):
        assert diary.lines == ["started, 0 spans"]
    assert diary.lines == ["started, 0 spans", "stopping, closed=False"]


def test_a_span_recorded_while_stopping_is_stored() -> None:
    monitor = Monitor(storage="memory:", plugins=[Diary()])
    assert monitor.close().complete
    assert monitor.stats()["spans"]["stored"] == 1


def test_spans_are_announced_once_they_are_stored() -> None:
    diary = Diary()
    with Monitor(storage="memory:", plugins=[diary]) as monitor:
        record(monitor)
        monitor.flush()
        assert diary.written.wait(5)
        assert [span.name for span in diary.batches[0].rows] == ["scripted"]


def test_a_failing_plugin_changes_nothing_for_the_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    diary = Diary()
    monitor = Monitor(storage="memory:", plugins=[Failing(), diary])
    record(monitor)
    assert monitor.flush().complete
    assert diary.written.wait(5)
    assert monitor.close().complete
    assert diary.lines == ["started, 0 spans", "stopping, closed=False"]
    counted = monitor.stats()["failures"]
    for hook in ("llmops_monitor_started", "llmops_spans_stored", "llmops_monitor_stopping"):
        assert counted[f"failing.{hook}: OSError"] >= 1
    assert "never recurses" not in caplog.text


def test_a_swallowed_failure_is_told_to_plugins() -> None:
    class Broken:
        name = "broken"

        async def export(self, batch: SpanBatch) -> None:
            raise ConnectionError("no route")

        async def close(self) -> None:
            pass

    diary = Diary()
    with Monitor(storage="memory:", plugins=[diary], exporters=[Broken()]) as monitor:
        record(monitor)
        monitor.flush()
    assert ("broken", "export", "ConnectionError") in diary.failures


def test_a_hook_that_fails_five_times_in_a_row_is_cut_off() -> None:
    diary = Diary()
    with Monitor(storage="memory:", plugins=[Failing(), diary], batch_size=1) as monitor:
        record(monitor, count=12)
        monitor.flush()
    assert monitor.stats()["cut_off"] == ["failing"]
    assert monitor.stats()["failures"]["failing.llmops_spans_stored: OSError"] <= 5


def record_handoff(monitor: Monitor, source: str = "a") -> None:
    run_id = uuid.uuid4().int
    fields = {"kind": "handoff", "name": f"{source} → b", "agent": source, "target_agent": "b",
              "handoff_confirmed": True}  # fmt: skip
    monitor.recorder.start(run_id, None, fields)
    monitor.recorder.end(run_id, None, fields)


class Watch:
    """Writes down the handoffs that it learns of, and the spans of stored batches."""

    def __init__(self, name: str = "watch") -> None:
        self.name = name
        self.told: list[tuple[str | None, str | None, bool | None]] = []
        self.stored = 0

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self.stored += len(batch)

    @hookimpl
    def llmops_handoff(self, handoff: Any) -> None:
        self.told.append((handoff.agent, handoff.target_agent, handoff.handoff_confirmed))


def test_each_stored_handoff_is_told_once_and_nothing_else() -> None:
    watch = Watch()
    with Monitor(storage="memory:", plugins=[watch]) as monitor:
        record(monitor, 3)
        record_handoff(monitor)
        monitor.flush(30)
    assert watch.told == [("a", "b", True)]


def test_each_handoff_of_a_burst_is_told_to_each_listener() -> None:
    first, second = Watch("first"), Watch("second")
    with Monitor(storage="memory:", plugins=[first, second]) as monitor:
        for number in range(400):
            record_handoff(monitor, f"agent {number}")
        monitor.flush(30)
    for watch in (first, second):
        assert [told[0] for told in watch.told] == [f"agent {n}" for n in range(400)]
    assert monitor.stats()["hooks"] == {"missed": 0}


def test_a_handoff_that_a_listener_changes_by_force_is_its_own() -> None:
    class Vandal:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def llmops_handoff(self, handoff: Any) -> None:
            msgspec.structs.force_setattr(handoff, "agent", "spoilt")

    watch = Watch()
    with Monitor(storage="memory:", plugins=[Vandal("v"), watch, Vandal("w")]) as monitor:
        record_handoff(monitor)
        monitor.flush(30)
    assert watch.told == [("a", "b", True)]


class Holds:
    """Keeps the thread of the hooks, at the first failure or handoff, until it is let go."""

    name = "holds"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.holds = threading.Event()

    @hookimpl
    def llmops_plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        self.holds.set()
        self.go.wait(60)

    @hookimpl
    def llmops_handoff(self, handoff: Any) -> None:
        self.holds.set()
        self.go.wait(60)


def test_a_storm_of_failures_takes_no_place_of_other_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifying, "LATE_SECONDS", 60.0)
    holds, watch = Holds(), Watch()
    with Monitor(storage="memory:", plugins=[holds, watch]) as monitor:
        for _ in range(notifying.MAX_QUEUED_CALLS + 11):
            monitor.recorder.report("somewhere", ValueError("x"))
            assert holds.holds.wait(20)
        record(monitor, 3)
        assert monitor.flush(30).complete
        holds.go.set()
    assert watch.stored == 3
    assert monitor.stats()["hooks"] == {"missed": 10}


def test_handoffs_that_a_hung_listener_does_not_get_are_counted_and_others_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifying, "LATE_SECONDS", 0.05)
    holds, watch = Holds(), Watch()
    with Monitor(storage="memory:", plugins=[holds, watch]) as monitor:
        for _ in range(5):
            record_handoff(monitor)
        assert monitor.flush(30).complete
    holds.go.set()
    assert len(watch.told) == 5
    assert monitor.stats()["hooks"]["missed"] == 4 + 1  # its own lateness was told to it, too


def test_listeners_go_on_once_a_thread_can_be_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifying, "LATE_SECONDS", 0.05)
    refused = threading.Event()
    real = isolation.Lane

    def none_at_first(*given: Any) -> Any:
        if refused.is_set():
            return real(*given)
        refused.set()
        raise RuntimeError("can't start new thread")

    holds, watch = Holds(), Watch()
    with Monitor(storage="memory:", plugins=[holds, watch]) as monitor:
        monkeypatch.setattr(isolation, "Lane", none_at_first)
        record_handoff(monitor)
        assert monitor.flush(30).complete
        assert refused.wait(20)
    holds.go.set()
    assert watch.told == [("a", "b", True)]


def test_a_failure_told_while_the_same_thread_tells_of_one_waits_for_nobody() -> None:
    with Monitor(storage="memory:", plugins=[Diary()]) as monitor:

        def report_as_a_finalizer_would() -> None:
            with monitor._notifier._lock:
                monitor.recorder.report("somewhere", ValueError("x"))

        thread = threading.Thread(target=report_as_a_finalizer_would, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
