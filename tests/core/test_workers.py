"""Threads of ours that are thrown out of their work, are gone, or stand still; and who notices."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmops_core import FlushReport, Monitor, SpanBatch, hookimpl, spans_from_arrow
from llmops_core.delivery.lane import Lane
from llmops_core.pipeline import Pipeline
from llmops_core.worker import STUCK_LOOKS, Watchdog, Worker

THREADS = ("intake", "delivery", "storage", "collectors", "watch")
#: And those that a monitor with an exporter and a listener has beside them.
ALL_THREADS = (*THREADS, "exporter-Sends", "notify")
#: Without these two everything is stored and exported all the same.
IDLE_IN_A_FLUSH = ("watch", "notify")
#: And without these it goes on after half a second, which a busy machine may take for a flush.
SOON_DONE_WITHOUT = (*IDLE_IN_A_FLUSH, "collectors")
FLUSH_SECONDS = 0.3
#: What a busy machine may add.
MARGIN_SECONDS = 5.0
_ids = iter(range(1, 10_000_000))


class Nothing:
    """A collector that is not ours, so that it has a thread of its own."""

    def collect(self, batch: SpanBatch) -> dict[str, Any]:
        return {}


class Sends:
    """An exporter that is not ours."""

    async def export(self, batch: SpanBatch) -> None:
        pass

    async def close(self) -> None:
        pass


class Listens:
    """A plugin that is told of what is stored."""

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        pass


def opened_with_all() -> Monitor:
    monitor = opened("memory:", exporters=[Sends()], plugins=[Listens()], batch_size=1)
    assert sorted(workers_of(monitor)) == sorted(ALL_THREADS)
    return monitor


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
    pipeline = pipeline_of(monitor)
    shared = [s._lane for s in (pipeline.collecting._lane, pipeline.notifier._lane) if s]
    return [pipeline.lane, *shared, *(e._lane for e in pipeline.exporters)]


@contextlib.contextmanager
def without(monitor: Monitor, worker: Worker) -> Iterator[None]:
    """Take a worker's thread away; nobody replaces it before the end of the block."""
    first = worker._thread
    assert first
    with worker._reviving:
        worker._thread = gone = threading.Thread(target=int)
        gone.start()
        while first.is_alive():
            identity = ctypes.c_ulong(first.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(SystemExit))
            for lane in lanes_of(monitor):
                if lane.worker is worker:
                    lane.loop.call_soon_threadsafe(lane.loop.stop)
            first.join(0.1)
        yield


def stand_still(monitor: Monitor, worker: Worker, go: threading.Event) -> None:
    """Return when a worker does nothing any more until *go* is set."""
    stands, work = threading.Event(), worker._work

    def wait() -> None:
        stands.set()
        go.wait(60)

    for lane in lanes_of(monitor):
        if lane.worker is worker:
            lane.loop.call_soon_threadsafe(wait)
            break
    else:
        worker._work = lambda: wait() or work()
        record(monitor)  # whoever sleeps gets up
    assert stands.wait(30)


def timed_flush(monitor: Monitor) -> FlushReport:
    began = time.monotonic()
    report = monitor.flush(FLUSH_SECONDS)
    assert time.monotonic() - began < FLUSH_SECONDS + MARGIN_SECONDS
    return report


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


@pytest.mark.parametrize("name", ALL_THREADS)
def test_a_thread_that_is_gone_is_replaced_by_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops_core.worker.WATCH_SECONDS", 0.1)
    monkeypatch.setattr("llmops_core.intake.thread.HOUSEKEEPING_SECONDS", 0.1)
    with opened_with_all() as monitor:
        worker = workers_of(monitor)[name]
        with without(monitor, worker):
            before = worker.restarts
        wait_for(worker.is_alive)
        record(monitor, 3)
        assert monitor.flush(30).complete
        told = monitor.stats()["workers"][name]
        assert told["alive"]
        assert told["restarts"] == before + 1
        assert monitor.stats()["spans"]["stored"] == 3


@pytest.mark.parametrize("name", ALL_THREADS)
def test_while_a_thread_is_gone_a_flush_keeps_its_deadline_and_two_seconds_later_it_is_back(
    name: str,
) -> None:
    with opened_with_all() as monitor:
        worker = workers_of(monitor)[name]
        with without(monitor, worker):
            record(monitor, 3)
            complete = timed_flush(monitor).complete
            assert name in SOON_DONE_WITHOUT or not complete
        # By the real intervals, and without a flush that would see to it.
        since = time.monotonic()
        wait_for(worker.is_alive)
        assert time.monotonic() - since < 2 + MARGIN_SECONDS
        assert monitor.flush(30).complete
        assert monitor.stats()["spans"]["stored"] == 3


@pytest.mark.parametrize("name", ALL_THREADS)
def test_while_a_thread_stands_still_a_flush_keeps_its_deadline(name: str) -> None:
    go = threading.Event()
    with opened_with_all() as monitor:
        try:
            stand_still(monitor, workers_of(monitor)[name], go)
            record(monitor, 3)
            complete = timed_flush(monitor).complete
            if name in SOON_DONE_WITHOUT:
                assert monitor.flush(30).complete
            else:
                assert not complete
        finally:
            go.set()
        assert monitor.flush(30).complete
        stats = monitor.stats()
        assert stats["spans"]["stored"] == stats["spans"]["made"] >= 3


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
        report = timed_flush(monitor)
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


def test_a_delivery_whose_work_never_ends_looks_at_the_plugins_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A slow machine under load: what comes in is never worked off, for longer than a look may take.
    monkeypatch.setattr("llmops_core.delivery.thread.WATCH_SECONDS", 0.05)
    enough, looks = threading.Event(), []
    with opened("memory:") as monitor:
        delivery = pipeline_of(monitor).delivery
        take = delivery._take

        def take_and_get_more(batch: SpanBatch, size: int) -> None:
            take(batch, size)
            if not enough.is_set():
                time.sleep(0.001)
                delivery.hand_over(batch, size)  # what was taken before is not taken twice

        monkeypatch.setattr(delivery, "_take", take_and_get_more)
        delivery._watch = (*delivery._watch, lambda: looks.append(delivery.worker.beat))
        record(monitor)
        wait_for(lambda: len(set(looks[-5:])) == 5)
        assert delivery._inbox
        enough.set()
        assert monitor.flush(30).complete
        assert monitor.stats()["spans"]["stored"] == 1


def test_the_end_of_many_open_runs_at_once_is_no_stand_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats = []
    monitor = opened("memory:")
    intake = pipeline_of(monitor).intake
    finish_all = intake.finisher.finish_all

    def finish_and_note(*args: Any) -> Any:
        beats.append(intake.worker.beat)
        return finish_all(*args)

    monkeypatch.setattr(intake.finisher, "finish_all", finish_and_note)
    for number in range(1, 1001):
        monitor.recorder.start(number, None, {"kind": "tool", "name": "t"})
    monitor.close(30)
    assert len(beats) == len(set(beats)) >= 8


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
