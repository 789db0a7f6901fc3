"""A fork beside a database: no two processes may speak over one connection.

The server is the one that the tests use (``LLMOPS_TEST_POSTGRES_URL``, or one that runs here). Each
process tells which backends serve it; the server is asked, while all of them live, whether they are there.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

from forks_oracle import environment, told
from rows import Row

from llmops_core import open_storage

__all__ = ["a_server", "with_postgresql"]

CHILDREN: Final = 4
SCENARIO: Final = "fork beside a database"
PROGRAM: Final = """
import os, sys
from forks_worker import record, tell
from llmops_core import Monitor
from llmops_core.storage.postgres import connecting
prepare = connecting.prepare
async def told(connection):
    tell(f"p {os.getpid()} {connection.get_server_pid()}")
    await prepare(connection)
connecting.prepare = told
monitor, CHILDREN = Monitor(sys.argv[1]), int(sys.argv[2])
record(monitor, 1)
assert monitor.flush(60).complete
(ready, is_ready), (go, goes) = os.pipe(), os.pipe()
for number in range(2, CHILDREN + 2):
    if os.fork() == 0:
        os.close(goes)
        record(monitor, number)
        assert monitor.flush(60).complete
        os.write(is_ready, b".")
        os.read(go, 1)
        record(monitor, 100 + number)
        sys.exit(0)
os.close(is_ready)
for _ in range(CHILDREN):
    assert os.read(ready, 1)
record(monitor, 100)
assert monitor.flush(60).complete
print("ready", flush=True)
sys.stdin.readline()
os.close(goes)
codes = [os.wait()[1] for _ in range(CHILDREN)]
record(monitor, 1000)  # its connection outlives the children
assert monitor.flush(60).complete
sys.exit(any(codes))
"""


def a_server() -> str | None:
    """Return the URL of a PostgreSQL server that answers, as the tests find one."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import servers

    return next((url for url in servers._candidates() if servers._works(url) is None), None)


def live_backends(server: str) -> set[str]:
    """Ask the server for the ids of its backends."""
    import asyncpg

    async def ask() -> set[str]:
        connection = await asyncpg.connect(server)
        try:
            rows = await connection.fetch("SELECT pid FROM pg_stat_activity")
            return {str(row["pid"]) for row in rows}
        finally:
            await connection.close()

    return asyncio.run(ask())


def drop(server: str, schema: str) -> None:
    """Take away what a run has made."""
    import asyncpg

    async def do() -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        finally:
            await connection.close()

    asyncio.run(do())


def with_postgresql(server: str | None) -> Row:
    """Fork while connections are open, and write from all processes at the same time."""
    if server is None:
        do = "no PostgreSQL server: start one, and set LLMOPS_TEST_POSTGRES_URL"
        return Row("forks", SCENARIO, "PostgreSQL", False, do)
    schema = f"llmops_test_{secrets.token_hex(6)}"
    try:
        return _with_postgresql(server, f"{server}{'&' if '?' in server else '?'}schema={schema}")
    finally:
        drop(server, schema)


def _with_postgresql(server: str, url: str) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path, oracle = Path(folder) / "app.py", Path(folder) / "oracle"
        path.write_text(PROGRAM)
        app = subprocess.Popen(
            [sys.executable, str(path), url, str(CHILDREN)],
            env=environment(oracle, LLMOPS_STATE_DIR=str(Path(folder) / "state")),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert app.stdout
        ready = app.stdout.readline() == "ready\n"
        live = live_backends(server)
        backends = backends_of(oracle)
        stderr = app.communicate("go\n", timeout=120)[1]
        issued, pids = told(oracle)
    with open_storage(url) as storage:
        ids = storage.query(columns=["span_id"])["span_id"].to_pylist()
    shared = {b for b, of in backends.items() if len(of) > 1}
    served = {pid for b, of in backends.items() if b in live for pid in of}
    doubled, stored = len(ids) - len(set(ids)), issued & set(ids)
    detail = (
        f"{len(stored)} of {len(issued)} spans, {doubled} doubled, {len(pids)} processes, "
        f"{len(backends)} connections, {len(shared)} of them shared"
    )
    whole = ready and app.returncode == 0 and "Traceback" not in stderr
    passed = whole and not shared and not doubled and stored == issued == set(ids)
    passed = passed and served == pids and len(pids) == CHILDREN + 1
    return Row(
        "forks", SCENARIO, "PostgreSQL", passed, detail if passed else detail + stderr[-1500:]
    )


def backends_of(oracle: Path) -> dict[str, set[str]]:
    """Return for each backend of the server the processes that said it serves them."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in oracle.read_text().splitlines():
        if line[0] == "p":
            found[line.split()[2]].add(line.split()[1])
    return found
