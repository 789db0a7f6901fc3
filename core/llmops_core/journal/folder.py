"""The folder of one writer's journal: made locked, and told from what stands in its place.

Its files are reached through a descriptor, so a folder that somebody renames is still this writer's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from llmops_core.journal.lock import FileLock, is_locked

__all__ = ["WriterFolder", "write_all"]

_COPY_BYTES: Final = 1024 * 1024


class WriterFolder:
    """``<root>/<writer>``. Making one takes its lock; every method may raise ``OSError``."""

    def __init__(self, root: Path, writer_id: str) -> None:
        self.path = root / writer_id
        self._descriptor = -1
        self._lock: FileLock | None = None
        _make_private(root)
        # Made under a hidden name and locked before it appears: a recoverer that saw the folder
        # first would take its writer for dead.
        hidden = root / f".{writer_id}"
        hidden.mkdir(mode=0o700)
        try:
            self._descriptor = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._lock = FileLock(self.open("lock", os.O_RDWR | os.O_CREAT))
            hidden.rename(self.path)
        except OSError:
            self.release()
            shutil.rmtree(hidden, ignore_errors=True)
            raise

    @property
    def held(self) -> bool:
        """Whether the lock is ours; a folder that was released may be a recoverer's by now."""
        return self._lock is not None and self._lock.held

    def release(self) -> None:
        """Give up the descriptors without touching a file (a forked child: they are its parent's)."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._lock is not None:
            self._lock.release()

    def has(self, name: str) -> bool:
        """Whether there is such a file where others look for it."""
        try:
            (self.path / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # what may not be looked at is not known to be gone
        return True

    def is_in_place(self) -> bool:
        """Whether others find this writer's lock where they look for it, and find it held."""
        descriptor = -1 if self._lock is None else self._lock.descriptor
        if _is_at(self.path / "lock", descriptor):
            return True
        try:
            # Some file systems give a file another number each time. The writer's id is ours alone,
            # so a lock that is held is ours; that of a copy is not held.
            return is_locked(self.path / "lock")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def open(self, name: str, flags: int) -> int:
        """Open a file, for the owner alone where it is made; the caller closes it."""
        return os.open(name, flags | os.O_CLOEXEC, 0o600, dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def replace(self, name: str, data: bytes) -> None:
        """Give a file new content, whole or not at all."""
        temporary = f".{name}.tmp"
        descriptor = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        here = self._descriptor
        os.rename(temporary, name, src_dir_fd=here, dst_dir_fd=here)

    def step_aside(self) -> None:
        """Make room for another folder, where this one stands in its place without its files."""
        if _is_at(self.path, self._descriptor):
            self.path.rename(self._aside())

    def take(self, name: str, other: WriterFolder, descriptor: int = -1) -> None:
        """Bring a file here from another folder: moved, or copied from what is open of it."""
        try:
            os.rename(name, name, src_dir_fd=other._descriptor, dst_dir_fd=self._descriptor)
            return
        except OSError:  # deleted, or on another file system
            source = os.dup(descriptor) if descriptor >= 0 else other.open(name, os.O_RDONLY)
        try:
            self._copy(source, name)
        finally:
            os.close(source)
        with contextlib.suppress(OSError):
            other.remove(name)

    def _copy(self, source: int, name: str) -> None:
        target, at = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), 0
        try:
            while piece := os.pread(source, _COPY_BYTES, at):
                write_all(target, piece)
                at += len(piece)
        except BaseException:
            self.remove(name)
            raise
        finally:
            os.close(target)

    def discard(self) -> None:
        """Forget a folder whose files another one has taken."""
        if _is_at(self._aside(), self._descriptor):
            shutil.rmtree(self._aside(), ignore_errors=True)
        else:  # it lies elsewhere: an empty one is left, whose lock nobody holds
            for name in ("open", ".open.tmp", "state", ".state.tmp", "lock"):
                with contextlib.suppress(OSError):
                    self.remove(name)
        self.release()

    def _aside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.gone")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True


def _make_private(folder: Path) -> None:
    """Create a folder and its missing parents, each for the owner alone."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, in as many calls as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
