"""Threads of ours that are thrown out of their work, are gone, or stand still; and who notices."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from llmops_core import Monitor, SpanBatch, spans_from_arrow
from llmops_core.delivery.lane import Lane
from llmops_core.pipeline import Pipeline
from llmops_core.worker import STUCK_LOOKS, Watchdog, Worker

THREADS = ("intake", "delivery", "storage", "collectors", "watch")
_ids = iter(range(1, 10_000_000))


class Nothing:
    """A collector that is not ours, so that it has a thread of its own."""

    def collect(self, batch: SpanBatch) -> dict[str, Any]:
        return {}


def opened(storage: str, **settings: Any) -> Monitor:
    return Monitor(storage, collectors=["capacity", Nothing()], **settings)


def record(monitor: Monitor, count: int = 1) -> None:
    for _ in range(count):
        run = next(_ids) + (1 << 103)
        monitor.recorder.start(run, None, {"kind": "tool", "name": "t"})
        monitor.recorder.end(run, None, {"outcome": "ok"})


def wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def throw_into(worker: Worker, error: type[BaseException]) -> None:
    assert worker._thread
    identity = ctypes.c_ulong(worker._thread.ident or 0)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(error)) == 1


def pipeline_of(monitor: Monitor) -> Pipeline:
    assert monitor._pipeline
    return monitor._pipeline


def lanes_of(monitor: Monitor) -> list[Lane]:
    collecting = pipeline_of(monitor).collecting
    assert collecting._lane
    return [pipeline_of(monitor).lane, collecting._lane._lane]


def workers_of(monitor: Monitor) -> dict[str, Worker]:
    pipeline = pipeline_of(monitor)
    workers = (pipeline.watchdog.worker, *pipeline._workers())
    return {worker.name: worker for worker in workers}


# Whoever is thrown out of a write leaves its file to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError, GeneratorExit])
def test_an_exception_thrown_into_each_thread_loses_and_doubles_nothing(
    error: type[BaseException], tmp_path: Any
) -> None:
    with opened(f"parquet:{tmp_path / 'd'}", batch_size=20, flush_interval_seconds=0.05) as m:
        workers = workers_of(m)
        assert sorted(workers) == sorted(THREADS)
        for name in THREADS:
            for _ in range(5):
                throw_into(workers[name], error)
                record(m, 20)
                time.sleep(0.01)
        wait_for(lambda: sum(w.restarts for w in workers.values()) > 5)
        record(m, 20)
        assert m.flush(30).complete
        stats = m.stats()
        assert stats["events"]["received"] == stats["events"]["consumed"] == 2 * 520
        assert (stats["spans"]["made"], stats["spans"]["stored"]) == (520, 520)
        assert stats["spans"]["journaled"] == stats["spans"]["queued"] == 0
        spans = spans_from_arrow(m.query())
        assert len({s.span_id for s in spans}) == len(spans) == 520


@pytest.mark.parametrize("name", THREADS)
def test_a_thread_that_is_gone_is_replaced_by_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops_core.worker.WATCH_SECONDS", 0.1)
    monkeypatch.setattr("llmops_core.intake.thread.HOUSEKEEPING_SECONDS", 0.1)
    with opened("memory:") as monitor:
        worker = workers_of(monitor)[name]
        first = worker._thread
        assert first
        with worker._reviving:  # nobody replaces it while it is brought to its end
            worker._thread = gone = threading.Thread(target=int)
            gone.start()
            while first.is_alive():
                identity = ctypes.c_ulong(first.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(SystemExit))
                for lane in lanes_of(monitor):
                    if lane.worker is worker:
                        lane.loop.call_soon_threadsafe(lane.loop.stop)
                first.join(0.1)
            before = worker.restarts
        wait_for(lambda: worker._thread is not gone and worker.is_alive())
        assert worker._thread is not first
        record(monitor, 3)
        assert monitor.flush(30).complete
        told = monitor.stats()["workers"][name]
        assert told["alive"]
        assert told["restarts"] == before + 1
        assert monitor.stats()["spans"]["stored"] == 3


def test_nobody_restarts_what_has_come_to_its_end() -> None:
    monitor = opened("memory:")
    workers = workers_of(monitor)
    monitor.close()
    for worker in workers.values():
        worker.join(10)
        assert worker.done
        assert not worker.revive()
        assert not worker.is_alive()


def test_a_flush_returns_by_its_deadline_while_intake_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()
    with opened("memory:") as monitor:
        feed = pipeline_of(monitor).tracer.feed
        monkeypatch.setattr(
            pipeline_of(monitor).tracer, "feed", lambda event: (go.wait(30), feed(event))
        )
        record(monitor)
        report = monitor.flush(0.2)
        assert not report.complete
        assert "intake" in report.waiting
        go.set()
        assert monitor.flush(30).complete


def test_a_worker_that_stands_still_is_told_once_and_again_after_it_moved() -> None:
    told: list[tuple[str, str]] = []
    worker = Worker("slow", lambda: False, lambda error: None)
    watchdog = Watchdog(lambda: [worker], lambda who, what, error: told.append((who, what)))
    for _ in range(STUCK_LOOKS):
        watchdog.look()
        assert told == []
    assert not watchdog.stats()["slow"]["stuck"]
    for _ in range(5):
        watchdog.look()
    assert told == [("slow", "stuck")]
    assert watchdog.stats()["slow"]["stuck"]
    worker.beat = 1
    watchdog.look()
    assert not watchdog.stats()["slow"]["stuck"]
    for _ in range(STUCK_LOOKS):
        watchdog.look()
    assert told == [("slow", "stuck")] * 2


def test_flushes_in_a_row_take_nobody_for_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    # No look of its own meanwhile: what is counted here was counted by the flushes.
    monkeypatch.setattr("llmops_core.worker.WATCH_SECONDS", 3600)
    with opened("memory:") as monitor:
        for _ in range(3 * STUCK_LOOKS):
            monitor.flush(0)
        stats = monitor.stats()
    assert not [name for name, told in stats["workers"].items() if told["stuck"]]
    assert stats["failures"] == {}


def test_a_defect_that_repeats_takes_no_whole_core() -> None:
    failures: list[BaseException] = []

    def fail() -> bool:
        raise ValueError

    worker = Worker("broken", fail, failures.append)
    worker.start()
    time.sleep(0.3)
    worker.done = True
    worker.join(10)
    assert 1 <= len(failures) <= 20


def test_a_worker_that_is_being_started_is_not_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker("new", lambda: True, lambda error: None)
    looked: list[bool] = []
    start = threading.Thread.start

    def look_and_start(thread: threading.Thread) -> None:
        looked.append(worker.revive())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", look_and_start)
    worker.start()
    worker.join(30)
    assert looked == [False]
    assert (worker.restarts, worker.done) == (0, True)
