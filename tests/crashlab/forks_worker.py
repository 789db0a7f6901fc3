"""What a worker of the laboratory of forks records; the oracle hears the ids outside of the monitor."""

from __future__ import annotations

import os

from llmops_core import Monitor
from llmops_core.intake.drafts import span_id_of

__all__ = ["SPANS", "record", "tell"]

#: How many spans belong to one task or request.
SPANS = 10


def tell(line: str) -> None:
    """Append a line to the oracle's file, in one call: the lines of many processes stay whole."""
    file = os.open(os.environ["ORACLE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def record(monitor: Monitor, number: int) -> int:
    """Record the spans of one task or request, and tell which; return this process's id."""
    runs = [(number << 40) + i + 1 for i in range(SPANS)]
    for run in runs:
        monitor.recorder.start(run, None, {"kind": "tool", "name": "task"})
        monitor.recorder.end(run, None, {"outcome": "ok"})
    tell(f"i {os.getpid()} {' '.join(map(span_id_of, runs))}")
    return os.getpid()
