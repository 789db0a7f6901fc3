"""This installation's key: content hashes are HMACs with it, so nobody can look a hash up."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Final

__all__ = ["KEY_BYTES", "load_key"]

KEY_BYTES: Final = 32


def load_key(folder: Path) -> tuple[bytes, OSError | None]:
    """Return the key that lies in *folder*, making it at first; 0600, and never half written.

    Where nothing can be written the key lasts as long as the process, and the error is returned.
    The folder is the state folder, never the data's: who gets the data must not get the key.
    """
    path = folder / "key"
    try:
        with contextlib.suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == KEY_BYTES:
                return key, None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = folder / f".key.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secrets.token_bytes(KEY_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            # A link, not a rename: of two processes that start at once the first one's key stays.
            os.link(temporary, path)
        except FileExistsError:
            if path.stat().st_size != KEY_BYTES:  # cut short by a crash of an older disk state
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path.read_bytes(), None
    except OSError as error:
        return secrets.token_bytes(KEY_BYTES), error
