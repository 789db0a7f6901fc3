"""What went wrong once, or could: plugins, forks, exits and re-entrancy never reach the host."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmops_core import Monitor, MonitorClosed, SpanBatch, hookimpl, spans_from_arrow
from llmops_core.delivery.lane import Lane
from llmops_core.intake.wakeup import WakeUp
from llmops_core.storage.memory import MemoryStorage

_ids = iter(range(1, 10_000_000))


def record(monitor: Monitor, count: int = 1, **fields: Any) -> None:
    for _ in range(count):
        run = next(_ids) + (1 << 101)
        monitor.recorder.start(run, None, {"kind": "tool", "name": "t", **fields})
        monitor.recorder.end(run, None, {"outcome": "ok"})


class Rude:
    """A plugin that tries to leave the program whenever it hears of anything."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def _leave(self) -> None:
        self.threads.add(threading.current_thread().name)
        raise SystemExit(3)

    @hookimpl
    def llmops_monitor_started(self, monitor: Monitor) -> None:
        self._leave()

    @hookimpl
    def llmops_plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        self._leave()

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self._leave()


def test_a_plugin_that_leaves_at_each_hook_stops_nobody_and_runs_on_no_thread_of_ours() -> None:
    rude = Rude()
    with Monitor("memory:", plugins=[rude]) as monitor:
        for _ in range(5):
            monitor.recorder.report("somewhere", ValueError("x"))
            record(monitor)
            assert monitor.flush().complete
        assert monitor.stats()["spans"]["stored"] == 5
    assert rude.threads == {"llmops-notify"}


def test_a_hook_that_hangs_keeps_neither_start_nor_close() -> None:
    go = threading.Event()

    class Hangs:
        @hookimpl
        def llmops_monitor_stopping(self, monitor: Monitor) -> None:
            go.wait(30)

    monitor = Monitor("memory:", plugins=[Hangs()])
    record(monitor)
    started = time.monotonic()
    monitor.close(timeout=1)
    assert time.monotonic() - started < 5
    go.set()


def test_a_wake_up_in_the_middle_of_a_wake_up_waits_for_nobody() -> None:
    wake = WakeUp()
    done: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        wake.set()
        done.append(1)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        deadline = time.monotonic() + 20
        while len(done) < 200:
            assert time.monotonic() < deadline
            wake.set()
            wake.wait(0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_one_span_that_cannot_be_encoded_costs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with Monitor("memory:") as monitor:
        values = monitor._pipeline.finisher._values  # type: ignore[union-attr]
        real = values.clean

        def spoil(text: str, limit: int) -> str:
            return "bad \ud800" if text == "bäd" else real(text, limit)

        monkeypatch.setattr(values, "clean", spoil)
        record(monitor, 2)
        record(monitor, 1, name="bäd")
        record(monitor, 2)
        assert monitor.flush().complete
        stats = monitor.stats()["spans"]
        assert (stats["stored"], stats["dropped"]) == (4, {"invalid": 1})


def test_settings_are_sanitised_like_everything_else() -> None:
    with Monitor("memory:", project="bad \ud800 name") as monitor:
        record(monitor)
        monitor.flush()
        (span,) = spans_from_arrow(monitor.query())
        assert span.project == "bad \ufffd name"


def test_a_query_does_not_wait_for_a_monitor_that_closes() -> None:
    class Slow(MemoryStorage):
        async def query(self, query: Any) -> Any:
            await asyncio.sleep(60)

    monitor = Monitor(Slow())
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(monitor.query) for _ in range(4)]
        threading.Event().wait(0.2)
        monitor.close(1)
        for future in asked:
            with pytest.raises(MonitorClosed):
                future.result(10)


def test_closing_twice_at_once_reports_the_same() -> None:
    class Slow(MemoryStorage):
        async def write(self, batch: SpanBatch) -> None:
            await asyncio.sleep(0.3)
            await super().write(batch)

    monitor = Monitor(Slow())
    record(monitor, 3)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(monitor.close, 5) for _ in range(2))
        assert first.result(10) == second.result(10)
        assert first.result().complete


def test_a_close_that_could_not_store_everything_never_says_that_it_did(tmp_path: Path) -> None:
    class Down(MemoryStorage):
        volatile = False
        journal_root = tmp_path

        async def write(self, batch: SpanBatch) -> None:
            raise ConnectionError("down")

    monitor = Monitor(Down())
    record(monitor, 3)
    assert not monitor.close(0.3).complete
    assert not monitor.flush(0.3).complete
    assert not monitor.close(0.3).complete
    assert monitor.close(0.3).journaled == 3


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _threads() -> int:
    return sum(t.name.startswith("llmops-") for t in threading.enumerate())


