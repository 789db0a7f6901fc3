"""Starting and stopping: calls before, between and after a monitor, and programs that make none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops_core import (
    Monitor,
    UnknownStorage,
    ashutdown,
    default,
    default_monitor,
    holding,
    initialize_monitoring,
    initialize_monitoring_sync,
    monitor_llm,
    open_storage,
    shutdown,
)


@monitor_llm
def answer(text: str) -> str:
    return text


@pytest.fixture(autouse=True)
def no_default_monitor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start as a fresh process does, and leave the other tests what they had."""
    monkeypatch.setattr(holding, "_default", holding._Default())
    monkeypatch.setattr(default, "_default", None)
    holding.hold(lambda: None)
    yield
    shutdown()


def inputs(of: Monitor) -> list[str]:
    of.flush()
    rows = of.query(order=["start_time"]).to_pylist()
    return [row["input"] for row in rows]


async def test_calls_before_the_start_are_kept_and_stored() -> None:
    answer("before")
    opened = await initialize_monitoring(storage="memory:", durability="memory")
    answer("after")
    assert inputs(opened) == ["before", "after"]
    assert default_monitor() is opened
    assert (await ashutdown()) is not None


def test_a_call_that_is_open_at_the_start_keeps_its_children() -> None:
    opened = []

    @monitor_llm
    def outer() -> None:
        answer("one")
        opened.append(initialize_monitoring_sync(storage="memory:", durability="memory"))
        answer("two")

    outer()
    opened[0].flush()
    rows = opened[0].query(order=["start_time"]).to_pylist()
    assert [row["name"] for row in rows] == ["outer", "answer", "answer"]
    assert {row["parent_id"] for row in rows[1:]} == {rows[0]["span_id"]}


def test_what_was_lost_before_the_start_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MAX_EVENTS", 10)
    monkeypatch.setattr(holding, "_default", holding._Default())
    for number in range(100):
        answer(str(number))
    opened = initialize_monitoring_sync(storage="memory:", durability="memory")
    opened.flush()
    events = opened.stats()["events"]
    assert events["dropped"]["overload"] > 0
    assert events["received"] == 200
    assert events["received"] == events["consumed"] + sum(events["dropped"].values())


def test_a_second_start_closes_the_first_monitor() -> None:
    first = initialize_monitoring_sync(storage="memory:", durability="memory")
    answer("one")
    second = initialize_monitoring_sync(storage="memory:", durability="memory")
    answer("two")
    assert first.closed
    assert inputs(second) == ["two"]
    assert first.stats()["spans"]["stored"] == 1


def test_calls_after_the_shutdown_are_counted_and_raise_nothing() -> None:
    opened = initialize_monitoring_sync(storage="memory:", durability="memory")
    report = shutdown()
    assert report is not None
    assert report.complete
    assert answer("late") == "late"
    assert opened.stats()["events"]["dropped"] == {"closed": 2}
    again = initialize_monitoring_sync(storage="memory:", durability="memory")
    answer("again")
    assert inputs(again) == ["again"]


def test_a_shutdown_without_a_monitor_does_nothing() -> None:
    assert shutdown() is None


async def test_a_start_that_cannot_work_raises_and_keeps_what_waits() -> None:
    answer("before")
    with pytest.raises(UnknownStorage):
        await initialize_monitoring(storage="nowhere:")
    opened = await initialize_monitoring(storage="memory:", durability="memory")
    assert inputs(opened) == ["before"]


def test_the_default_monitor_opens_by_itself_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    opened = threading.Event()
    monkeypatch.setattr(holding, "OPEN_AFTER_SECONDS", 0.01)
    holding.hold(opened.set)
    answer("alone")
    assert opened.wait(10)


# ---- other processes ----


def run(tmp_path: Path, body: str) -> list[dict[str, object]]:
    """Run a program and return the spans that a reader finds afterwards."""
    url = f"parquet:{tmp_path / 'data'}"
    program = tmp_path / "app.py"
    program.write_text("import os\nfrom llmops_core import *\n" + textwrap.dedent(body))
    environment = {"LLMOPS_STORAGE_URL": url, "LLMOPS_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with open_storage(url) as storage:
        rows: list[dict[str, object]] = storage.query(order=["start_time"]).to_pylist()
    return rows


def test_a_program_that_only_decorates_is_stored_when_it_exits(tmp_path: Path) -> None:
    body = """
        @monitor_llm
        def outer(x): return inner(x)
        @monitor_llm
        def inner(x): return x
        outer("a")
        outer("b")
    """
    rows = run(tmp_path, body)
    assert [row["name"] for row in rows] == ["outer", "inner"] * 2
    assert rows[1]["parent_id"] == rows[0]["span_id"]
    # The next monitor of this storage brings it home from the journal, once.
    with Monitor(storage=f"parquet:{tmp_path / 'data'}") as home:
        home.flush()
        assert len(home.query()) == 4


def test_a_forked_child_leaves_what_its_parent_kept_to_the_parent(tmp_path: Path) -> None:
    body = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        @monitor_llm
        def call(who): pass
        call("parent")
        child = os.fork()
        if child == 0:
            call("child")
            raise SystemExit(0)
        os.waitpid(child, 0)
    """
    rows = run(tmp_path, body)
    assert sorted(str(row["input"]) for row in rows) == ["child", "parent"]


@pytest.mark.parametrize("start", ["sync", "async"])
def test_a_program_that_starts_and_forgets_to_stop_is_stored(tmp_path: Path, start: str) -> None:
    body = """
        import asyncio
        @monitor_llm
        async def call(x): return x
        async def main():
            {}
            await call("a")
        asyncio.run(main())
    """
    begin = "await initialize_monitoring()" if start == "async" else "initialize_monitoring_sync()"
    assert [row["input"] for row in run(tmp_path, body.format(begin))] == ["a"]
