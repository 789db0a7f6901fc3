"""Many event loops in one program, one after the other; ``python exits_loops.py URL``. Prints JSON."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from llmops_core import Monitor, monitor_llm

RUNS = 200


def with_uvloop(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


def with_trio(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    import trio

    trio.run(work)


def others() -> dict[str, Callable[[Any], None]]:
    """Return how to run something on the other sorts of loops that are installed."""
    known = {"uvloop": with_uvloop, "trio": with_trio}
    return {name: run for name, run in known.items() if importlib.util.find_spec(name)}


def main(url: str) -> None:
    monitor = Monitor(url)
    expected: dict[str, int] = {}

    def named(name: str, outcome: str = "ok") -> Callable[[Any], Any]:
        expected[f"{name} {outcome}"] = expected.get(f"{name} {outcome}", 0) + 1
        return monitor_llm(name, monitor=monitor)

    async def nothing() -> None:
        """Return."""

    async def forever() -> None:
        await asyncio.sleep(3600)

    for _ in range(RUNS):
        asyncio.run(named("asyncio")(nothing)())
    for name, run in others().items():
        for _ in range(20):
            run(named(name)(nothing))

    async def cancel() -> None:
        task = asyncio.ensure_future(named("cancelled", "cancelled")(forever)())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def leave_open() -> None:
        left.append(asyncio.ensure_future(named("left", "cancelled")(forever)()))
        await asyncio.sleep(0)

    left: list[Any] = []  # asyncio.run cancels what is left when it closes its loop
    for _ in range(20):
        asyncio.run(cancel())
        asyncio.run(leave_open())
    complete = monitor.flush(30).complete
    print(
        json.dumps({"expected": expected, "complete": complete, "stats": monitor.stats()["events"]})
    )


if __name__ == "__main__":
    main(sys.argv[1])
