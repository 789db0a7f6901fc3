"""What a program may pass through its graph: objects with code of their own, huge ones, changing ones.

Each row is a process, and where code of the user's is counted, so is that of its unmonitored twin.
"""

from __future__ import annotations

import collections
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from faults_zygote import Zygote
from rows import Row

__all__ = ["objects"]

MAX_CAPTURE_MS: Final = 5.0
P99_TURNS: Final = 100
MAX_ROW_BYTES: Final = 1024 * 1024
MAX_GROWTH_MB: Final = 5.0
CHANGES: Final = 1000
BLOCK_SECONDS: Final = 60.0
#: What a passage of the zoo may take more than the twin's, in the median, on a shared machine: on a
#: quiet one it takes some 0.7 ms. Not asked among the tests.
MAX_MORE_MS: Final = 3.0
_WAYS: Final = ("Raises", "Blocks", "Recurses", "Changes")
#: What is stored of those that are not known: their type.
_MARKS: Final = {
    **{f"{way}Object": f"<faults_objects.{way}Object>" for way in _WAYS},
    "Lazy": "<faults_objects._zoo.<locals>.Lazy>", "generator": "<generator>",
    "lock": "<_thread.lock>", "file": "<_io.TextIOWrapper>", "cycle": ["<cycle>"],
}  # fmt: skip

_SPECIAL: Final = (
    "repr", "str", "iter", "len", "bool", "hash", "eq", "getitem", "contains", "call", "enter",
    "float", "int", "index", "array", "reduce_ex", "deepcopy", "copy", "format", "dir", "sizeof",
)  # fmt: skip
_ORDINARY: Final = ("model_dump", "dict", "json", "to_dict", "keys", "items")
_METHODS: Final = (*(f"__{name}__" for name in _SPECIAL), *_ORDINARY)


def _acts(calls: collections.Counter[str], touch: Callable[[], None]) -> dict[str, Any]:
    """Return what the methods of hostile classes do: each is counted before it does its worst."""
    released = threading.Event()

    def recurse(self: Any) -> Any:
        return recurse(self)

    def change(self: Any) -> Any:
        touch()

    def raises(self: Any) -> Any:
        raise SystemExit("hostile")

    def blocks(self: Any) -> Any:
        released.wait(BLOCK_SECONDS)

    return {"raises": raises, "blocks": blocks, "recurses": recurse, "changes": change}


def _hostile(name: str, base: type, act: Any, calls: collections.Counter[str]) -> type:
    def method(what: str) -> Any:
        def call(self: Any, *args: Any, **named: Any) -> Any:
            calls[f"{name}.{what}"] += 1
            return act(self)

        return call

    made = {what: method(what) for what in _METHODS}
    made["prop"] = property(method("prop"))
    made["__getattr__"] = method("__getattr__")
    return type(name, (base,), made)


def _zoo(calls: collections.Counter[str], monitor: Any) -> dict[str, Any]:
    """Make one of each: hostile in four ways, of four bases; and things that must stay untouched."""
    container: dict[str, Any] = {}

    def touch() -> None:
        container["more"] = 1
        if monitor is not None:
            monitor.recorder.start(1 << 90, None, {"kind": "tool", "name": "from inside"})

    for how, act in _acts(calls, touch).items():
        for base in (object, dict, list, str):
            name = f"{how.capitalize()}{base.__name__.capitalize()}"
            container[name] = _hostile(name, base, act, calls)()

    class Lazy:
        """As an object-relational mapper's: reading an attribute asks a database."""

        @property
        def orders(self) -> Any:
            calls["Lazy.orders"] += 1
            return []

    def numbers() -> Iterator[int]:
        calls["generator"] += 1
        yield 1

    cycle: list[Any] = []
    cycle.append(cycle)
    container |= {
        "Lazy": Lazy(), "generator": numbers(), "cycle": cycle, "lock": threading.Lock(),
        "file": open(__file__),  # noqa: SIM115, PTH123 - it is passed around, open
    }  # fmt: skip
    return container


