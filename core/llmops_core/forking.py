"""A monitor in a forked child: its parent's threads, queue and journal are not its own.

The child's events go into a queue of its own from the first moment. The first of them starts a
thread that opens the rest; the caller never waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Reopening"]

#: How long a failed attempt to open keeps others from being made.
RETRY_SECONDS: Final = 30.0


class Reopening:
    """Opens something once, on a thread of its own, when it is first asked to."""

    def __init__(self, open_it: Callable[[], None], failed: Callable[[Exception], None]) -> None:
        self._open = open_it
        self._failed = failed
        self._thread: threading.Thread | None = None
        self._next_try = 0.0
        self.opened = False

    def start(self) -> None:
        """Start to open, unless it is under way or has just failed. Never waits, never raises."""
        if self.opened or self._thread is not None or time.monotonic() < self._next_try:
            return
        self._thread = threading.Thread(target=self._run, name="llmops-open", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the interpreter is exiting
            self._thread = None
            self._next_try = time.monotonic() + RETRY_SECONDS
            self._failed(error)

    def wait(self, timeout: float) -> bool:
        """Start to open and wait for it, at most *timeout* seconds; say whether it is open."""
        self.start()
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return self.opened

    def _run(self) -> None:
        try:
            self._open()
            self.opened = True
        except Exception as error:  # the child works on; its events wait in the bounded queue
            self._next_try = time.monotonic() + RETRY_SECONDS
            self._failed(error)
        finally:
            self._thread = None
