"""What other processes see, and what is left when a process ends, forks or is killed."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from llmops_core import Monitor, Span, open_storage, spans_from_arrow
from llmops_core.storage.parquet import ParquetStorage

PRELUDE = """
import json, os, sys, time
from llmops_core import Monitor, default_monitor
URL = sys.argv[1]
def record(monitor, name, parent=None, run=[os.getpid() << 64]):
    run[0] += 1
    monitor.recorder.start(run[0], parent, {"kind": "tool", "name": name})
    monitor.recorder.end(run[0], parent, {"output": monitor.recorder.freeze(name)})
"""


def script(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "app.py"
    path.write_text(PRELUDE + textwrap.dedent(body))
    return [sys.executable, "-X", "dev", "-W", "error", str(path), f"parquet:{tmp_path / 'data'}"]


def run(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        script(tmp_path, body), capture_output=True, text=True, timeout=60, check=False
    )


def stored(tmp_path: Path) -> list[Span]:
    with open_storage(f"parquet:{tmp_path / 'data'}") as storage:
        return spans_from_arrow(storage.query(order=["start_time"]))


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "data").glob("*/events_*.parquet"))


EXITS = {
    "return": ("", 0),
    "sys_exit": ("sys.exit(3)", 3),
    "exception": ("raise ValueError('mine')", 1),
    # A shell starts what runs in the background with SIGINT ignored, and that is inherited.
    "keyboard_interrupt": (
        """import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
os.kill(os.getpid(), signal.SIGINT)
time.sleep(5)""",
        -2,
    ),
}


@pytest.mark.parametrize("name", EXITS)
def test_a_program_that_just_ends_has_stored_its_spans(name: str, tmp_path: Path) -> None:
    leave, code = EXITS[name]
    done = run(
        tmp_path, f"monitor = Monitor(URL)\nfor i in range(3): record(monitor, 'x')\n{leave}"
    )
    assert done.returncode == code
    assert len(files(tmp_path)) == 1, "in Parquet, not only in the journal"
    assert len(stored(tmp_path)) == 3
    assert not list((tmp_path / "data" / ".journal").iterdir())
    if name == "return":
        assert done.stderr == ""


def test_the_default_monitor_is_closed_at_exit(tmp_path: Path) -> None:
    body = """
        os.environ["LLMOPS_STORAGE_URL"] = URL
        record(default_monitor(), "x")
        assert default_monitor() is default_monitor()
    """
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files(tmp_path)) == 1


def test_a_process_that_leaves_without_a_word_is_recovered_by_the_next(tmp_path: Path) -> None:
    body = """
        monitor = Monitor(URL)
        record(monitor, "ended")
        monitor.recorder.start(7, None, {"kind": "workflow", "name": "open"})
        time.sleep(2.5)
        os._exit(5)
    """
    assert run(tmp_path, body).returncode == 5
    assert files(tmp_path) == []
    assert [s.name for s in stored(tmp_path)] == ["ended"], "a query reads the dead journal"
    with Monitor(f"parquet:{tmp_path / 'data'}") as monitor:
        monitor.flush()
    spans = {s.name: s for s in stored(tmp_path)}
    assert spans["open"].outcome == "incomplete"
    assert spans["ended"].outcome == "ok"
    assert len(files(tmp_path)) == 1


def test_a_forked_child_writes_for_itself_and_doubles_nothing(tmp_path: Path) -> None:
    body = """
        monitor = Monitor(URL)
        for i in range(50): record(monitor, "parent")
        pid = os.fork()
        if pid == 0:
            for i in range(50): record(monitor, "child", run=[os.getpid() << 64])
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        for i in range(50): record(monitor, "parent")
        sys.exit(status)
    """
    done = run(tmp_path, body)
    assert done.returncode == 0, done.stderr
    with Monitor(f"parquet:{tmp_path / 'data'}") as monitor:
        # Python 3.12 starts no thread once it exits: what ends so fast is left to the next start.
        assert monitor.flush(30).complete
    assert not list((tmp_path / "data" / ".journal").iterdir())
    spans = stored(tmp_path)
    names = [s.name for s in spans]
    assert (names.count("parent"), names.count("child")) == (100, 50)
    assert len({s.span_id for s in spans}) == 150
    assert len({s.writer_id for s in spans}) == 2


NO_THREADS = """
def refuse(self):
    raise RuntimeError("can't create new thread at interpreter shutdown")  # as Python 3.12 does
