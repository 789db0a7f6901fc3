"""A monitored program that records at a steady rate, whatever becomes of its database.

Lines on standard output, each one ``write`` of its own: ``i RUN`` when a run has ended on the host's
thread, ``j SPAN SPAN ...`` when the journal's write of them has returned, ``l TEXT`` for each line of
the log, and ``s JSON``, the ledgers, when it is asked for by a line of standard input. ``calls`` asks
how long the host was kept; ``quiet`` stops recording, ``flush`` waits until all is stored, ``end``
leaves as a program does.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from typing import Any

from crash_payload import payload

from llmops_core import Monitor
from llmops_core.journal.writer import Journal

#: How long each storage waits for its server: shortened where a test has no time for it.
DEADLINES = {
    "postgres.connecting": ("CONNECT_SECONDS",),
    "postgres.rows": ("BASE_SECONDS",),
    "mysql.connecting": ("CONNECT_SECONDS",),
    "mysql.storage": ("WRITE_SECONDS",),
    "clickhouse.storage": ("CONNECT_SECONDS", "FIRST_WRITE_SECONDS"),
}


def say(line: str) -> None:
    os.write(1, (line + "\n").encode())


class Told(logging.Handler):
    """Passes each line of our log on."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"l {record.getMessage()}".replace("\n", " "))


def hasten(scheme: str, seconds: float) -> None:
    """Shorten the deadlines of a storage."""
    for module, names in DEADLINES.items():
        if module.startswith(scheme):
            found = importlib.import_module(f"llmops_core.storage.{module}")
            for name in names:
                assert hasattr(found, name)
                setattr(found, name, seconds)


def tell_what_is_journaled() -> None:
    append = Journal.append_records

    def told(self: Journal, spans: Sequence[Any], first_seq: int, last_seq: int) -> int:
        size = append(self, spans, first_seq, last_seq)
        say("j " + " ".join(span[0] for span in spans))  # the span id is the first column
        return size

    Journal.append_records = told  # type: ignore[method-assign]


class Host:
    """The user's own work, and how long our part of it kept it."""

    def __init__(self, monitor: Monitor, first_run: int, per_second: int) -> None:
        self._recorder = monitor.recorder
        self._first, self._per_second = first_run, per_second
        self.calls_us = array("d")
        self.stopping = threading.Event()

    def run(self) -> None:
        """Record trees of a root and four model calls until told to stop."""
        began, run = time.monotonic(), self._first
        while not self.stopping.is_set():
            for at in range(5):
                self._record(run + at, None if at == 0 else run)
            run += 5
            ahead = (run - self._first) / self._per_second - (time.monotonic() - began)
            if ahead > 0:
                self.stopping.wait(ahead)

    def _record(self, run: int, root: int | None) -> None:
        recorder, began = self._recorder, time.perf_counter()
        kind = "workflow" if root is None else "llm"
        fields: dict[str, Any] = {
            "kind": kind,
            "name": kind,
            "input": recorder.freeze(payload(run)),
        }
        recorder.start(run, root, fields)
        recorder.end(run, root, {"outcome": "ok"})
        self.calls_us.append((time.perf_counter() - began) * 1e6)
        say(f"i {run}")


def calls(host: Host) -> dict[str, float]:
    """Return how long our part kept the host."""
    found = sorted(host.calls_us[:])
    return {"p99_us": found[int(0.99 * (len(found) - 1))], "slowest_us": found[-1]}


def main(url: str, first_run: int, per_second: int, deadline: float) -> None:
    logging.getLogger("llmops").addHandler(Told())
    logging.getLogger("llmops").propagate = False
    tell_what_is_journaled()
    if deadline:
        scheme = url.partition(":")[0]
        hasten("postgres" if scheme == "postgresql" else scheme, deadline)
    monitor = Monitor(url)
    host = Host(monitor, first_run, per_second)
    working = threading.Thread(target=host.run)
    working.start()
    say("ready")
    for line in sys.stdin:
        word = line.strip()
        if word in ("quiet", "end"):
            host.stopping.set()
            working.join()
        if word == "flush":
            say(f"f {int(monitor.flush(120).complete)}")
        elif word == "end":
            break
        elif word == "calls":
            say(f"s {json.dumps(calls(host))}")
        else:
            told = monitor.stats()
            say(f"s {json.dumps({name: told[name] for name in ('spans', 'events', 'storage')})}")
    monitor.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
