"""Locks of files that the kernel gives back when a process dies, and that no forked child keeps.

A child inherits the descriptor, and with it the lock: closing the parent's leaves it held for as long
as the child has its own. So it is unlocked before it is closed, and the child closes what it inherits:
a parent that is killed unlocks nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

__all__ = ["FileLock", "is_locked"]

_held: Final[set[FileLock]] = set()


class FileLock:
    """The lock of what *descriptor* has open, which is closed with it. Made without waiting.

    Raises ``BlockingIOError`` where somebody else holds it; the descriptor is closed then too.
    """

    def __init__(self, descriptor: int, *, shared: bool = False) -> None:
        self.descriptor = descriptor
        self._pid = os.getpid()
        _held.add(self)  # before it is locked: a child that is forked in between closes its own
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BaseException:
            self.forget()
            raise

    @property
    def held(self) -> bool:
        """Whether it was neither given back nor forgotten."""
        return self.descriptor >= 0

    def release(self) -> None:
        """Give the lock back, also where a forked child still has the descriptor."""
        if self.held and os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_UN)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor without giving the lock back: it is the parent process's."""
        descriptor, self.descriptor = self.descriptor, -1
        _held.discard(self)  # before it is closed: the number may be another file's at once
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file. Raises ``OSError`` where that cannot be asked."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        FileLock(descriptor, shared=True).release()
    except BlockingIOError:
        return True
    return False


def _after_fork_in_child() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
