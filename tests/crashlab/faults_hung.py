"""A plugin that hangs for a minute, with the real deadlines, beside a healthy one.

One process makes two monitors, one with the part that hangs and one with the same part healthy, and
calls a graph with each in turn: so both meet the same machine.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from faults_acts import FAULTS, Hits
from faults_hosts import FRAMEWORKS
from faults_parts import PARTS, Bad, LabStorage, Witness
from faults_zygote import Zygote
from rows import Row

__all__ = ["hung"]

HUNG_PARTS: Final = ("collector", "exporter", "hook spans_stored", "storage write", "storage query")
MAX_P99_MS: Final = 1.0
MAX_DELAY_SECONDS: Final = 1.0
#: Among the tests the machine is busy with others; what hangs does so for a minute.
MAX_DELAY_AMONG_TESTS: Final = 5.0
MAX_THREADS: Final = 2


class Clocked(Witness):
    """Notes when each span reaches it, and how long after its end."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    async def export(self, batch: Any) -> None:
        now = time.time_ns() // 1000
        self.delays += [(now - span.end_time) / 1e6 for span in batch.rows]


class Side:
    """One of the two monitors."""

    def __init__(self, part: str, folder: Path, *, hangs: bool) -> None:
        from llmops_core import Monitor

        before = threading.active_count()
        self.hits, self.witness = Hits(), Clocked()
        if not hangs:
            self.hits.most = 0
        storage = LabStorage(folder)
        given = PARTS[part].build(Bad(FAULTS["hangs"], self.hits), storage)
        self.monitor = Monitor(
            storage,
            plugins=given.get("plugins", []),
            exporters=[*given.get("exporters", []), self.witness],
            collectors=["capacity", *given.get("collectors", [])],
        )
        self.threads = threading.active_count() - before
        self.program, self.config = FRAMEWORKS["langgraph"](self.monitor)
        self.ms: list[float] = []

    def call(self) -> None:
        """Call the program once and note how long it took."""
        began = time.perf_counter()
        self.program.invoke(1, self.config)
        self.ms.append((time.perf_counter() - began) * 1000)


def child(cell: dict[str, Any], side: Path) -> None:
    """Call both in turn, then write what came of it."""
    part = cell["part"]
    before = threading.active_count()
    healthy = Side(part, side.parent / "healthy", hangs=False)
    hung = Side(part, side.parent / "hung", hangs=True)
    if part == "storage query":
        threading.Thread(target=_ask, args=(hung.monitor,), daemon=True).start()
    rounds, most_threads = [], 0
    for _ in range(cell["rounds"]):
        for one in (healthy, hung):
            one.ms.clear()
        for turn in range(cell["calls"]):
            most_threads = max(most_threads, threading.active_count())
            for one in (healthy, hung) if turn % 2 else (hung, healthy):
                one.call()
        rounds.append([_p99(hung.ms) - _p99(healthy.ms), _p99(healthy.ms)])
    time.sleep(2)
    came = {
        "hits": hung.hits.count,
        "rounds": rounds,
        "median": statistics.median(hung.ms) - statistics.median(healthy.ms),
        "spans": [len(healthy.witness.delays), len(hung.witness.delays)],
        "delays": [max(healthy.witness.delays), max(hung.witness.delays)],
        # Beyond those of two healthy monitors, at any time.
        "threads": most_threads - before - 2 * healthy.threads,
        "journaled": hung.monitor.stats()["spans"]["journaled"],
        "told": _told(hung.monitor, cell["wait"]),
    }
    side.write_text(json.dumps(came))


def _ask(monitor: Any) -> None:
    monitor.query()


def _told(monitor: Any, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stats = monitor.stats()
        if stats["cut_off"]:
            return "cut off"
        if stats["storage"]["state"] == "hung":
            return "told as hung"
        time.sleep(0.1)
    return ""


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def hung(quick: bool) -> Iterator[Row]:
    """Yield a row for each part that hangs."""
    zygote = Zygote()
    parts = HUNG_PARTS[:1] if quick else HUNG_PARTS
    cell = {"run": "faults_hung:child", "rounds": 3, "calls": 200, "wait": 0 if quick else 20}
    try:
        for part in parts:
            came = zygote.run({**cell, "part": part, "seconds": 120})["record"]
            yield _row(part, came, quick)
    finally:
        zygote.close()


def _row(part: str, came: dict[str, Any], quick: bool) -> Row:
    if not came:
        return Row("faults", f"{part} hangs for a minute", "langgraph sync", False, "no record")
    more = min(difference for difference, _ in came["rounds"])
    # On a machine that is busy with others p99 is theirs: then half of the healthy side's own.
    noise = max(MAX_P99_MS, statistics.median(p99 for _, p99 in came["rounds"]) / 2)
    delay = came["delays"][1] - came["delays"][0]
    complete = came["spans"][0] == came["spans"][1] > 0
    passed = (
        came["hits"] >= 1
        and more <= noise
        and came["median"] <= max(MAX_P99_MS, noise / 10)
        and delay <= (MAX_DELAY_AMONG_TESTS if quick else MAX_DELAY_SECONDS)
        and complete
        and came["threads"] <= MAX_THREADS
        and (quick or came["told"] != "")
    )
    told = f", {came['told']}" if came["told"] else ""
    detail = (
        f"p99 of a call {more:+.2f} ms (of {came['rounds'][0][1]:.1f}; best of 3 rounds), median "
        f"{came['median']:+.2f} ms; the other exporter {delay:+.2f} s later, "
        f"{came['spans'][1]} of {came['spans'][0]} spans; {came['threads']:+d} threads{told}"
    )
    return Row("faults", f"{part} hangs for a minute", "langgraph sync", passed, detail)
