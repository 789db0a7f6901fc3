"""What monitoring keeps in memory: many runs at once, and a million spans one after the other.

Each measurement is a process of its own, as memory that was once used is seldom given back. Linux
alone, for ``/proc/self``::

    python benchmarks/memory.py                        # about a quarter of an hour
    python benchmarks/memory.py --runs 1000 --spans 100000

*Concurrent*: so many runs of a graph of three nodes, all of them waiting in their second node at
the same time; memory is read then, and compared with a twin without callbacks. *Soak*: spans with
two texts of 200 characters each, recorded and stored one after the other; the slope of the memory
after a warm-up of a tenth, by least squares.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TypedDict

MIB = 1 << 20
POINTS = 50


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class State(TypedDict, total=False):
    text: str
    turn: int


def concurrent(count: int, monitored: bool) -> float:
    """Return the MiB that *count* concurrent runs of a small graph take, beside what was before."""
    from langgraph.graph import END, START, StateGraph

    from llmops_core import Monitor
    from llmops_integrations.langchain import LLMOpsCallbackHandler

    waiting, all_wait, go_on = 0, asyncio.Event(), asyncio.Event()

    async def first(state: State) -> State:
        return {"text": "x" * 200, "turn": 1}

    async def second(state: State) -> State:
        nonlocal waiting
        waiting += 1
        if waiting == count:
            all_wait.set()
        await go_on.wait()
        return {"text": "y" * 200, "turn": 2}

    async def third(state: State) -> State:
        return {"turn": 3}

    builder = StateGraph(State)
    for name, node in (("first", first), ("second", second), ("third", third)):
        builder.add_node(name, node)
    for source, target in ((START, "first"), ("first", "second"), ("second", "third")):
        builder.add_edge(source, target)
    builder.add_edge("third", END)
    graph = builder.compile()

    async def run(callbacks: list[Any], monitor: Monitor) -> float:
        nonlocal waiting
        go_on.set()
        await asyncio.gather(*(graph.ainvoke({"text": "a"}, {"callbacks": callbacks})
                               for _ in range(50)))  # fmt: skip
        go_on.clear()
        await monitor.aflush(60)
        waiting = 0
        all_wait.clear()
        gc.collect()
        before = resident_bytes()
        config: Any = {"callbacks": callbacks}
        tasks = [asyncio.ensure_future(graph.ainvoke({"text": "a" * 200 + str(n)}, config))
                 for n in range(count)]  # fmt: skip
        await all_wait.wait()
        await monitor.aflush(60)
        taken = resident_bytes() - before
        go_on.set()
        await asyncio.gather(*tasks)
        return taken / MIB

    with tempfile.TemporaryDirectory() as folder, Monitor(f"parquet:{folder}") as monitor:
        handler = LLMOpsCallbackHandler(monitor)
        taken = asyncio.run(run([handler] if monitored else [], monitor))
        dropped = monitor.stats()["spans"]["dropped"] or monitor.stats()["events"]["dropped"]
        if dropped:
            raise SystemExit(f"spans were dropped, so the figure says nothing: {dropped}")
    return taken


def soak(count: int) -> float:
    """Return the MiB by which memory grows for each 100,000 spans, after a warm-up."""
    from llmops_core import Monitor

    points: list[tuple[float, float]] = []
    step = max(count // POINTS, 1)
    with tempfile.TemporaryDirectory() as folder, Monitor(f"parquet:{folder}") as monitor:
        record = monitor.recorder
        for number in range(1, count + 1):
            root = number - (number - 1) % 10
            parent = None if number == root else root + (1 << 90)
            run, text = number + (1 << 90), f"{number} " + "lorem ipsum " * 16
            fields = {"kind": "llm" if parent else "workflow", "name": "step"}
            record.start(run, parent, {**fields, "input": record.freeze({"text": text})})
            if parent:
                record.end(run, parent, {"outcome": "ok", "output": record.freeze(text)})
            if number == root + 9:
                record.end(root + (1 << 90), None, {"outcome": "ok"})
            if number % step == 0:
                if not monitor.flush(120).complete:
                    raise SystemExit("a flush took more than two minutes")
                points.append((number / 100_000, resident_bytes() / MIB))
        stats = monitor.stats()
    if stats["spans"]["dropped"] or stats["events"]["dropped"]:
        raise SystemExit(f"spans were dropped, so the figure says nothing: {stats}")
    late = points[len(points) // 10 :]
    middle = sum(x for x, _ in late) / len(late)
    mean = sum(y for _, y in late) / len(late)
    slope = sum((x - middle) * (y - mean) for x, y in late) / sum(
        (x - middle) ** 2 for x, _ in late
    )
    print(f"  from {late[0][1]:.0f} to {late[-1][1]:.0f} MiB resident", file=sys.stderr)
    return slope


def alone(*arguments: str) -> float:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--measure", choices=["twin", "ours", "soak"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure == "soak":
        print(soak(options.spans))
    elif options.measure:
        print(concurrent(options.runs, options.measure == "ours"))
    else:
        started = time.monotonic()
        print(f"Python {sys.version.split()[0]}; MiB of resident memory")
        runs = ("--runs", str(options.runs))
        twin, ours = (alone("--measure", what, *runs) for what in ("twin", "ours"))
        print(f"{options.runs:,} concurrent runs: twin {twin:.0f}, ours {ours:.0f}, "
              f"difference {ours - twin:+.0f}", flush=True)  # fmt: skip
        slope = alone("--measure", "soak", "--spans", str(options.spans))
        print(f"soak of {options.spans:,} spans: {slope:+.2f} for each 100,000 after warm-up")
        print(f"({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
