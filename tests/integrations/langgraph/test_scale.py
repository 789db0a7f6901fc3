"""Very many runs at once, and very many that never end: every parent right, and memory flat."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psutil
import pytest

pytest.importorskip("langgraph")

from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from llmops_core import Monitor
from llmops_integrations.langchain.runs import MAX_RUNS
from llmops_integrations.langgraph import LangGraphHandler, monitor_graph

ASYNC_RUNS = 10_000
THREADS = 1_000
ENDLESS_BEFORE = 300_000
ENDLESS_RUNS = 1_000_000
OPEN_SPANS = 50_000
MAX_GROWTH_MB = 40

pytestmark = pytest.mark.slow


class State(TypedDict, total=False):
    number: int
    answer: int


@tool
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


def _work(state: State) -> State:
    return {"answer": double.invoke({"number": state["number"]})}


async def _awork(state: State) -> State:
    await asyncio.sleep(0)
    return {"answer": await double.ainvoke({"number": state["number"]})}


def _graph(node: Any, monitor: Monitor) -> Any:
    builder = StateGraph(State)
    builder.add_node("work", node)
    builder.add_edge(START, "work")
    return monitor_graph(builder.compile(name="many"), monitor=monitor)


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    opened = Monitor(
        storage="memory:",
        durability="memory",
        queue_events=1_000_000,
        queue_bytes=2**30,
        backlog_bytes=2**30,
        open_spans=1_000_000,
    )
    try:
        yield opened
    finally:
        opened.close(30)


def _ledgers(monitor: Monitor) -> dict[str, Any]:
    """Return the stats, once both ledgers are seen to balance."""
    stats = monitor.stats()
    events, spans = stats["events"], stats["spans"]
    dropped = sum(events["dropped"].values())
    assert events["received"] == events["consumed"] + events["queued"] + dropped
    parts = (spans[name] for name in ("stored", "queued", "journaled", "quarantined"))
    lost = sum(spans["dropped"].values()) + sum(spans["skipped"].values())
    assert spans["made"] == sum(parts) + lost
    return stats


def _check(monitor: Monitor, runs: int) -> None:
    """Every run is one tree of three spans that agree on its number, and nothing is missing."""
    assert monitor.flush(60).complete
    stats = _ledgers(monitor)
    assert stats["events"]["dropped"] == stats["spans"]["dropped"] == stats["failures"] == {}
    assert stats["spans"]["stored"] == 3 * runs
    assert stats["spans"]["open"] == 0
    columns = ["span_id", "parent_id", "trace_id", "kind", "input", "output", "outcome"]
    rows = monitor.query().select(columns).to_pylist()
    assert {row["outcome"] for row in rows} == {"ok"}
    by_id = {row["span_id"]: row for row in rows}
    assert len(by_id) == 3 * runs
    trees = defaultdict(dict)
    for row in rows:
        trees[row["trace_id"]][row["kind"]] = row
    numbers = set()
    for tree in trees.values():
        root, node, call = tree["workflow"], tree["task"], tree["tool"]
        assert (root["parent_id"], node["parent_id"]) == (None, root["span_id"])
        assert call["parent_id"] == node["span_id"]
        asked = root["input"]
        number = int(asked.partition(":")[2].rstrip("}"))
        assert node["input"] == call["input"] == asked
        assert int(call["output"]) == 2 * number
        numbers.add(number)
    assert numbers == set(range(runs))


async def test_ten_thousand_runs_at_once_have_the_right_parents(monitor: Monitor) -> None:
    graph = _graph(_awork, monitor)
    answers = await asyncio.gather(*(graph.ainvoke({"number": n}) for n in range(ASYNC_RUNS)))
    assert [a["answer"] for a in answers] == [2 * n for n in range(ASYNC_RUNS)]
    await asyncio.to_thread(_check, monitor, ASYNC_RUNS)


def test_a_thousand_threads_at_once_have_the_right_parents(monitor: Monitor) -> None:
    graph = _graph(_work, monitor)
    together, answers = threading.Barrier(THREADS), {}

    def run(number: int) -> None:
        together.wait(60)
        answers[number] = graph.invoke({"number": number})["answer"]

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: 2 * n for n in range(THREADS)}
    _check(monitor, THREADS)


class _Discard:
    """A storage that takes everything and keeps nothing."""

    volatile = True

    async def open(self) -> None:
        pass

    async def write(self, batch: Any) -> None:
        pass

    async def query(self, query: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


def _memory_mb() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def _never_end(monitor: Monitor, numbers: range) -> None:
    """Start trees of a root and a model call that nobody ends; let the intake thread keep up."""
    recorder = monitor.recorder
    for number in numbers:
        is_root = number % 2 == 0
        fields = {"kind": "workflow" if is_root else "llm", "name": "endless"}
        if not is_root:
            fields["input"] = recorder.freeze("what is asked")
        recorder.start(number + 1, None if is_root else number, fields)
        if number % 10_000 == 0:
            while len(recorder.queue) > 20_000:
                time.sleep(0.005)
    assert monitor.flush(60).complete


def test_a_million_runs_that_never_end_leave_memory_flat() -> None:
    monitor = Monitor(
        storage=_Discard(), durability="memory", batch_size=10_000, open_spans=OPEN_SPANS
    )
    try:
        _never_end(monitor, range(ENDLESS_BEFORE))
        before = _memory_mb()
        _never_end(monitor, range(ENDLESS_BEFORE, ENDLESS_RUNS))
        growth = _memory_mb() - before
        stats = _ledgers(monitor)
        still_open = stats["spans"]["open"]
        assert still_open <= OPEN_SPANS
        assert stats["events"]["received"] == stats["events"]["consumed"] == ENDLESS_RUNS
        assert stats["spans"]["stored"] == ENDLESS_RUNS - still_open
        assert stats["tracer"]["evicted_tree"] == stats["spans"]["stored"] / 2
    finally:
        monitor.close(60)
    after = _ledgers(monitor)
    assert (after["spans"]["stored"], after["spans"]["open"]) == (ENDLESS_RUNS, 0)
    print(f"{growth:.1f} MB more from {ENDLESS_BEFORE:,} to {ENDLESS_RUNS:,} runs")
    assert growth < MAX_GROWTH_MB, f"{growth:.0f} MB more after {ENDLESS_RUNS:,} runs"


def test_what_a_handler_keeps_of_runs_that_never_end_is_bounded() -> None:
    with Monitor(storage=_Discard(), durability="memory") as monitor:
        handler = LangGraphHandler(monitor)
        for number in range(3 * MAX_RUNS):
            handler.on_chain_start(None, {"n": number}, run_id=UUID(int=number + 1), name="graph")
        assert len(handler._runs) == MAX_RUNS
        handler.on_chain_end({}, run_id=UUID(int=1))  # an end of a run that was forgotten
        assert monitor.flush(60).complete
        assert _ledgers(monitor)["failures"] == {}
