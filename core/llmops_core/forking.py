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
#: The key of the one attempt to open that there may be at a time.
_NOW: Final = "now"


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
        #: The attempt that is under way: a lock that is taken by whoever runs it or calls it off. One
        #: enters by ``setdefault``, which is one step of the interpreter's: nobody waits for that, and
        #: a signal handler that comes in between cannot wait for itself.
        self._attempts: dict[str, threading.Lock] = {}
        #: Told when an attempt is over. Re-entrant: a signal handler may flush in the middle of a wait.
        #: Made in the child, like all of this: no thread of the parent's holds it.
        self._changed = threading.Condition()
        self._next_try = 0.0
        self.opened = False

    def start(self) -> None:
        """Start to open, unless it is under way or has just failed. Never waits, never raises."""
        if self._attempts or self._is_settled():
            return
        attempt = threading.Lock()
        try:
            if self._attempts.setdefault(_NOW, attempt) is attempt:
                self._begin(attempt)
        except BaseException:  # Ctrl-C: the thread may run by now, or never
            self._call_off(attempt)
            raise

    def _begin(self, attempt: threading.Lock) -> None:
        # Once more: an attempt that ended since we looked was forgotten after it had said how it went.
        if self._is_settled():
            self._call_off(attempt)
            return
        try:
            threading.Thread(
                target=self._run, args=(attempt,), name="llmops-open", daemon=True
            ).start()
        except RuntimeError as error:
            self._failed_with(error)
            self._call_off(attempt)

    def _is_settled(self) -> bool:
        return self.opened or time.monotonic() < self._next_try

    def wait(self, timeout: float) -> bool:
        """Start to open and wait for it, at most *timeout* seconds; say whether it is open."""
        self.start()
        attempt = self._attempts.get(_NOW)
        if attempt is not None:
            # Not for the thread: it may not have started yet, and then it cannot be joined.
            with self._changed:
                self._changed.wait_for(lambda: self._attempts.get(_NOW) is not attempt, timeout)
        return self.opened

    def _run(self, attempt: threading.Lock) -> None:
        if not attempt.acquire(blocking=False):
            return  # called off
        try:
            self.opened = self._open()
        except Exception as error:  # the child works on; its events wait in the bounded queue
            self._failed_with(error)
        finally:
            self._forget(attempt)

    def _call_off(self, attempt: threading.Lock) -> None:
        if attempt.acquire(blocking=False):
            self._forget(attempt)

    def _forget(self, attempt: threading.Lock) -> None:
        if self._attempts.get(_NOW) is attempt:
            del self._attempts[_NOW]
        with self._changed:
            self._changed.notify_all()

    def _failed_with(self, error: Exception) -> None:
        self._next_try = time.monotonic() + RETRY_SECONDS
        # That Python 3.12 starts no thread once it exits is no failure: there is another way out.
        if "interpreter shutdown" not in str(error):
            self._failed(error)
