"""The lock of a folder's one compactor: held by the kernel for as long as the process lives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from llmops_core.storage.parquet.files import LOCK_NAME

__all__ = ["CompactorLock", "owner", "writing"]

# A sweep asks for the lock too, for a moment.
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.02

_held: set[CompactorLock] = set()


class CompactorLock:
    """Take it with :meth:`take`, give it back with :meth:`release`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._descriptor = -1

    def take(self) -> bool:
        """Take the lock without waiting for its owner; say whether it is ours now."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        for attempt in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if attempt < _TRIES - 1:
                    time.sleep(_PAUSE_SECONDS)
            else:
                self._descriptor = descriptor
                _held.add(self)
                self._sign()
                return True
        os.close(descriptor)
        return False

    def release(self) -> None:
        """Give the lock back, also where a forked child still holds the descriptor."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.forget()

    def forget(self) -> None:
        """Close the descriptor without giving the lock back: it is the parent process's."""
        descriptor, self._descriptor = self._descriptor, -1
        _held.discard(self)
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _sign(self) -> None:
        signed = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(signed).encode(), 0)


@contextlib.contextmanager
def writing(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold the right to let range files appear; *alone*, that of nobody doing so meanwhile.

    What is deleted or replaced while it waits in a journal is noted with the lock held alone: a
    writer that looked before the note was there has finished by then, and one that looks later
    finds it. Blocks for as long as the others hold it, which is not long.
    """
    # The folder itself is what is locked: no file more, and it works where the disk is full.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def owner(folder: Path) -> dict[str, Any] | None:
    """Return who compacts a folder at this moment; None if nobody does."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        with contextlib.suppress(ValueError):
            signed = json.loads(os.pread(descriptor, 4096, 0))
            if isinstance(signed, dict):
                return signed
        return {}
    finally:
        os.close(descriptor)
    return None


def _after_fork_in_child() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
