"""Time, behind one small object, so that tests can move it by hand."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two readings in nanoseconds. Called on the host's thread: must not block."""

    def monotonic_ns(self) -> int:
        """Return a reading that never goes back. Durations come from it."""

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970, UTC. Read once for each trace."""


class SystemClock:
    """The machine's clocks."""

    monotonic_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)
