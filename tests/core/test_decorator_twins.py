"""A decorated function beside its plain twin: what differs is only that it is recorded."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from llmops_core import monitor_llm
from llmops_core.testing.fixtures import CapturedSpans, spans

__all__ = ["spans"]

Wrap = Callable[[Any], Any]


@pytest.fixture(params=["plain", "decorated"])
def wrap(request: pytest.FixtureRequest, spans: CapturedSpans) -> Wrap:
    """Both twins pass the same test."""
    if request.param == "plain":
        return lambda function: function
    return lambda function: monitor_llm(monitor=spans.monitor)(function)


# ---- closing ----


def half_read(wrap: Wrap, log: list[str], *, in_a_cycle: bool = False) -> tuple[object, list[Any]]:
    """Read one item in a loop that ends, or goes on, without the reader."""
    told: list[Any] = []

    @wrap
    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            log.append("closing")
            await asyncio.sleep(0)
            log.append("closed")

    async def main() -> object:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, what: told.append(what["message"]))
        generator = stream()
        assert await generator.__anext__() == 1
        if not in_a_cycle:
            return generator
        cycle: list[object] = [generator]
        cycle.append(cycle)
        del generator, cycle
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        return None

    return asyncio.run(main()), told


def test_the_end_of_a_loop_closes_an_async_generator_once(wrap: Wrap) -> None:
    log: list[str] = []
    _generator, told = half_read(wrap, log)
    assert (log, told) == (["closing", "closed"], [])


def test_an_async_generator_in_a_cycle_is_closed_by_its_loop(wrap: Wrap) -> None:
    log: list[str] = []
    _nothing, told = half_read(wrap, log, in_a_cycle=True)
    assert (log, told) == (["closing", "closed"], [])
