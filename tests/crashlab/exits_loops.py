"""Many event loops in one program, one after the other; ``python exits_loops.py URL SORT``. Prints JSON.

A sort of loop is one registration: each is a program of its own, as some of them patch all of Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

if sys.argv[2:] == ["gevent"]:  # before anything else, as its own documentation says
    importlib.import_module("gevent.monkey").patch_all()

from llmops_core import Monitor, monitor_llm

__all__ = ["SORTS"]

Work = Callable[[], Coroutine[Any, Any, Any]]
RUNS: Final = 200
FEW: Final = 20
#: What must be installed for a sort → how it is run, with what names a function.
SORTS: Final[dict[str, Callable[[Named], None]]] = {}


def sort(name: str) -> Callable[[Any], Any]:
    """Register a sort of loops by the package that it needs."""

    def register(run: Any) -> Any:
        SORTS[name] = run
        return run

    return register


async def nothing() -> None:
    """Return."""


@sort("asyncio")
def _plain(named: Named) -> None:
    for _ in range(RUNS):
        asyncio.run(named("asyncio")(nothing)())
    _cut(asyncio.run, named)
    _lose_loops(named)


def _lose_loops(named: Named) -> None:
    """Close loops in which a run is still open: nobody cancels it, and nobody goes on with it."""

    async def forever() -> None:
        await asyncio.sleep(3600)

    async def begin() -> None:
        left.append(asyncio.ensure_future(named("lost", "abandoned")(forever)()))
        await asyncio.sleep(0)

    for _ in range(FEW):
        left: list[Any] = []
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # that a task is pending is what we do here
        loop.run_until_complete(begin())
        loop.close()
        left.clear()
    gc.collect()  # a task and its coroutine hold each other


@sort("langgraph")
def _langgraph(named: Named) -> None:
    """A graph of LangGraph with our handler, in loops that come and go, beside decorated functions."""
    from langgraph.graph import END, START, StateGraph

    from llmops_integrations.langgraph import monitor_graph

    async def node(state: dict[str, int]) -> dict[str, int]:
        return {"number": await named("inner of node")(double)(state["number"])}

    async def double(number: int) -> int:
        return 2 * number

    builder = StateGraph(dict)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    graph = monitor_graph(builder.compile(name="graph"), monitor=named.monitor)
    for _ in range(FEW):
        assert asyncio.run(graph.ainvoke({"number": 1})) == {"number": 2}
        named.expect("graph", "ok")
        named.expect("node of graph", "ok")


@sort("uvloop")
def _uvloop(named: Named) -> None:
    import uvloop

    def run(work: Coroutine[Any, Any, Any]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)

    for _ in range(FEW):
        run(named("uvloop")(nothing)())
    _cut(run, named)


def _cut(run: Callable[[Coroutine[Any, Any, Any]], Any], named: Named) -> None:
    """Cancel runs, and leave some open when their loop ends."""

    async def forever() -> None:
        await asyncio.sleep(3600)

    async def cancel() -> None:
        task = asyncio.ensure_future(named("cancelled", "cancelled")(forever)())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def leave_open() -> None:
        left.append(asyncio.ensure_future(named("left", "cancelled")(forever)()))
        await asyncio.sleep(0)

    left: list[Any] = []  # the runner cancels what is left when it closes its loop
    for _ in range(FEW):
        run(cancel())
        run(leave_open())


@sort("nest_asyncio")
def _nested(named: Named) -> None:
    import nest_asyncio

    nest_asyncio.apply()

    async def outer() -> None:
        asyncio.run(named("inner of outer")(nothing)())
        loop = asyncio.get_running_loop()
        loop.run_until_complete(named("inner of outer")(nothing)())

    for _ in range(FEW):
        asyncio.run(named("outer")(outer)())


@sort("trio")
def _trio(named: Named) -> None:
    _anyio("trio", named)


@sort("anyio")
def _anyio_over_asyncio(named: Named) -> None:
    _anyio("asyncio", named)


def _anyio(backend: str, named: Named) -> None:
    import anyio

    async def outer() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(named("inner of outer")(nothing))

    async def forever() -> None:
        await anyio.sleep(3600)

    async def cut_off() -> None:
        with anyio.move_on_after(0.001):
            await named("cut", "cancelled")(forever)()

    for _ in range(FEW):
        anyio.run(named("outer")(outer), backend=backend)
        anyio.run(cut_off, backend=backend)


@sort("gevent")
def _gevent(named: Named) -> None:
    import gevent

    def outer() -> None:
        gevent.sleep(0.001)
        named("inner of outer")(gevent.sleep)(0.001)

    def kill_one() -> None:
        job = gevent.spawn(named("killed", "cancelled")(gevent.sleep), 3600)
        gevent.sleep(0.001)
        job.kill()

    gevent.joinall([gevent.spawn(named("outer")(outer)) for _ in range(5 * FEW)], raise_error=True)
    gevent.joinall([gevent.spawn(kill_one) for _ in range(FEW)], raise_error=True)


class Named:
    """Gives a function a name and a monitor, and counts what must be found."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.expected: dict[str, int] = {}

    def __call__(self, what: str, outcome: str = "ok") -> Callable[[Any], Any]:
        """Return the decorator for one run of *what*: a name, or ``NAME of PARENT``."""
        self.expect(what, outcome)
        return monitor_llm(what.partition(" of ")[0], monitor=self.monitor)

    def expect(self, what: str, outcome: str) -> None:
        """Count a run that something else records."""
        self.expected[f"{what} {outcome}"] = self.expected.get(f"{what} {outcome}", 0) + 1


def main(url: str, name: str) -> None:
    """Run the loops of one sort; print what must be found."""
    named = Named(Monitor(url))
    SORTS[name](named)
    complete = named.monitor.flush(60).complete
    stats = named.monitor.stats()["events"]
    print(json.dumps({"expected": named.expected, "complete": complete, "stats": stats}))


if __name__ == "__main__":
    main(*sys.argv[1:])