def _settled(before: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while _threads() > before and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return _threads() <= before


def test_a_set_up_that_fails_leaves_no_thread_descriptor_or_journal(tmp_path: Path) -> None:
    class Odd(MemoryStorage):
        volatile = False
        journal_root = tmp_path / "journal"
        batch_spans: Any = "many"

    class Refuses(MemoryStorage):
        async def open(self) -> None:
            raise PermissionError("no")

    before, files = _threads(), _descriptors()
    for storage in (Odd(), Refuses()):
        for _ in range(5):
            with pytest.raises((ValueError, PermissionError)):
                Monitor(storage, exporters=[])
    gc.collect()
    assert _settled(before)
    assert _descriptors() <= files + 4
    assert not list(tmp_path.rglob("*.log"))


def test_opening_and_closing_again_and_again_leaves_nothing(tmp_path: Path) -> None:
    before, files = _threads(), _descriptors()
    for _ in range(20):
        with Monitor(f"parquet:{tmp_path / 'data'}") as monitor:
            record(monitor)
    gc.collect()
    assert _settled(before)
    assert _descriptors() <= files + 4


def test_a_stopped_lane_leaves_nobody_waiting() -> None:
    lane = Lane("test")

    async def sleeps() -> None:
        await asyncio.sleep(60)

    waiting = [lane.submit(sleeps()) for _ in range(3)]
    lane.stop()
    for future in waiting:
        with pytest.raises(BaseException):  # noqa: B017, PT011 - CancelledError is no Exception
            future.result(10)


def test_what_a_stopped_lane_never_began_is_closed_without_a_warning() -> None:
    async def work() -> None:
        return

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(50):
            lane = Lane("test")
            lane.stop()
            futures = [lane.submit(work()) for _ in range(20)]
            lane.stop()
            for future in futures:
                with contextlib.suppress(BaseException):
                    future.result(10)
        gc.collect()
    assert not [w for w in caught if "never awaited" in str(w.message)]


def _langchain() -> Any:
    pytest.importorskip("langchain_core")
    return pytest.importorskip("llmops_integrations.langchain")


def test_deep_copies_share_the_handler() -> None:
    langchain = pytest.importorskip(
        "llmops_integrations.langchain", reason="could not import 'langchain_core'"
    )
    with Monitor("memory:") as monitor:
        handler = langchain.LLMOpsCallbackHandler(monitor)
        assert copy.deepcopy({"callbacks": [handler]})["callbacks"][0] is handler
        assert copy.copy(handler) is handler


PRELUDE = """
import os, sys, time
from llmops_core import Monitor, open_storage
URL = sys.argv[1]
def record(monitor, number):
    run = (os.getpid() << 64) + number
    monitor.recorder.start(run, None, {"kind": "tool", "name": "t"})
    monitor.recorder.end(run, None, {})
"""


def script(tmp_path: Path, body: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "app.py"
    path.write_text(PRELUDE + textwrap.dedent(body))
    return subprocess.run(
        [sys.executable, str(path), f"parquet:{tmp_path / 'data'}"],
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_a_child_may_ask_flush_and_close_before_it_records(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        monitor = Monitor(URL)
        record(monitor, 1)
        monitor.flush()
        pid = os.fork()
        if pid == 0:
            assert monitor.flush(1).complete
            assert monitor.stats()["events"]["received"] == 0
            assert monitor.query().num_rows == 1
            began = time.monotonic()
            assert monitor.close().complete
            os._exit(0 if time.monotonic() - began < 1.5 else 7)
        sys.exit(os.waitpid(pid, 0)[1])
        """,
    )
    assert done.returncode == 0, done.stderr


def test_a_child_is_not_kept_by_a_lock_that_its_parent_held(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        import threading
        monitor = Monitor(URL)
        stop = threading.Event()
        def busy():
            number = 1000
            while not stop.is_set():
                record(monitor, number); number += 1
                monitor.stats()
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for t in threads: t.start()
        for i in range(12):
            pid = os.fork()
            if pid == 0:
                record(monitor, 1)
                os._exit(0 if monitor.flush(20).complete else 9)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        """,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


def test_a_childs_first_event_does_not_wait_for_the_storage_to_open(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        from llmops_core.storage.memory import MemoryStorage
        class Slow(MemoryStorage):
            async def open(self):
                if hasattr(self, "once"): time.sleep(3)
                self.once = True
        monitor = Monitor(Slow())
        pid = os.fork()
        if pid == 0:
            began = time.monotonic()
            record(monitor, 1)
            took = time.monotonic() - began
            assert monitor.flush(30).complete
            assert monitor.query().num_rows == 1
            os._exit(0 if took < 1 else 7)
        sys.exit(os.waitpid(pid, 0)[1] >> 8)
        """,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["time.sleep(60)", "await asyncio.to_thread(time.sleep, 60)"])
def test_a_program_ends_although_its_storage_hangs(how: str, tmp_path: Path) -> None:
    started = time.monotonic()
    done = script(
        tmp_path,
        f"""
        import asyncio
        from llmops_core.storage.memory import MemoryStorage
        class Hangs(MemoryStorage):
            async def write(self, batch):
                {how}
        monitor = Monitor(Hangs())
        record(monitor, 1)
        time.sleep(1)
        print("done", flush=True)
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    assert time.monotonic() - started < 30


def test_a_monitor_that_was_dropped_is_still_closed_at_exit(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        """
        def app():
            record(Monitor(URL), 1)
        app()
        """,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "data").glob("*/events_*.parquet"))) == 1