def hostile_child(cell: dict[str, Any], side: Path) -> None:
    """Pass the zoo through a chain and a graph; write what was called of it, and what was stored."""
    from langchain_core.runnables import RunnableLambda
    from langgraph.graph import START, StateGraph

    calls: collections.Counter[str] = collections.Counter()
    monitor = config = None
    if cell["monitored"]:
        from llmops_core import Monitor
        from llmops_integrations.langgraph import LangGraphHandler

        monitor = Monitor("memory:", content_limit=100_000)
        config = {"callbacks": [LangGraphHandler(monitor)]}
    zoo = _zoo(calls, monitor)
    builder = StateGraph(dict)
    builder.add_node("pass", lambda state: state)
    builder.add_edge(START, "pass")
    programs = [RunnableLambda(lambda x: x), builder.compile()]
    ms = []
    for program in programs * cell["turns"]:
        began = time.perf_counter()
        program.invoke(zoo, config)
        ms.append((time.perf_counter() - began) * 1000)
    came: dict[str, Any] = {"calls": dict(calls), "ms": statistics.median(ms)}
    came["position"] = zoo["file"].tell()
    if monitor is not None:
        came["flushed"] = monitor.flush(20).complete
        came["inputs"] = monitor.query()["input"].to_pylist()
        came["failures"] = monitor.stats()["failures"]
        monitor.close()
    side.write_text(json.dumps(came))


def changing_child(cell: dict[str, Any], side: Path) -> None:
    """Let each node change its state as soon as it has it; count the spans with the old value."""
    from langchain_core.runnables import RunnableLambda

    from llmops_core import Monitor
    from llmops_integrations.langchain import LLMOpsCallbackHandler

    def spoil(state: dict[str, Any]) -> dict[str, Any]:
        state["deep"]["list"].append("later")
        state["deep"]["n"] = -1
        return state

    with Monitor("memory:") as monitor:
        config = {"callbacks": [LLMOpsCallbackHandler(monitor)]}
        program = RunnableLambda(spoil)
        for number in range(cell["turns"]):
            program.invoke({"deep": {"n": number, "list": []}}, config)
        flushed = monitor.flush(20).complete
        rows = monitor.query().to_pylist()
    right = {f'{{"deep":{{"list":[],"n":{n}}}}}' for n in range(cell["turns"])}
    right |= {f'{{"deep":{{"n":{n},"list":[]}}}}' for n in range(cell["turns"])}
    good = sum(row["input"].replace(" ", "") in right for row in rows)
    changed = sum('"later"' in row["output"] for row in rows)
    side.write_text(json.dumps({"good": good, "changed": changed, "flushed": flushed}))


def _large(name: str) -> Any:
    if name == "state of 100 MB":
        return {"texts": ["x" * 1_000_000 for _ in range(100)]}
    if name == "dict of 1,000,000 keys":
        return {f"key {n}": n for n in range(1_000_000)}
    if name == "list nested 100,000 deep":
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        return deep
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000_000}}


LARGE: Final = (
    "state of 100 MB", "dict of 1,000,000 keys", "list nested 100,000 deep", "image of 50 MB",
)  # fmt: skip


