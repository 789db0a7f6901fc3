"""A ClickHouse for tests: the one of ``LLMOPS_TEST_CLICKHOUSE_URL``, else chdb in a process.

chdb is ClickHouse's own engine as a package; ``chdb_http.py`` gives it an HTTP port. Each test has a
database of its own, which is dropped afterwards.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_numbers = itertools.count(1)


class ClickHouse:
    """A server: where it is, and a way to ask it without the code under test."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def run(self, sql: str, database: str = "default") -> str:
        """Run one statement and return its answer as text."""
        parts = urllib.parse.urlsplit(self.url)
        asked = urllib.parse.urlencode({"database": database, "wait_end_of_query": "1"})
        request = urllib.request.Request(
            f"http://{parts.hostname}:{parts.port}/?{asked}", data=sql.encode(), method="POST"
        )
        request.add_header("X-ClickHouse-User", parts.username or "default")
        request.add_header("X-ClickHouse-Key", parts.password or "")
        with urllib.request.urlopen(request, timeout=60) as answer:
            told: str = answer.read().decode().strip()
            return told

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make an empty database; give the storage URL of it, and drop it."""
        name = f"llmops_test_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name}")
        try:
            yield f"{self.url}/{name}"
        finally:
            self.run(f"DROP DATABASE {name}")


@contextmanager
def running_clickhouse(folder: Path) -> Iterator[ClickHouse]:
    """Run chdb behind its HTTP port, with its data in a folder."""
    program = Path(__file__).with_name("chdb_http.py")
    with subprocess.Popen(
        [sys.executable, str(program), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "chdb did not start"
        try:
            yield ClickHouse(f"clickhouse://127.0.0.1:{port}")
        finally:
            process.stdin.close()  # it ends with its parent, however that ends
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """A ClickHouse in which databases can be made."""
    url = os.environ.get("LLMOPS_TEST_CLICKHOUSE_URL")
    if url:
        yield ClickHouse(url)
        return
    pytest.importorskip("clickhouse_connect")
    pytest.importorskip("chdb", reason="no ClickHouse: pip install chdb, or name a server")
    with running_clickhouse(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
def clickhouse_url(clickhouse_server: ClickHouse) -> Iterator[str]:
    """The storage URL of an empty database of its own."""
    with clickhouse_server.database() as url:
        yield url
