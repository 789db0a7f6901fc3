"""A monitor merges small files while it has nothing to write, and gives way when it has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmops_core import ConfigError, Monitor, open_storage
from llmops_core.delivery import compacting
from llmops_core.delivery.storing import StoreWorker
from llmops_core.storage.memory import MemoryStorage
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.storage.parquet.compaction import (
    IDLE_LIMITS,
    LEAST_GRACE_SECONDS,
    CompactionReport,
    Compactor,
)
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.store import Store


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _soon_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "IDLE_SECONDS", 0.05)


class Work:
    """A compaction without an end; says when it was closed and on which thread it ran."""

    def __init__(self) -> None:
        self.report = CompactionReport()
        self.closed = threading.Event()
        self.count = 0
        self.thread = ""

    def steps(self) -> Iterator[float]:
        try:
            while True:
                self.count += 1
                self.thread = threading.current_thread().name
                yield 0.0
        finally:
            self.closed.set()


class Impatient(ParquetStorage):
    """Keeps replaced files for one second, not ten, before it removes them."""

    def compaction(self) -> Compactor:
        return Compactor(self.folder, limits=IDLE_LIMITS, grace_seconds=LEAST_GRACE_SECONDS)


class Storage(MemoryStorage):
    volatile = False
    journal_root: Path

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.journal_root = root
        self.works: list[Work] = []

    def compaction(self) -> Work:
        self.works.append(Work())
        return self.works[-1]


def record(monitor: Monitor, run: int) -> None:
    monitor.recorder.start(run, None, {"kind": "llm", "name": "m"})
    monitor.recorder.end(run, None, {"outcome": "ok"})


def test_an_idle_monitor_merges_the_files_of_closed_days(tmp_path: Path) -> None:
    store = Store(ParquetStorage(tmp_path))
    for n in range(10):
        store.run(store.storage.write(make_batch([make_span(n)], writer_id=f"w{n}")))
    store.close()
    with Monitor(Impatient(tmp_path)) as monitor:
        until(lambda: monitor.stats()["compaction"]["files_before"] == 10)
        assert len(list(tmp_path.glob("*/*compacted*.parquet"))) == 1
        assert len(monitor.query()) == 10
    assert monitor.stats()["failures"] == {}


def test_what_was_replaced_goes_also_where_the_monitor_is_never_idle_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(ParquetStorage(tmp_path))
    for n in range(10):
        store.run(store.storage.write(make_batch([make_span(n)], writer_id=f"w{n}")))
    store.close()
    with Monitor(Impatient(tmp_path)) as monitor:
        until(lambda: list(tmp_path.glob("*/*compacted*.parquet")))
        monkeypatch.setattr(StoreWorker, "idle_seconds", lambda _: 0.0)
        record(monitor, 1)
        assert monitor.flush(60).complete
        assert len(list(tmp_path.glob("2026-01-01/*.parquet"))) > 1, "its grace is not over"
        until(lambda: len(list(tmp_path.glob("2026-01-01/*.parquet"))) == 1)
        until(lambda: monitor.stats()["compaction"]["deleted"] == 10)
        assert monitor.stats()["compaction"]["interrupted"] == 1
        assert monitor.stats()["compaction"]["runs"] == 0
    assert monitor.stats()["failures"] == {}


def test_a_few_files_are_not_worth_it(tmp_path: Path) -> None:
    store = Store(ParquetStorage(tmp_path))
    for n in range(7):
        store.run(store.storage.write(make_batch([make_span(n)], writer_id=f"w{n}")))
    store.close()
    with Monitor(f"parquet:{tmp_path}") as monitor:
        until(lambda: monitor.stats()["compaction"]["runs"])
        assert monitor.stats()["compaction"]["files_before"] == 0


def test_a_write_waits_for_no_more_than_the_step_that_runs(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with Monitor(storage) as monitor:
        until(lambda: storage.works and storage.works[0].count > 3)
        first = storage.works[0]
        assert first.thread == "llmops-storage"
        record(monitor, 1)
        assert monitor.flush(60).complete
        assert monitor.stats()["spans"]["stored"] == 1
        assert first.closed.wait(60), "it has given way"
        until(lambda: monitor.stats()["compaction"]["interrupted"])
        until(lambda: len(storage.works) > 1)  # and begins anew when it is quiet


def test_closing_stops_a_compaction_in_the_middle(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    monitor = Monitor(storage)
    until(lambda: storage.works and storage.works[0].count > 3)
    assert monitor.close(60).complete
    assert storage.works[0].closed.wait(60)


def test_a_compaction_that_fails_is_counted_and_nothing_else_is_hurt(tmp_path: Path) -> None:
    class Failing(Storage):
        def compaction(self) -> Work:
            raise OSError("no")

    with Monitor(Failing(tmp_path)) as monitor:
        until(lambda: monitor.stats()["compaction"]["failed"])
        record(monitor, 1)
        assert monitor.flush(60).complete
        assert monitor.stats()["failures"] == {"compaction.step: OSError": 1}
        assert monitor.stats()["compaction"]["state"] == "waiting"


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with Monitor(storage, compact="off") as monitor:
        assert monitor.stats()["compaction"]["state"] == "off"
        with pytest.raises(ConfigError, match="Expected one of idle, off"):
            Monitor("memory:", compact="always")
    assert storage.works == []


def test_a_storage_that_has_nothing_to_merge_is_left_alone() -> None:
    with Monitor("memory:") as monitor:
        assert monitor.stats()["compaction"]["state"] == "off"


def test_a_monitor_finds_another_compactor_at_work_and_waits(tmp_path: Path) -> None:
    storage = ParquetStorage(tmp_path)
    Store(storage).close()
    steps = storage.compaction().steps()
    (tmp_path / "2026-01-01").mkdir()
    next(steps)
    with Monitor(f"parquet:{tmp_path}") as monitor:
        until(lambda: monitor.stats()["compaction"]["refused"])
        assert monitor.stats()["failures"] == {}
    steps.close()  # type: ignore[attr-defined]
    with open_storage(f"parquet:{tmp_path}") as reader:
        assert len(reader.query()) == 0
