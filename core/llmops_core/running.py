"""Seconds that this process has run: a clock for deadlines that a stopped process does not miss.

SIGSTOP, a suspended machine and a function that is frozen between two calls stop every thread at once,
while the system's clock runs on; whoever was in the middle of a call is not to be blamed for that.
"""

from __future__ import annotations

import time
from typing import Final

__all__ = ["MAX_STEP_SECONDS", "look", "running_seconds"]

#: What may pass between two looks. The watchdog looks each second; on a busy machine it comes late.
MAX_STEP_SECONDS: Final = 2.0


class _Clock:
    """The last look, and what had passed by then. One pair: no lock that a fork could find held."""

    def __init__(self) -> None:
        self.looked = (time.monotonic(), 0.0)

    def read(self) -> tuple[float, float]:
        now = time.monotonic()
        last, passed = self.looked
        return now, passed + min(now - last, MAX_STEP_SECONDS)


_clock: Final = _Clock()


def running_seconds() -> float:
    """Return a reading of the clock. Only differences mean something; a stop counts as two seconds."""
    return _clock.read()[1]


def look() -> None:
    """Let the clock go on. Called each second by whoever watches."""
    _clock.looked = _clock.read()
