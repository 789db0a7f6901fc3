"""A process that was forked: its parent's threads, locks, queue and journal are not its own.

The child's events go into a queue of its own from the first moment. The first of them starts a
thread that opens the rest; the caller never waits for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

__all__ = [
    "Reopening",
    "close_with_multiprocessing",
    "is_child_of_multiprocessing",
    "renew_after_fork",
    "watch_for_multiprocessing",
]

T = TypeVar("T")

#: How long a failed attempt to open keeps others from being made.
RETRY_SECONDS: Final = 30.0


class HasLocks(Protocol):
    """Something with locks, which another thread may hold at the moment of a fork."""

    def after_fork(self) -> None:
        """Take new locks. Called in the child, where no other thread runs; must not wait."""


_owners: Final[weakref.WeakSet[HasLocks]] = weakref.WeakSet()


def renew_after_fork(owner: HasLocks) -> None:
    """Have ``owner.after_fork()`` called in each forked child, for as long as *owner* lives."""
    _owners.add(owner)


def _renew_all() -> None:
    for owner in list(_owners):
        owner.after_fork()


os.register_at_fork(after_in_child=_renew_all)


# Children of multiprocessing leave by os._exit. Whether exit handlers run in them depends on the
# version of Python and on how they were started; a Finalize of multiprocessing's own always runs.


def is_child_of_multiprocessing() -> bool:
    """Whether this process was started by multiprocessing, in whatever way."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


def close_with_multiprocessing(owner: T, close: Callable[[T], object]) -> None:
    """Have ``close(owner)`` called when this child of multiprocessing ends."""
    from multiprocessing import util

    util.Finalize(owner, close, args=(owner,), exitpriority=0)


def watch_for_multiprocessing(owner: T, close: Callable[[T], object]) -> None:
    """Have ``close(owner)`` called when this child ends, if it turns out to be multiprocessing's.

    Called in a child right after the fork, and when *owner* is made, perhaps while multiprocessing
    imports the main module: whose child this is, is not known yet. Multiprocessing first clears the
    finalizers that are there, and then calls what is registered here.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(owner, lambda it: close_with_multiprocessing(it, close))


class Reopening:
    """Opens something once, on a thread of its own, when it is first asked to.

    *open_it* says whether it did: False if it found that it was no longer wanted.
    """

    def __init__(self, open_it: Callable[[], bool], failed: Callable[[Exception], None]) -> None:
        self._open = open_it
        self._failed = failed
        self._thread: threading.Thread | None = None
        self._next_try = 0.0
        #: Never waited for, so that a signal handler that comes in between cannot wait for itself.
        #: Made in the child, like all of this: no thread of the parent's holds it.
        self._beginning = threading.Lock()
        self.opened = False

    def start(self) -> None:
        """Start to open, unless it is under way or has just failed. Never waits, never raises."""
        if self.opened or not self._beginning.acquire(blocking=False):
            return  # it is open, or another thread begins to open it
        try:
            self._begin()
        finally:
            self._beginning.release()

    def _begin(self) -> None:
        # In this order: a thread that opened is forgotten after it has said that it did.
        if self._thread is not None or self.opened or time.monotonic() < self._next_try:
            return
        self._thread = threading.Thread(target=self._run, name="llmops-open", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            self._failed_with(error)

    def wait(self, timeout: float) -> bool:
        """Start to open and wait for it, at most *timeout* seconds; say whether it is open."""
        self.start()
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return self.opened

    def _run(self) -> None:
        try:
            self.opened = self._open()
        except Exception as error:  # the child works on; its events wait in the bounded queue
            self._failed_with(error)
        finally:
            self._thread = None

    def _failed_with(self, error: Exception) -> None:
        self._next_try = time.monotonic() + RETRY_SECONDS
        # That Python 3.12 starts no thread once it exits is no failure: there is another way out.
        if "interpreter shutdown" not in str(error):
            self._failed(error)
