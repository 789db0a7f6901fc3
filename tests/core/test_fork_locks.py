"""A lock of ours that a thread of the parent's holds at a fork keeps nobody in the child."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Another thread holds LOCK for good while the process forks; a child that waits for it is ended.
FORKING = """
import faulthandler, os, sys, threading
{before}
held = threading.Event()
def hold():
    with {lock}:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
assert held.wait(20)
pid = os.fork()
if pid == 0:
    faulthandler.dump_traceback_later(20, exit=True)
    {call}
    os._exit(0)
os._exit(os.waitpid(pid, 0)[1] >> 8)
"""
MEASURED = """
from llmops_core import CollectorRegistry, Monitor, monitor_llm
from llmops_core.measuring import published
class Mine:
    def collect(self, result, args, kwargs, context): return {"x": 1}
CollectorRegistry.register("mine", Mine)
call = monitor_llm(collectors=["mine"], monitor=Monitor("memory:"))(lambda: None)
"""
COUNTED = "from llmops_core.measuring import counting"
READ = """
from llmops_core import StorageError, open_storage
reader = open_storage("memory:")
def refused():
    try:
        reader.query()
    except StorageError:
        return
    os._exit(9)
"""
CLOCK = "from llmops_core.testing.fixtures import FakeClock; clock = FakeClock()"
CASES = {
    "a call that a published collector measures": (MEASURED, "published._live._lock", "call()"),
    "what counts tokens": (COUNTED, "counting._lock", "counting.counter_for('none')"),
    "a reader that the parent opened": (READ, "reader._loop._lock", "refused()"),
    "the clock of the test kit": (CLOCK, "clock._lock", "clock.monotonic_ns()"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_child_takes_locks_of_its_own(case: str) -> None:
    before, lock, call = CASES[case]
    body = FORKING.format(before=before, lock=lock, call=call)
    done = subprocess.run(
        [sys.executable, "-c", body], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_child_neither_counts_nor_destroys_the_objects_that_its_parent_keeps() -> None:
    body = """
import os, sys
from llmops_core import CollectorRegistry
from llmops_core.measuring import published
class Mine:
    def collect(self, result, args, kwargs, context): return {"x": 1}
class Connection:
    def __del__(self): os._exit(8)  # as one that says goodbye on a socket that is the parent's too
CollectorRegistry.register("mine", Mine)
published.keep_live("1", ("mine",), Connection(), (), {})
pid = os.fork()
if pid == 0:
    assert published.live_calls() == 0
    assert published.take_live("1", "mine") is None
    published.keep_live("2", ("mine",), None, (), {})
    assert published.take_live("2", "mine") is not None
    os._exit(0)
status = os.waitpid(pid, 0)[1] >> 8
assert published.live_calls() == 1
os._exit(status)
"""
    done = subprocess.run(
        [sys.executable, "-c", body], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
