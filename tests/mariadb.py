"""A MariaDB server of one's own, in a folder: to be stopped, killed and encrypted as a test likes."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from llmops_core.errors import StorageError

START_SECONDS = 120.0


def missing() -> str | None:
    """Return what is not installed, None if all is."""
    for program in ("mariadbd", "mariadb-install-db"):
        if _found(program) is None:
            return f"{program} is not installed; it is in Debian's package mariadb-server"
    return None


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class MariaDB:
    """One server on a free port of the loopback; root has no password."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = _free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            str(_found("mariadb-install-db")),
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            f"--user={getpass.getuser()}",
            "--auth-root-authentication-method=normal",
        )

    @property
    def url(self) -> str:
        """The URL of its database ``test``."""
        return f"mysql://root@127.0.0.1:{self.port}/test"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                str(_found("mariadbd")),
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--socket={self.folder / 'socket'}",
                f"--pid-file={self.folder / 'pid'}",
                f"--port={self.port}",
                "--bind-address=127.0.0.1",
                f"--user={getpass.getuser()}",
                "--innodb-buffer-pool-size=64M",
                *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "mariadbd ended"
            assert time.monotonic() < deadline, "mariadbd does not answer"
            time.sleep(0.1)

    def signal(self, number: int) -> None:
        """Send a signal: SIGSTOP and SIGCONT for a server that hangs, SIGKILL for one that dies."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait()

    def stop(self) -> None:
        """End it and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def sql(self, *statements: str, sslmode: str = "disable") -> None:
        """Run statements, by the socket."""
        import asyncio

        from servers import mysql_statements

        url = f"mysql://root@localhost/mysql?host={self.folder / 'socket'}&sslmode={sslmode}"
        asyncio.run(mysql_statements(url, *statements))

    def _answers(self) -> bool:
        try:
            # Without warnings: the driver would log that it is there.
            self.sql("SET SESSION max_error_count=0", "CREATE DATABASE IF NOT EXISTS test")
        except (StorageError, OSError, RuntimeError) as error:
            raise AssertionError(str(error)) from error
        except Exception:  # the driver's, of many kinds, until it answers
            return False
        return True

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port