def without_threads():
    import threading
    threading.Thread.start = refuse
"""


def test_a_child_that_can_start_no_thread_leaves_its_spans_in_the_journal(tmp_path: Path) -> None:
    body = NO_THREADS + textwrap.dedent("""
        monitor = Monitor(URL)
        if os.fork() == 0:
            without_threads()
            for i in range(700): record(monitor, "child", run=[os.getpid() << 64 | i << 20])
            monitor.recorder.start(7, None, {"kind": "workflow", "name": "open"})
            report = monitor.close()
            assert not report.complete and report.journaled == 701, report
            spans = monitor.stats()["spans"]
            assert (spans["made"], spans["journaled"], spans["open"]) == (701, 701, 0)
            assert monitor.close() == report
            sys.exit(0)
        sys.exit(os.wait()[1])
    """)
    done = run(tmp_path, body)
    assert done.returncode == 0, done.stderr
    assert "failed in" not in done.stderr, "that is no failure"
    with Monitor(f"parquet:{tmp_path / 'data'}") as monitor:
        assert monitor.flush(30).complete
    spans = stored(tmp_path)
    assert [s.name for s in spans].count("child") == 700
    assert [(s.name, s.outcome) for s in spans if s.outcome != "ok"] == [("open", "incomplete")]
    assert len({s.span_id for s in spans}) == 701


def test_a_child_that_can_start_no_thread_and_has_no_time_says_what_it_dropped(
    tmp_path: Path,
) -> None:
    body = NO_THREADS + textwrap.dedent("""
        monitor = Monitor(URL)
        if os.fork() == 0:
            without_threads()
            for i in range(20): record(monitor, "child")
            assert monitor.close(0).dropped == {"exit": 40}
            sys.exit(0)
        sys.exit(os.wait()[1])
    """)
    done = run(tmp_path, body)
    assert done.returncode == 0, done.stderr
    assert stored(tmp_path) == []


HANGS = """
import asyncio, threading
from llmops_core.storage.parquet import ParquetStorage
class Hangs(ParquetStorage):
    hang = False
    async def open(self):
        if self.hang:
            threading.Event().wait(60)
        await super().open()
