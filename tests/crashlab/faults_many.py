"""Very many runs at once, runs that never end, and a graph that never stops."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from faults_zygote import Zygote
from rows import Row

__all__ = ["many"]

MAX_MANY_MB: Final = 150
MAX_GROWTH_MB: Final = 40
#: Room for all that 10,000 runs record at once: here nothing may be refused.
QUEUE_EVENTS: Final = 200_000
DEFAULT_TRACE_SPANS: Final = 10_000


def _peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _balanced(stats: dict[str, Any]) -> bool:
    from faults_overload import _ledger_problems

    return not _ledger_problems(stats)


def _graph(monitor: Any, where: str) -> Any:
    from langchain_core.tools import tool
    from langgraph.graph import START, StateGraph

    @tool
    def double(number: int) -> int:
        """Double a number."""
        return 2 * number

    def work(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "answer": double.invoke({"number": state["number"]})}

    async def awork(state: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {**state, "answer": await double.ainvoke({"number": state["number"]})}

    builder = StateGraph(dict)
    builder.add_node("work", awork if where == "async" else work)
    builder.add_edge(START, "work")
    graph = builder.compile()
    if monitor is None:
        return graph
    from llmops_integrations.langgraph import monitor_graph

    return monitor_graph(graph, monitor=monitor)


def many_child(cell: dict[str, Any], side: Path) -> None:
    """Run a graph very often at once, on one loop or on threads; check every tree."""
    from llmops_core import Monitor

    monitor = None
    if cell["monitored"]:
        monitor = Monitor(f"parquet:{side.parent / 'data'}", queue_events=QUEUE_EVENTS)
    graph, runs = _graph(monitor, cell["where"]), cell["runs"]
    answers: dict[int, int] = {}

    async def all_of_them() -> None:
        calls = (graph.ainvoke({"number": n}) for n in range(runs))
        answers.update(enumerate(a["answer"] for a in await asyncio.gather(*calls)))

    if cell["where"] == "async":
        asyncio.run(all_of_them())
    else:
        together = threading.Barrier(runs)

        def run(number: int) -> None:
            together.wait(120)
            answers[number] = graph.invoke({"number": number})["answer"]

        threads = [threading.Thread(target=run, args=(n,)) for n in range(runs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    came: dict[str, Any] = {"right": answers == {n: 2 * n for n in range(runs)}}
    if monitor is not None:
        came["flushed"] = monitor.flush(60).complete
        came["peak"] = _peak_mb()
        came["balanced"], came["stats"] = _balanced(monitor.stats()), monitor.stats()
        came["trees"] = _right_trees(monitor)
        monitor.close(10)
    else:
        came["peak"] = _peak_mb()
    side.write_text(json.dumps(came))


def _right_trees(monitor: Any) -> int:
    columns = ["span_id", "parent_id", "trace_id", "kind", "outcome", "output"]
    trees: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in monitor.query(columns=columns).to_pylist():
        trees[row["trace_id"]][row["kind"]] = row
    right = 0
    for tree in trees.values():
        if set(tree) == {"workflow", "task", "tool"}:
            root, node, call = tree["workflow"], tree["task"], tree["tool"]
            right += (
                root["parent_id"] is None
                and node["parent_id"] == root["span_id"]
                and call["parent_id"] == node["span_id"]
                and f'"answer":{call["output"]}' in root["output"].replace(" ", "")
            )
    return right


def _many_row(zygote: Zygote, where: str, runs: int) -> Row:
    cell = {"run": "faults_many:many_child", "where": where, "runs": runs, "seconds": 400}
    twin = zygote.run({**cell, "monitored": False})["record"]
    ran = zygote.run({**cell, "monitored": True})
    came, name = ran["record"], f"{runs:,} runs at once"
    if not came or not twin:
        return Row("faults", name, where, False, ran["stderr"][-500:])
    more = came["peak"] - twin["peak"]
    passed = (
        came["right"] and twin["right"] and came["flushed"] and came["balanced"]
        and came["trees"] == runs and more <= MAX_MANY_MB
    )  # fmt: skip
    detail = f"{came['trees']:,} trees right, peak memory {more:+.0f} MB over the twin's"
    if came["trees"] != runs:
        detail += f"; {came['stats']['events']} {came['stats']['spans']}"
    return Row("faults", name, where, passed, detail)


class _Discard:
    volatile = True

    async def open(self) -> None:
        pass

    async def write(self, batch: Any) -> None:
        pass

    async def query(self, query: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        pass


def endless_child(cell: dict[str, Any], side: Path) -> None:
    """Start runs that nobody ends; compare the memory of a third of them with that of all."""
    import gc
    import time

    import psutil

    from llmops_core import Monitor

    monitor = Monitor(_Discard(), durability="memory", open_spans=cell["open"])
    recorder, runs, third, most_open = monitor.recorder, cell["runs"], 0.0, 0

    def memory() -> float:
        monitor.flush(60)
        gc.collect()
        return float(psutil.Process().memory_info().rss) / 2**20

    for number in range(runs):
        is_root = number % 2 == 0
        fields = {"kind": "workflow" if is_root else "llm", "name": "endless"}
        recorder.start(number + 1, None if is_root else number, fields)
        if number % 10_000 == 0:
            while len(recorder.queue) > 20_000:
                time.sleep(0.005)
        if number % 1000 == 0:
            most_open = max(most_open, monitor.stats()["spans"]["open"])
        if number == runs // 3:
            third = memory()
    grown = memory() - third
    stats = monitor.stats()
    monitor.close(60)
    after = monitor.stats()
    came = {
        "grown": grown, "open": max(most_open, stats["spans"]["open"]), "balanced": _balanced(after),
        "stored": after["spans"]["stored"], "evicted": stats["tracer"].get("evicted_tree", 0),
    }  # fmt: skip
    side.write_text(json.dumps(came))


def _endless_row(zygote: Zygote, runs: int, most: int) -> Row:
    cell = {"run": "faults_many:endless_child", "runs": runs, "open": most, "seconds": 400}
    ran = zygote.run(cell)
    came = ran["record"]
    if not came:
        return Row("faults", "runs that never end", "core", False, ran["stderr"][-500:])
    # One more for a moment: the start that makes others give way is taken in first.
    passed = (
        came["open"] <= most + 1 and came["stored"] == runs and came["evicted"] > 0
        and came["balanced"] and came["grown"] <= MAX_GROWTH_MB
    )  # fmt: skip
    detail = (
        f"{runs:,} starts, {came['open']:,} open at most, {came['stored']:,} stored as incomplete, "
        f"memory {came['grown']:+.1f} MB from a third of them on"
    )
    return Row("faults", "runs that never end", "core", passed, detail)


def recursion_child(cell: dict[str, Any], side: Path) -> None:
    """Let a graph go round until its recursion limit."""
    from langgraph.graph import START, StateGraph
    from langgraph.types import Command

    from llmops_core import Monitor

    builder = StateGraph(dict)
    builder.add_node("again", lambda state: Command(goto="again", update={"n": state["n"] + 1}))
    builder.add_edge(START, "again")
    graph, monitor = builder.compile(), None
    if cell["monitored"]:
        from llmops_integrations.langgraph import monitor_graph

        monitor = Monitor("memory:", trace_spans=cell["cap"])
        graph = monitor_graph(graph, monitor=monitor)
    came: dict[str, Any] = {}
    try:
        graph.invoke({"n": 0}, {"recursion_limit": cell["limit"]})
    except Exception as error:
        came["raised"] = [type(error).__name__, str(error)]
    if monitor is not None:
        monitor.flush(60)
        stats = monitor.stats()
        came["stored"], came["skipped"] = stats["spans"]["stored"], stats["spans"]["skipped"]
        came["balanced"] = _balanced(stats)
        roots = monitor.query(kind="workflow", columns=["attributes"])["attributes"].to_pylist()
        came["marks"] = [dict(root or ()).get("llmops.span_limit_exceeded") for root in roots]
        monitor.close(10)
    side.write_text(json.dumps(came))


def _recursion_row(zygote: Zygote, limit: int, cap: int) -> Row:
    cell = {"run": "faults_many:recursion_child", "limit": limit, "cap": cap, "seconds": 400}
    twin = zygote.run({**cell, "monitored": False})["record"]
    ran = zygote.run({**cell, "monitored": True})
    came, name = ran["record"], f"graph goes round {limit:,} times"
    if not came or not twin:
        return Row("faults", name, "langgraph sync", False, ran["stderr"][-500:])
    skipped = came["skipped"].get("span_limit", 0)
    passed = (
        came["raised"] == twin["raised"] and came["balanced"]
        and came["marks"] == [str(skipped)] and came["stored"] <= cap + 1 and skipped >= limit - cap > 0
    )  # fmt: skip
    detail = (
        f"{came['raised'][0]}; {came['stored']:,} spans stored, {skipped:,} counted beyond {cap:,}"
    )
    return Row("faults", name, "langgraph sync", passed, detail)


def many(zygote: Zygote, quick: bool) -> Iterator[Row]:
    """Yield the rows."""
    yield _many_row(zygote, "async", 500 if quick else 10_000)
    yield _many_row(zygote, "threads", 100 if quick else 1000)
    yield _endless_row(zygote, *((60_000, 5000) if quick else (1_000_000, 50_000)))
    yield _recursion_row(zygote, *((400, 200) if quick else (12_000, DEFAULT_TRACE_SPANS)))
