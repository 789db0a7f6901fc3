"""What a type checker must see of the public face. Checked by ``mypy --strict``, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from llmops_core import (
    FlushReport,
    Monitor,
    initialize_monitoring,
    initialize_monitoring_sync,
    monitor_llm,
    monitoring_session,
    monitoring_trace,
    shutdown,
)


@monitor_llm
def bare(text: str, times: int = 1) -> int:
    return len(text) * times


@monitor_llm("named", operation_type="llm_call", measurement={"mode": "hybrid"}, measure_text=True)
async def coroutine(text: str) -> bytes:
    return text.encode()


@monitor_llm()
def generator(text: str) -> Iterator[str]:
    yield text


@monitor_llm(collectors=["x"], measure_images=["count"])
async def async_generator(text: str) -> AsyncIterator[str]:
    yield text


class Agent:
    @monitor_llm
    def plain(self, text: str) -> str:
        return text

    @monitor_llm("c")
    @classmethod
    def of_class(cls, text: str) -> str:
        return text

    @monitor_llm
    @staticmethod
    def static(text: str) -> str:
        return text


async def use(monitor: Monitor) -> None:
    assert_type(bare("a", times=2), int)
    bare(1)  # type: ignore[arg-type]
    bare("a", nothing=1)  # type: ignore[call-arg]
    assert_type(await coroutine("a"), bytes)
    assert_type(next(generator("a")), str)
    async for item in async_generator("a"):
        assert_type(item, str)
    assert_type(Agent().plain("a"), str)
    Agent().plain(1)  # type: ignore[arg-type]
    assert_type(Agent.of_class("a"), str)
    assert_type(Agent.static("a"), str)
    assert_type(await initialize_monitoring(), Monitor)
    assert_type(initialize_monitoring_sync(monitor), Monitor)
    assert_type(shutdown(), FlushReport | None)
    with monitoring_session("s") as session, monitoring_trace("t"):
        assert_type(session, str)
    async with monitoring_trace() as trace:
        assert_type(trace, str)