"""


def test_a_child_whose_storage_does_not_open_journals_at_once_and_exits_in_time(
    tmp_path: Path,
) -> None:
    body = HANGS + textwrap.dedent("""
        storage = Hangs(URL.partition(":")[2])
        monitor = Monitor(storage, shutdown_seconds=1)
        storage.hang = True
        began = time.monotonic()
        if os.fork() == 0:
            record(monitor, "child")
            deadline = time.monotonic() + 30
            while monitor.stats()["spans"]["journaled"] != 1:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            sys.exit(3)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 3
        assert time.monotonic() - began < 20, "not as long as it hangs"
        storage.hang = False
    """)
    done = run(tmp_path, body)
    assert done.returncode == 0, done.stderr
    with Monitor(f"parquet:{tmp_path / 'data'}") as monitor:
        assert monitor.flush(30).complete
    assert [s.name for s in stored(tmp_path)] == ["child"]


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ("fork", "parent"),
        *[
            (method, where)
            for method in ("fork", "spawn", "forkserver")
            for where in ("child", "both")
        ],
    ],
)
def test_a_child_of_multiprocessing_stores_what_it_recorded(
    method: str, where: str, tmp_path: Path
) -> None:
    body = f"""
        import multiprocessing
        def work(url):
            monitor = MONITOR if {where!r} == "parent" else Monitor(url)
            for i in range(3): record(monitor, "child", run=[os.getpid() << 64])
        if __name__ == "__main__":
            MONITOR = Monitor(URL) if {where!r} != "child" else None
            child = multiprocessing.get_context({method!r}).Process(target=work, args=(URL,))
            child.start(); child.join()
            sys.exit(child.exitcode)
    """
    done = run(tmp_path, body)
    assert done.returncode == 0, done.stderr
    with Monitor(f"parquet:{tmp_path / 'data'}") as monitor:
        assert monitor.flush(30).complete
    spans = stored(tmp_path)
    assert [s.name for s in spans] == ["child"] * 3
    assert len({s.span_id for s in spans}) == 3


def test_another_process_sees_a_span_within_a_second(tmp_path: Path) -> None:
    body = """
        monitor = Monitor(URL)
        record(monitor, "first")
        monitor.flush()
        for i in range(10):
            sys.stdin.readline()
            record(monitor, f"span {i}")
            print(json.dumps([f"span {i}", time.time()]), flush=True)
        sys.stdin.readline()
    """
    app = subprocess.Popen(
        script(tmp_path, body), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert app.stdin
    assert app.stdout
    delays = []
    while not files(tmp_path):
        assert app.poll() is None
        time.sleep(0.02)
    with open_storage(f"parquet:{tmp_path / 'data'}") as storage:
        for _ in range(10):
            app.stdin.write("go\n")
            app.stdin.flush()
            name, at = json.loads(app.stdout.readline())
            deadline = time.time() + 10
            while not storage.query(name=name).num_rows:
                assert time.time() < deadline
                time.sleep(0.01)
            delays.append(time.time() - at)
    app.communicate("go\n", timeout=30)
    print("seen after", [f"{d:.3f} s" for d in delays])
    assert len(files(tmp_path)) <= 2, "it was seen before it was in a Parquet file"
    assert statistics.median(delays) <= 1.0


def test_ten_spans_a_second_make_a_file_a_minute(tmp_path: Path) -> None:
    # The default is a file for 60 s or 5,000 spans; here a second stands for 100.
    assert (ParquetStorage.batch_seconds, ParquetStorage.batch_spans) == (60.0, 5_000)
    assert 10 * 60 < 5_000
    url = f"parquet:{tmp_path / 'data'}"
    started = time.monotonic()
    number = 0
    with Monitor(url, flush_interval_seconds=0.6) as monitor:
        while (elapsed := time.monotonic() - started) < 6.0:
            number += 1
            monitor.recorder.start(number, None, {"kind": "tool", "name": "t"})
            monitor.recorder.end(number, None, {})
            time.sleep(0.001)
    minutes = elapsed / 0.6
    days = len({f.parent.name for f in files(tmp_path)})
    assert number > 1000
    assert len(files(tmp_path)) <= (minutes + 1) * days
    assert len(files(tmp_path)) >= minutes / 2, "the age did cut batches"


def test_a_signal_that_the_program_handles_is_its_own(tmp_path: Path) -> None:
    body = """
        import signal
        signal.signal(signal.SIGTERM, lambda *a: (print("mine"), sys.exit(9)))
        monitor = Monitor(URL)
        record(monitor, "x")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    """
    done = run(tmp_path, body)
    assert (done.returncode, done.stdout) == (9, "mine\n")
    assert len(stored(tmp_path)) == 1


def test_a_killed_process_has_journaled_what_it_had_recorded(tmp_path: Path) -> None:
    body = """
        monitor = Monitor(URL)
        for i in range(20): record(monitor, "x")
        time.sleep(0.5)
        print("ready", flush=True)
        time.sleep(30)
    """
    app = subprocess.Popen(script(tmp_path, body), stdout=subprocess.PIPE, text=True)
    assert app.stdout
    assert app.stdout.readline() == "ready\n"
    os.kill(app.pid, signal.SIGKILL)
    app.communicate()
    assert len(stored(tmp_path)) == 20