def large_child(cell: dict[str, Any], side: Path) -> None:
    """Hand a large object to the handler again and again; write what each call took of its thread."""
    from uuid import uuid4

    import psutil

    from llmops_core import Monitor
    from llmops_integrations.langchain import LLMOpsCallbackHandler

    given, ms = _large(cell["what"]), []
    with Monitor("memory:", content_limit=MAX_ROW_BYTES // 8) as monitor:
        handler = LLMOpsCallbackHandler(monitor)
        process, before = psutil.Process(), 0
        for turn in range(cell["turns"] + 5):
            if turn == 5:  # imports and caches are behind us
                ms.clear()
                monitor.flush(20)
                before = process.memory_info().rss
            run = uuid4()
            began = time.thread_time()
            handler.on_chain_start(None, given, run_id=run, name="large")
            ms.append((time.thread_time() - began) * 1000)
            handler.on_chain_end({}, run_id=run)
            monitor.flush(20)
        grown = (process.memory_info().rss - before) / 2**20
        row = monitor.query(limit=1).to_pylist()[0]
        stored = monitor.stats()["spans"]["stored"]
    kept = len((row["input"] or "").encode()) * (cell["turns"])
    # Among the tests there are too few to tell the slowest of a hundred from a pause of the machine.
    few = cell["turns"] < P99_TURNS
    came = {
        "figure": "median" if few else "p99",
        "ms": statistics.median(ms) if few else statistics.quantiles(ms, n=100)[98],
        "stored": stored, "grown": grown,
        "kept_mb": kept / 2**20, "bytes": len((row["input"] or "").encode()),
        "truncated": row["input_truncated"], "size": row["input_size"], "hash": row["input_hash"],
    }  # fmt: skip
    side.write_text(json.dumps(came))
    os._exit(0)  # a list 100,000 deep need not be taken down


def objects(quick: bool) -> Iterator[Row]:
    """Yield the rows of hostile, changing and large objects."""
    zygote = Zygote()
    try:
        turns, most_ms = (20, float("inf")) if quick else (200, MAX_MORE_MS)
        yield _hostile_row(zygote, turns, most_ms)
        cell = {"run": "faults_objects:changing_child", "turns": CHANGES}
        came = zygote.run(cell)["record"]
        good = came.get("good") == came.get("changed") == CHANGES and came["flushed"]
        detail = f"{came.get('good')} of {CHANGES} inputs as they were at the callback"
        yield Row(
            "faults", "state changed right after the callback", "langchain sync", good, detail
        )
        for what in LARGE:
            yield _large_row(zygote, what, 20 if quick else P99_TURNS)
    finally:
        zygote.close()


def _unmarked(told: str) -> list[str]:
    """Return those of the zoo that are stored as something else than their type."""
    values = json.loads(told)
    return [name for name, mark in _MARKS.items() if values.get(name) != mark]


def _hostile_row(zygote: Zygote, turns: int, most_ms: float) -> Row:
    cell = {"run": "faults_objects:hostile_child", "turns": turns}
    twin = zygote.run({**cell, "monitored": False})["record"]
    ran = zygote.run({**cell, "monitored": True})
    came = ran["record"]
    where = "both, sync"
    if "inputs" not in came:
        return Row("faults", "hostile objects", where, False, ran["stderr"][-500:])
    extra = {n: c - twin["calls"].get(n, 0) for n, c in came["calls"].items()}
    called = {n: c for n, c in extra.items() if c}
    told = came["inputs"][0]
    missing = _unmarked(told)
    passed = (
        not called and not missing and came["flushed"] and not came["failures"]
        and came["position"] == 0 and len(came["inputs"]) == 3 * turns
        and came["ms"] - twin["ms"] <= most_ms
    )  # fmt: skip
    detail = (
        f"their code called {sum(called.values())} times (twin: {sum(twin['calls'].values())}); "
        f"a call {came['ms'] - twin['ms']:+.2f} ms"
    )
    if not passed:
        detail += f"; {called} {missing} {came['failures']} {told[:300]}"
    return Row("faults", "hostile objects", where, passed, detail)


def _large_row(zygote: Zygote, what: str, turns: int) -> Row:
    ran = zygote.run({"run": "faults_objects:large_child", "what": what, "turns": turns})
    came = ran["record"]
    if not came:
        return Row("faults", what, "langchain sync", False, ran["stderr"][-500:])
    passed = (
        came["ms"] <= MAX_CAPTURE_MS and came["bytes"] <= MAX_ROW_BYTES and came["truncated"]
        and came["hash"] and came["grown"] - came["kept_mb"] <= MAX_GROWTH_MB
        and came["stored"] == turns + 5
    )  # fmt: skip
    detail = (
        f"{came['figure']} {came['ms']:.2f} ms of its thread; "
        f"{came['bytes']:,} of {came['size']:,} bytes stored; "
        f"memory {came['grown']:+.1f} MB, {came['kept_mb']:.1f} of it stored text"
    )
    return Row("faults", what, "langchain sync", bool(passed), detail)
