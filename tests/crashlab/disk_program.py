"""A monitored program whose folder is full, taken away or given back by whoever drives it.

It records spans without end and prints, for each, nothing; on a line ``stats`` on standard input it
prints its ledgers as JSON, on ``end`` it closes, prints them once more, and ends with exit code 7, as
an unmonitored twin would.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from llmops_core import Monitor
from llmops_core.journal import writer

PAUSE_SECONDS = 0.002


def ledgers(monitor: Monitor) -> str:
    stats = monitor.stats()
    names = ("events", "spans", "journal", "storage", "failures")
    return json.dumps({name: stats[name] for name in names})


class Warnings(logging.Handler):
    """Collects what the application would see of us."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def main(url: str, file_bytes: int, settings: dict[str, Any]) -> int:
    warnings = Warnings()
    logging.getLogger("llmops").addHandler(warnings)
    writer.SEGMENT_BYTES = settings.pop("segment_bytes", writer.SEGMENT_BYTES)  # type: ignore[misc]
    given = {"batch_size": 200, "flush_interval_seconds": 0.2, **settings}
    monitor = Monitor(url, **given)
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    stopping, slowest = threading.Event(), [0.0]
    recording = threading.Thread(target=record, args=(monitor, stopping, slowest))
    recording.start()
    print("ready", flush=True)
    answers: dict[str, Callable[[], str]] = {
        "stats": lambda: ledgers(monitor),
        "warnings": lambda: json.dumps(warnings.lines),
        "slowest": lambda: json.dumps(slowest[0]),
        "unlimited": lambda: unlimited(),
    }
    for line in iter(sys.stdin.readline, ""):
        command = line.strip()
        if command == "end":
            break
        print(answers[command](), flush=True)
    stopping.set()
    recording.join()
    monitor.close(10)
    print(ledgers(monitor), flush=True)
    return 7


def unlimited() -> str:
    hard = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return "{}"


def record(monitor: Monitor, stopping: threading.Event, slowest: list[float]) -> None:
    recorder, run = monitor.recorder, 1
    while not stopping.wait(PAUSE_SECONDS):
        text = os.urandom(1_000).hex()  # so that nothing of it is compressed away
        began = time.thread_time()
        recorder.start(run, None, {"kind": "llm", "name": "m", "input": recorder.freeze(text)})
        recorder.end(run, None, {"outcome": "ok"})
        slowest[0] = max(slowest[0], time.thread_time() - began)
        run += 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])))
