"""The hooks that a monitor calls: when, with what, and what a failing one does."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from llmops_core import Monitor, SpanBatch, hookimpl


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


def test_each_stored_handoff_is_told_once_and_nothing_else() -> None:
    class Watch:
        name = "watch"

        def __init__(self) -> None:
            self.told: list[tuple[str | None, str | None, bool | None]] = []

        @hookimpl
        def llmops_handoff(self, handoff: Any) -> None:
            self.told.append((handoff.agent, handoff.target_agent, handoff.handoff_confirmed))

    watch = Watch()
    with Monitor(storage="memory:", plugins=[watch]) as monitor:
        record(monitor, 3)
        run_id = uuid.uuid4().int
        fields = {"kind": "handoff", "name": "a → b", "agent": "a", "target_agent": "b",
                  "handoff_confirmed": True}  # fmt: skip
        monitor.recorder.start(run_id, None, fields)
        monitor.recorder.end(run_id, None, fields)
        monitor.flush(30)
    assert watch.told == [("a", "b", True)]
