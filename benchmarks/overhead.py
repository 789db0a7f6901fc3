"""What monitoring costs the application, as a ratio of CPU time to the same work without it.

One process; rounds of blocks of a second, the variants of a round in random order, so that a noisy
machine hits all of them alike. A block of ours includes the flush to Parquet. Prints, for each
scenario and variant, the median of the per-round ratios with a bootstrap 95 % interval::

    python benchmarks/overhead.py                      # about three quarters of an hour
    python benchmarks/overhead.py --rounds 10 --block-seconds 0.25 --only graph-sync
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from ratios import interval

from llmops_core import Monitor
from llmops_integrations.langchain import LLMOpsCallbackHandler

Work = Callable[[list[Any]], None]


class AppendTuple(BaseCallbackHandler):
    """The floor: a handler that appends one tuple for each event and does nothing else."""

    run_inline = True

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def _add(self, what: str, data: Any, **kw: Any) -> None:
        self.rows.append((what, kw.get("run_id"), kw.get("parent_run_id"), time.monotonic_ns()))

    def on_chain_start(self, serialized: Any, inputs: Any, **kw: Any) -> None:
        self._add("start", inputs, **kw)

    def on_chain_end(self, outputs: Any, **kw: Any) -> None:
        self._add("end", outputs, **kw)

    def on_chat_model_start(self, serialized: Any, messages: Any, **kw: Any) -> None:
        self._add("start", messages, **kw)

    def on_llm_new_token(self, token: str, **kw: Any) -> None:
        return None

    def on_llm_end(self, response: Any, **kw: Any) -> None:
        self._add("end", response, **kw)


class State(TypedDict, total=False):
    text: str
    turn: int
    blob: Any
    messages: list[Any]


def graph(nodes: int, text: str = "x" * 200) -> Any:
    """A chain of nodes; with its root, ``2 * nodes + 2`` events."""
    builder = StateGraph(State)
    previous = START

    def step(state: State) -> State:
        return {"text": text, "turn": state.get("turn", 0) + 1}

    for number in range(nodes):
        builder.add_node(f"node_{number}", step)
        builder.add_edge(previous, f"node_{number}")
        previous = f"node_{number}"
    builder.add_edge(previous, END)
    return builder.compile()


def scenarios() -> dict[str, Work]:
    """Each scenario runs one unit of work with the callbacks that it is given."""
    small, loop = graph(24), asyncio.new_event_loop()
    # The model splits at blanks and keeps them: each word and each blank is a token.
    message = AIMessage("word " * 25)
    model = GenericFakeChatModel(messages=iter(lambda: message, None))
    big = {"blob": {f"k{i}": "y" * 5_000 for i in range(1_000)}, "text": "a"}
    history = [HumanMessage(f"message {i} " + "z" * 200) for i in range(200)]

    def config(callbacks: list[Any]) -> Any:
        return {"callbacks": callbacks}

    def graph_sync(callbacks: list[Any]) -> None:
        small.invoke({"text": "a" * 200}, config(callbacks))

    def graph_async(callbacks: list[Any]) -> None:
        loop.run_until_complete(small.ainvoke({"text": "a" * 200}, config(callbacks)))

    def stream(callbacks: list[Any]) -> None:
        tokens = sum(bool(chunk.content) for chunk in model.stream("hello", config(callbacks)))
        if tokens != 50:
            raise SystemExit(f"the stream has {tokens} tokens, so the figure says nothing")

    def big_state(callbacks: list[Any]) -> None:
        small.invoke(big, config(callbacks))

    def messages(callbacks: list[Any]) -> None:
        small.invoke({"messages": history, "text": "a"}, config(callbacks))

    def concurrent(callbacks: list[Any]) -> None:
        async def many() -> None:
            await asyncio.gather(
                *(small.ainvoke({"text": "a" * 200}, config(callbacks)) for _ in range(100))
            )

        loop.run_until_complete(many())

    return {
        "graph-sync": graph_sync,
        "graph-async": graph_async,
        "stream-50-tokens": stream,
        "state-5MB": big_state,
        "messages-200": messages,
        "concurrent-100": concurrent,
    }


def measure(work: Callable[[], None], times: int, after: Callable[[], Any]) -> tuple[float, float]:
    """Return CPU seconds of the calling thread, and of the process with what comes after."""
    thread, process = time.thread_time(), time.process_time()
    for _ in range(times):
        work()
    caller = time.thread_time() - thread
    after()
    return caller, time.process_time() - process


def flushed(monitor: Monitor) -> None:
    """Store what was recorded, all of it."""
    report = monitor.flush(60)
    if not report.complete or report.dropped:
        raise SystemExit(f"not all was stored, so the figure says nothing: {report}")


def compare(name: str, work: Work, monitor: Monitor, rounds: int, block: float) -> None:
    """Run one scenario in interleaved rounds and print its rows."""
    rng = random.Random(1)
    floor = AppendTuple()
    ours = LLMOpsCallbackHandler(monitor)
    variants: dict[str, tuple[Callable[[], None], Callable[[], Any]]] = {
        "none": (lambda: work([]), lambda: None),
        "tuple": (lambda: work([floor]), floor.rows.clear),
        "ours": (lambda: work([ours]), lambda: flushed(monitor)),
    }
    for run, after in variants.values():
        measure(run, 2, after)
    one = measure(variants["none"][0], 5, lambda: None)[1] / 5
    times = max(1, round(block / one))
    caller: dict[str, list[float]] = {"tuple": [], "ours": []}
    total: dict[str, list[float]] = {"tuple": [], "ours": []}
    for _ in range(rounds):
        order = list(variants)
        rng.shuffle(order)
        got = {v: measure(variants[v][0], times, variants[v][1]) for v in order}
        for variant in ("tuple", "ours"):
            caller[variant].append(got[variant][0] / got["none"][0])
            total[variant].append(got[variant][1] / got["none"][1])
    for variant in ("tuple", "ours"):
        on_caller, whole = interval(caller[variant], rng), interval(total[variant], rng)
        print(
            f"{name:18} {variant:6} caller {on_caller[0]:5.2f} [{on_caller[1]:.2f}, {on_caller[2]:.2f}]"
            f"   in all {whole[0]:5.2f} [{whole[1]:.2f}, {whole[2]:.2f}]"
            f"   ({one * 1e3:.2f} ms a run, {times} runs a block, {rounds} rounds)",
            flush=True,
        )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--block-seconds", type=float, default=1.0)
    parser.add_argument("--only", choices=list(scenarios()), action="append")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}; ratio of CPU time to no callbacks")
    with tempfile.TemporaryDirectory() as folder:
        monitor = Monitor(f"parquet:{Path(folder) / 'data'}")
        for name, work in scenarios().items():
            if not options.only or name in options.only:
                compare(name, work, monitor, options.rounds, options.block_seconds)
        stats = monitor.stats()
        monitor.close(60)
    print(f"events {stats['events']}")
    print(f"spans {stats['spans']}, failures {stats['failures']}")
    lost = (
        stats["events"]["dropped"] or stats["spans"]["dropped"] or stats["events"]["content_shed"]
    )
    if lost:
        print(f"dropped or shed: {lost}; the figures say nothing")
    return bool(lost)


if __name__ == "__main__":
    raise SystemExit(main())
