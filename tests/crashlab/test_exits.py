"""A program ends, in every way that there is: like its unmonitored twin, and its spans are accounted for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: Of the ends of the laboratory those that differ; a plain return is that of the quiet exits below.
WAYS = (
    "sys_exit_3", "exception", "sigint", "sigint_handler_after", "sigterm_handler_after",
    "thread_exit", "atexit", "atexit_before", "exit_in_loop", "asyncio_cancelled", "fork",
    "process_forkserver", "process_pool",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", WAYS)
def test_a_program_ends_like_its_twin_and_loses_nothing(how: str) -> None:
    import exits

    row = exits.cell(sys.executable, VERSION, how, settle=False)
    print(row.detail)
    assert row.passed, row.detail


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["sigterm", "os_exit", "os_execv"])
def test_a_program_that_gets_no_turn_loses_nothing_that_was_journaled(how: str) -> None:
    import exits

    row = exits.cell(sys.executable, VERSION, how, settle=True)
    print(row.detail)
    assert row.passed, row.detail


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_exit_says_nothing_with_every_warning_on() -> None:
    import exits

    row = exits.quiet(sys.executable, VERSION, 5)
    assert row.passed, row.detail


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "sort", ["asyncio", "uvloop", "nest_asyncio", "trio", "gevent", "langgraph"]
)
def test_each_run_of_many_event_loops_is_there_once_with_its_parent_and_outcome(sort: str) -> None:
    pytest.importorskip(sort)
    import exits

    row = exits.loops(sys.executable, VERSION, sort)
    print(row.detail)
    assert row.passed, row.detail


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_exit_with_nothing_set_stores_all_that_was_recorded() -> None:
    import exits

    row = exits.cell(sys.executable, VERSION, "return", settle=False, patient=False)
    assert row.passed, row.detail


# The laboratory judges 150 ms and 2.25 s; here the machine may be as busy as it likes.


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_exit_takes_little_more_than_its_twins() -> None:
    import exits_times

    row = exits_times.exit_times(sys.executable, VERSION, "MONITORED", 3, limit_ms=2_000)
    print(row.detail)
    assert row.passed, row.detail


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["blocks", "refuses"])
def test_a_storage_that_is_dead_does_not_hold_the_program_and_costs_no_span(mode: str) -> None:
    import exits_times

    row = exits_times.exit_times(sys.executable, VERSION, mode, 1, limit_ms=20_000)
    print(row.detail)
    assert row.passed, row.detail


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_that_is_stopped_between_calls_goes_on_as_if_nothing_was() -> None:
    import exits

    row = exits.frozen(sys.executable, VERSION, 2, 0.05)
    print(row.detail)
    assert "6 of 6 stored" in row.detail, row.detail
