"""The databases of the laboratory: private ones, each with its own data, which may be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

import mariadb
import postgres

TESTS = Path(__file__).parents[1]
#: What the oracle reads, past the storage: every row, with what it holds.
_ROWS = "SELECT span_id, input FROM llmops_spans"


class Server(Protocol):
    """A database that may be killed and started again with what it had committed."""

    port: int

    def url(self, port: int) -> str:
        """Return the storage's URL, by the server's port or by a proxy's."""

    def start(self) -> None:
        """Start it, and wait until it answers."""

    def kill(self) -> None:
        """Kill it, as a power cut would: it is told nothing."""

    def rows(self) -> list[tuple[str, str | None]]:
        """Return each stored span's id and input, asked for past the storage."""


class Postgres:
    def __init__(self, folder: Path) -> None:
        self.server = postgres.PostgreSQL()
        self.port, self.start, self.stop = self.server.port, self.server.start, self.server.stop

    def url(self, port: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def kill(self) -> None:
        self.server.signal(signal.SIGKILL)

    def rows(self) -> list[tuple[Any, ...]]:
        return self.server.sql(_ROWS)


class Maria:
    def __init__(self, folder: Path) -> None:
        self.server = mariadb.MariaDB(folder / "mariadb")
        self.port, self.start, self.stop = self.server.port, self.server.start, self.server.stop

    def url(self, port: int) -> str:
        return f"mysql://root@127.0.0.1:{port}/test"

    def kill(self) -> None:
        self.server.signal(signal.SIGKILL)

    def rows(self) -> list[tuple[Any, ...]]:
        import asyncio

        from servers import mysql_statements

        return asyncio.run(mysql_statements(self.server.url, _ROWS))


class Click:
    """chdb behind its HTTP port, on the same port each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "clickhouse"
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def url(self, port: int) -> str:
        return f"clickhouse://127.0.0.1:{port}/default"

    def start(self) -> None:
        command = [sys.executable, str(TESTS / "chdb_http.py"), str(self._folder), str(self.port)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline() or 0)
        assert self.port, "chdb did not start"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()  # it ends with it
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close_pipes()

    def rows(self) -> list[tuple[Any, ...]]:
        import json

        from clickhouse_server import ClickHouse

        answer = ClickHouse(self.url(self.port)).run(f"{_ROWS} FORMAT JSONCompactEachRow")
        return [tuple(json.loads(line)) for line in answer.splitlines()]

    def _close_pipes(self) -> None:
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


SERVERS = {"postgresql": Postgres, "mariadb": Maria, "clickhouse": Click}


def missing(name: str) -> str | None:
    """Return why a server cannot be had, None if it can."""
    if name == "postgresql":
        return postgres.missing()
    if name == "mariadb":
        return mariadb.missing()
    try:
        import chdb  # noqa: F401
    except ImportError:
        return "chdb is not installed: pip install chdb"
    return None


@contextmanager
def running(name: str) -> Iterator[Server]:
    """Run a server, with its data in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        server = SERVERS[name](Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def until(condition: Any, seconds: float = 120.0, every: float = 0.05) -> float:
    """Wait for a condition; return how long it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"it did not happen in {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic() - began
