"""Forks while each of our locks is held, and workers that come and go: no deadlock, nothing twice."""

from __future__ import annotations

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
@pytest.mark.timeout(120)
def test_workers_that_come_and_go_store_each_span_once() -> None:
    import forks

    for row in (
        forks.with_processes(forks.PREFORK, "Pool", "fork", 50),
        forks.with_processes(forks.DOUBLE, "double fork", "fork", 4),
        *forks.servers(60, quick=True),
    ):
        print(row.detail)
        assert row.passed, f"{row.scenario} {row.cell}: {row.detail}"
