"""A wake-up that may come in the middle of itself."""

from __future__ import annotations

import contextlib
from threading import Lock

__all__ = ["WakeUp"]


class WakeUp:
    """Wakes one waiting thread. ``set`` may be called anywhere, also while it is being called.

    Not ``threading.Event``: that one takes a lock inside, so a signal handler or a finalizer that
    records an event in the middle of a ``set`` would wait for its own thread for ever.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the thread that waits, or the next one that will. Never waits."""
        with contextlib.suppress(RuntimeError):  # it is set already
            self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Wait until set, at most *timeout* seconds; take the wake-up and say whether it came."""
        return self._lock.acquire(timeout=timeout)
