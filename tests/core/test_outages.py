"""An outage of a storage: how often it is told and tried, and that nothing waits longer than it lasts."""

from __future__ import annotations

import asyncio
import gc
import logging
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops_core import Monitor, RetryableError, monitor_llm
from llmops_core import pipeline as pipeline_module
from llmops_core.batch import SpanBatch
from llmops_core.delivery import storing
from llmops_core.delivery.lane import Lane
from llmops_core.failures import Failures
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.storage.memory import MemoryStorage
from llmops_core.testing import make_span


class Away(MemoryStorage):
    """A database that is away until it is there; its journal is kept."""

    volatile = False

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.journal_root = root
        self.here, self.tries = False, 0

    async def open(self) -> None:
        if not self.here:
            raise RetryableError("away")
        await super().open()

    async def write(self, batch: SpanBatch) -> None:
        self.tries += 1
        if not self.here:
            raise RetryableError("away")
        await super().write(batch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "FIRST_RETRY_SECONDS", 0.002)
    monkeypatch.setattr(storing, "LAST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(pipeline_module, "FIRST_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(pipeline_module, "LAST_AGAIN_SECONDS", 0.05)


def until(condition: Callable[[], object]) -> None:
    for _ in range(6_000):
        if condition():
            return
        gc.collect(0)
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError("it did not happen")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def call(monitor: Monitor) -> None:
    monitor_llm("call", monitor=monitor)(lambda: None)()


def test_each_outage_is_two_lines_however_often_it_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Away(tmp_path)
    storage.here = True
    with Monitor(storage, batch_size=2) as monitor:
        for _ in range(2):
            storage.here = False
            for _ in range(5):
                call(monitor)
            tried = storage.tries
            until(lambda tried=tried: storage.tries > tried + 20)
            storage.here = True
            assert monitor.flush(60).complete
        assert monitor.stats()["storage"]["retries"] > 40
    told = lines(caplog)
    assert [line.partition(" takes ")[2].partition(" (")[0].partition(",")[0] for line in told] == [
        "no spans",
        "spans again",
        "no spans",
        "spans again",
    ]


def test_a_start_in_an_outage_is_two_lines_and_stores_what_an_earlier_one_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = Journal(tmp_path, new_writer_id(), max_bytes=2**20)
    dead.append([make_span(at, seq=at, writer_id=dead.writer_id) for at in range(1, 6)])
    dead.release()
    storage = Away(tmp_path)
    with Monitor(storage) as monitor:
        call(monitor)
        until(lambda: sum(monitor.stats()["failures"].values()) > 5)
        assert dead.folder.is_dir()
        storage.here = True
        until(lambda: not dead.folder.exists())
        assert monitor.flush(60).complete
        assert monitor.query(columns=["span_id"]).num_rows == 6
    began, ended = lines(caplog)
    assert "takes no spans" in began
    assert "takes spans again" in ended


def test_pauses_grow_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(storing, "_sleep", pause)
    monkeypatch.setattr(storing, "FIRST_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(storing, "LAST_RETRY_SECONDS", 4.0)
    storage = Away(tmp_path)
    storage.here = True
    with Monitor(storage) as monitor:
        storage.here = False
        call(monitor)
        until(lambda: len(pauses) > 7)
        storage.here = True
        assert monitor.flush(60).complete
        assert pauses[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 4.0, 4.0]
        storage.here, before = False, len(pauses)
        call(monitor)
        until(lambda: len(pauses) > before)
        assert pauses[before] == 0.2, "the next outage begins anew"
        storage.here = True


async def test_no_two_programs_pause_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    fake = types.SimpleNamespace(sleep=sleep, CancelledError=asyncio.CancelledError)
    monkeypatch.setattr(storing, "asyncio", fake)
    for _ in range(1_000):
        await storing._sleep(4.0)
    assert len(set(slept)) > 900
    assert min(slept) >= 2.0
    assert max(slept) <= 4.0
    assert max(slept) - min(slept) > 1.0


def test_what_a_driver_leaves_behind_is_no_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = Failures()
    lane = Lane("test", failures.left_behind("test"))

    def leave() -> None:
        lane.loop.create_future().set_exception(ConnectionError("a secret"))

    with caplog.at_level(logging.DEBUG):
        lane.call(leave, timeout=30)
        gc.collect()
        lane.call(gc.collect, timeout=30)
    lane.stop()
    assert lines(caplog) == []
    assert caplog.text == ""
    assert failures.counts() == {"test.left_behind: ConnectionError": 1}
