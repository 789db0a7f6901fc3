"""Waiting for room in the queue, for the policy ``block``."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from threading import Condition
from typing import Final

__all__ = ["Room"]

#: How long waits may be in vain before nobody waits any more.
STANDSTILL_SECONDS: Final = 1.0


class Room:
    """Lets callers wait for a bounded time. Never on the thread of an event loop.

    Once waits have been in vain for a second nobody waits until something is taken: an intake that
    stands still must not cost the program its deadline at each event.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # Re-entrant inside: a signal handler may record an event in the middle of a wait.
        self._changed = Condition()
        self._waiting = 0
        self._in_vain_since: float | None = None
        #: Calls that waited, and how long in all.
        self.waits = 0
        self.waited_seconds = 0.0

    def wait(self, free: Callable[[], bool]) -> None:
        """Wait until *free* says so, at most the configured time. Called on the host's thread."""
        if _in_event_loop():
            return
        began, since = time.monotonic(), self._in_vain_since
        if since is not None and began - since >= STANDSTILL_SECONDS:
            return
        deadline = began + self._seconds
        with self._changed:
            self._waiting += 1
            try:
                while not free():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        if self._in_vain_since is None:
                            self._in_vain_since = time.monotonic()
                        break
                    self._changed.wait(left)
            finally:
                seconds = time.monotonic() - began
                # No call in an addition: an event that comes in the middle of one may wait as well.
                self._waiting -= 1
                self.waits += 1
                self.waited_seconds += seconds

    def opened(self) -> None:
        """Tell those who wait that something was taken. Called on the intake thread."""
        self._in_vain_since = None
        if self._waiting:
            with self._changed:
                self._changed.notify_all()


def _in_event_loop() -> bool:
    """Whether this is the thread of an event loop: of asyncio's, what is built on it, or trio's."""
    # Cheaper than asking for the loop and catching its error; documented for this use.
    if asyncio._get_running_loop() is not None:
        return True
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    if lowlevel is None:  # nobody imported it, so nobody runs it
        return False
    ask = getattr(lowlevel, "in_trio_run", None)
    if ask is not None:
        return bool(ask())
    try:
        lowlevel.current_trio_token()  # trio before 0.23
    except (AttributeError, RuntimeError):
        return False
    return True
