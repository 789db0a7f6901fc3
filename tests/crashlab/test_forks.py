"""Forks while each of our locks is held, and workers that come and go: no deadlock, nothing twice."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_fork_while_another_thread_holds_a_lock_of_ours_never_blocks_the_child() -> None:
    import forks

    row = forks.with_locks(30)
    print(row.detail)
    assert row.passed, row.detail


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_that_come_and_go_store_each_span_once() -> None:
    import forks

    for row in (
        forks.with_processes(forks.PREFORK, "Pool", "fork", 50),
        forks.with_processes(forks.CELERY, "os._exit after close()", "fork", 50, at_exit=True),
        forks.with_processes(forks.DOUBLE, "double fork", "fork", 4),
    ):
        print(row.detail)
        assert row.passed, f"{row.scenario} {row.cell}: {row.detail}"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_web_server_that_replaces_its_workers_stores_each_span_once() -> None:
    pytest.importorskip("gunicorn")
    import forks

    # The laboratory judges 3 s from SIGTERM on; here the machine may be as busy as it likes.
    for row in forks.servers(60, quick=True, gone_seconds=60):
        if row.scenario == "uvicorn":
            continue
        print(row.detail)
        assert row.passed, f"{row.scenario} {row.cell}: {row.detail}"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_forked_child_never_speaks_over_its_parents_connection(postgres_server: str) -> None:
    import forks

    row = forks.with_postgresql(postgres_server)
    print(row.detail)
    assert row.passed, row.detail


@pytest.mark.timeout(60)
def test_a_laboratory_that_lacks_a_package_says_so_in_a_row_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import forks_servers
    import notebooks

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = [*forks_servers.servers(10), *notebooks.lab(quick=True)]
    said = [row.detail for row in rows if not row.passed]
    assert said == [
        "not installed: pip install gunicorn",
        "not installed: pip install uvicorn",
        "not installed: pip install ipykernel jupyter_client langchain_core",
    ]
