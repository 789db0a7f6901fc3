"""The clock of deadlines: a process that was stopped did not have the time that passed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from llmops_core import running


def test_a_stop_counts_as_two_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(running, "_clock", running._Clock())
    began = running.running_seconds()
    for _ in range(3):
        now[0] += 1.5
        running.look()
    assert running.running_seconds() - began == 4.5
    now[0] += 3600
    assert running.running_seconds() - began == 6.5
    running.look()
    assert running.running_seconds() - began == 6.5
    now[0] += 1
    assert running.running_seconds() - began == 7.5


PROGRAM = """
import sys, threading, time
from llmops_core import Monitor, hookimpl
from llmops_core.delivery import collecting, exporting, isolation, notifying, storing
from llmops_core.storage.memory import MemoryStorage
exporting.DEADLINE_SECONDS = isolation.DEADLINE_SECONDS = storing.SLOW_SECONDS = 6.0
collecting.LATE_SECONDS = notifying.LATE_SECONDS = isolation.LATE_SECONDS = 4.0
go, busy = threading.Event(), []
def hold(who):
    busy.append(who)
    go.wait(60)
class Stores(MemoryStorage):
    async def write(self, batch):
        hold("storage")
        await super().write(batch)
class Exports:
    name = "exports"
    async def export(self, batch): hold("exporter")
    async def close(self): pass
class Collects:
    name = "collects"
    def collect(self, batch):
        hold("collector")
        return {}
class Listens:
    name = "listens"
    @hookimpl
    def llmops_plugin_failed(self, plugin, where, error): hold("listener")
part = {"storage": dict(storage=Stores()), "exporter": dict(exporters=[Exports()]),
        "collector": dict(collectors=[Collects()]), "listener": dict(plugins=[Listens()])}
monitor = Monitor(**{"storage": "memory:", **part[sys.argv[1]]})
monitor.recorder.start(1 << 90, None, {"kind": "tool", "name": "t"})
monitor.recorder.end(1 << 90, None, {})
threading.Thread(target=monitor.flush, daemon=True).start()
if sys.argv[1] == "listener":
    monitor.recorder.report("somewhere", ValueError("x"))
while not busy:
    time.sleep(0.01)
print("busy", flush=True)
time.sleep(0.2)
sys.stdin.readline()
time.sleep(1)  # let whoever watches look
stats = monitor.stats()
go.set()
failures = [f for f in stats["failures"] if "somewhere" not in f]
print(stats["cut_off"], stats["storage"]["state"], failures, flush=True)
monitor.close()
"""


PARTS = ("storage", "exporter", "collector", "listener")


def test_nobody_is_taken_for_stuck_because_the_process_was_stopped() -> None:
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, part],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for part in PARTS
    ]  # fmt: skip
    try:
        assert [said(program) for program in programs] == ["busy"] * 4
        for program in programs:
            program.send_signal(signal.SIGSTOP)
        time.sleep(6.5)
        for program in programs:
            program.send_signal(signal.SIGCONT)
            print(file=program.stdin, flush=True)
        assert [said(program) for program in programs] == ["[] ok []"] * 4
    finally:
        for program in programs:
            program.communicate(timeout=60)


def said(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()
