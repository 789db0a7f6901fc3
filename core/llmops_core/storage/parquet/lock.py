"""The lock of a folder's one compactor: held by the kernel for as long as the process lives."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from llmops_core.errors import RetryableError
from llmops_core.journal.lock import FileLock, is_locked
from llmops_core.storage.parquet.files import ALONE_NAME, LOCK_NAME

__all__ = ["CompactorLock", "owner", "writing"]

# A sweep asks for the lock too, for a moment.
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.02
#: How long it waits for the right to write: the others hold it for one write, or one search of the
#: journals. A process that is stopped in the middle must not stop the others for good.
WRITING_SECONDS: Final = 10.0
#: How long a writer lets one go first who wants the folder alone: it may be stopped, too. What is left
#: of the time is for the folder itself.
POLITE_SECONDS: Final = 5.0


class CompactorLock:
    """Take it with :meth:`take`, give it back with :meth:`release`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._lock: FileLock | None = None

    def take(self) -> bool:
        """Take the lock without waiting for its owner; say whether it is ours now."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        for attempt in range(_TRIES):
            try:
                self._lock = FileLock(os.open(self._path, flags, 0o600))
            except BlockingIOError:
                if attempt < _TRIES - 1:
                    time.sleep(_PAUSE_SECONDS)
            else:
                self._sign(self._lock.descriptor)
                return True
        return False

    def release(self) -> None:
        """Give the lock back, also where a forked child still holds the descriptor."""
        if self._lock is not None:
            self._lock.release()

    def forget(self) -> None:
        """Close the descriptor without giving the lock back: it is the parent process's."""
        if self._lock is not None:
            self._lock.forget()

    def _sign(self, descriptor: int) -> None:
        signed = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.utime(descriptor)  # on a full disk too: a slow listing asks who began meanwhile
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(signed).encode(), 0)


@contextlib.contextmanager
def writing(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Hold the right to let range files appear; *alone*, that of nobody doing so meanwhile.

    What is deleted or replaced while it waits in a journal is noted with the lock held alone: a
    writer that looked before the note was there has finished by then, and one that looks later
    finds it. Blocks for as long as the others hold it, which is not long; raises ``RetryableError``
    after ten seconds.
    """
    with contextlib.ExitStack() as held:
        _take(folder, alone, held)
        yield


def _take(folder: Path, alone: bool, held: contextlib.ExitStack) -> None:
    began, pause, announced = time.monotonic(), 0.001, False
    while True:
        waited = time.monotonic() - began
        if alone and not announced:
            announced = _announce(folder, held)
        if alone or waited > POLITE_SECONDS or not _is_announced(folder):
            with contextlib.suppress(BlockingIOError):
                # The folder itself is what is locked: no file more, and it works where the disk is full.
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                held.callback(FileLock(descriptor, shared=not alone).release)
                return
        if waited > WRITING_SECONDS:
            raise RetryableError(
                f"folder {str(folder)!r} has been locked for {WRITING_SECONDS:.0f} s",
                "expected whoever writes or deletes there to be done in a moment",
                "look for a process that is stopped (state T in ps)",
            )
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE_SECONDS)


# Writers whose turns overlap never leave a folder free, and a moment between two of them is hardly ever
# that in which one who wants it alone asks. So that one holds a second lock from before it asks until it
# is done, and no writer begins meanwhile. This is a courtesy, and what is right hangs on the folder's lock
# alone: an older version knows nothing of it, and neither a full disk nor another user's file is in the way.


def _announce(folder: Path, held: contextlib.ExitStack) -> bool:
    """Hold new writers back, without waiting for another one that does; say whether it is we."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        lock = FileLock(os.open(folder / ALONE_NAME, flags, 0o600))
    except OSError:
        return False
    held.callback(lock.release)
    return True


def _is_announced(folder: Path) -> bool:
    try:
        return is_locked(folder / ALONE_NAME)
    except OSError:  # nobody has deleted anything yet
        return False


def owner(folder: Path) -> dict[str, Any] | None:
    """Return who compacts a folder at this moment; None if nobody does."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        lock = FileLock(os.dup(descriptor), shared=True)
    except BlockingIOError:
        with contextlib.suppress(ValueError):
            signed = json.loads(os.pread(descriptor, 4096, 0))
            if isinstance(signed, dict):
                return signed
        return {}
    else:
        lock.release()
    finally:
        os.close(descriptor)
    return None
