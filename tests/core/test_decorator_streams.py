"""Decorated generators: one span each, and everything passes through as it is."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import inspect
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from llmops_core import (
    Span,
    monitor_llm,
)
from llmops_core.decorating import items
from llmops_core.testing.fixtures import CapturedSpans, spans

__all__ = ["spans"]


def tree(spans: CapturedSpans) -> str:
    return spans.tree(content=True)


def in_order(spans: CapturedSpans) -> list[Span]:
    """Return the spans as they started; a query gives the newest first."""
    return sorted(spans(), key=lambda span: span.start_time)


# ---- generators ----


def test_a_generator_is_one_span_with_its_first_item_and_its_text(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def stream(text: str) -> Iterator[str]:
        yield from text

    generator = stream("abc")
    assert inspect.isgenerator(generator)
    assert list(generator) == ["a", "b", "c"]
    (span,) = spans()
    assert (span.input, span.output, span.outcome) == ("abc", "abc", "ok")
    assert span.ttft_ms is not None
    assert span.duration_ms is not None
    assert 0 < span.ttft_ms < span.duration_ms


def test_a_generator_passes_on_what_is_sent_thrown_and_returned(spans: CapturedSpans) -> None:
    log: list[object] = []

    @monitor_llm(monitor=spans.monitor)
    def talk() -> Any:
        try:
            log.append((yield 1))
        except ValueError as error:
            log.append(error)
            log.append((yield 2))
        return "done"

    generator = talk()
    assert next(generator) == 1
    error = ValueError("thrown")
    assert generator.throw(error) == 2
    with pytest.raises(StopIteration) as stop:
        generator.send("sent")
    assert (stop.value.value, log) == ("done", [error, "sent"])
    assert [(s.output, s.outcome) for s in in_order(spans)] == [("[1,2]", "ok")]


def test_the_children_of_a_generator_are_its_body_and_not_its_consumer(
    spans: CapturedSpans,
) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf(where: str) -> None: ...

    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[int]:
        for n in range(2):
            leaf("body")
            yield n

    @monitor_llm(monitor=spans.monitor)
    def top() -> None:
        for _ in stream():
            leaf("consumer")

    top()
    assert tree(spans).replace("    in: ", " ").count("leaf") == 4
    found = {s.span_id: s for s in spans()}
    parents = {(s.input, found[s.parent_id or ""].name) for s in found.values() if s.name == "leaf"}
    assert parents == {("body", "stream"), ("consumer", "top")}


def test_a_generator_belongs_to_where_it_was_made(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[str]:
        yield "a"

    @monitor_llm(monitor=spans.monitor)
    def handler() -> Iterator[str]:
        return stream()

    made = handler()
    assert list(made) == ["a"]  # read after the handler has returned, as web frameworks do
    assert spans.tree() == "workflow handler ok\n  chain stream ok streamed\n"


def test_a_generator_left_early_is_abandoned_and_closed(spans: CapturedSpans) -> None:
    closed = []

    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[str]:
        try:
            yield "a"
            yield "b"
        finally:
            closed.append(True)

    for _ in stream():
        break
    assert closed == [True]
    assert [(s.outcome, s.output) for s in in_order(spans)] == [("abandoned", "a")]


def test_a_generator_that_raises_is_an_error_with_what_it_gave(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[str]:
        yield "a"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(stream())
    assert [(s.outcome, s.output, s.error_message) for s in in_order(spans)] == [
        ("error", "a", "gone")
    ]


async def test_an_async_generator_passes_everything_on(spans: CapturedSpans) -> None:
    log: list[object] = []

    @monitor_llm(monitor=spans.monitor)
    async def talk(text: str) -> Any:
        try:
            log.append((yield text))
        except ValueError:
            log.append("caught")
            yield {"n": 2}

    generator = talk("a")
    assert inspect.isasyncgen(generator)
    assert await generator.__anext__() == "a"
    assert await generator.athrow(ValueError()) == {"n": 2}
    with pytest.raises(StopAsyncIteration):
        await generator.asend(None)
    other = talk("b")
    await other.__anext__()
    with pytest.raises(StopAsyncIteration):
        await other.asend("sent")
    assert log == ["caught", "sent"]
    found = await asyncio.to_thread(in_order, spans)
    assert [(s.output, s.outcome) for s in found] == [('["a",{"n":2}]', "ok"), ("b", "ok")]


async def test_an_async_generator_left_early_is_abandoned(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    async def stream() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    async with contextlib.aclosing(stream()) as items:  # type: ignore[type-var]
        async for _ in items:
            break
    found = await asyncio.to_thread(in_order, spans)
    assert [(s.outcome, s.output) for s in found] == [("abandoned", "a")]


def test_items_are_copied_when_they_are_yielded(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[dict[str, int]]:
        state = {"n": 0}
        for n in range(3):
            state["n"] = n
            yield state

    list(stream())
    assert [s.output for s in in_order(spans)] == ['[{"n":0},{"n":1},{"n":2}]']


def test_an_endless_stream_is_kept_within_bounds(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[Any]:
        yield {"first": 1}
        for _ in range(5_000):
            yield "x" * 1_000

    list(stream())
    (span,) = spans()
    assert span.output_truncated
    assert len(span.output or "") < 1_100_000


def test_of_a_huge_text_item_only_what_is_kept_is_joined(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "MAX_CHARS", 5)
    joined: list[object] = []
    recorder: Any = spans.monitor.recorder
    freeze = recorder.freeze
    monkeypatch.setattr(recorder, "freeze", lambda value: joined.append(value) or freeze(value))

    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[str]:
        yield "abc"
        yield "d" * 1_000
        yield "e"

    list(stream())
    assert "abcdd" in joined
    (span,) = spans()
    assert (span.output, span.output_truncated) == ("abcdd", True)


# ---- what others take it for ----


@monitor_llm
def loud(chunks: Iterator[str], *, mark: str = "!") -> Iterator[str]:
    """Shout."""
    for chunk in chunks:
        yield chunk.upper() + mark


@monitor_llm
async def slow_loud(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    async for chunk in chunks:
        yield chunk.upper()


class Desk:
    @monitor_llm
    def said(self, text: str) -> Iterator[str]:
        yield text

    @classmethod
    @monitor_llm
    def named(cls) -> Iterator[str]:
        yield cls.__name__

    @monitor_llm
    @staticmethod
    def alone(text: str) -> Iterator[str]:
        yield text


def test_a_decorated_generator_function_is_one_to_who_asks(spans: CapturedSpans) -> None:
    assert inspect.isgeneratorfunction(loud)
    assert inspect.isgeneratorfunction(Desk().said)
    assert inspect.isgeneratorfunction(functools.partial(loud, mark="?"))
    assert inspect.isasyncgenfunction(slow_loud)
    assert not inspect.isasyncgenfunction(loud)
    assert (
        str(inspect.signature(loud))
        == "(chunks: 'Iterator[str]', *, mark: 'str' = '!') -> 'Iterator[str]'"
    )
    assert (loud.__doc__, loud.__name__, loud.__module__) == ("Shout.", "loud", __name__)
    assert pickle.loads(pickle.dumps(loud)) is loud
    assert copy.deepcopy(loud) is loud


def test_generator_methods_bind_as_methods_do(spans: CapturedSpans) -> None:
    desk = Desk()
    assert [*desk.said("a"), *Desk.named(), *Desk.alone("b"), *desk.alone("c")] == [
        "a",
        "Desk",
        "b",
        "c",
    ]
    assert inspect.ismethod(desk.said)


def test_a_runnable_streams_through_a_decorated_generator_function(spans: CapturedSpans) -> None:
    runnables = pytest.importorskip("langchain_core.runnables")

    def letters(given: Iterator[str]) -> Iterator[str]:
        yield "a"
        yield "b"

    assert list((runnables.RunnableGenerator(letters) | loud).stream("x")) == ["A!", "B!"]


def test_an_object_whose_call_is_async_or_a_generator_is_recorded_as_such(
    spans: CapturedSpans,
) -> None:
    class Waits:
        async def __call__(self, text: str) -> str:
            await asyncio.sleep(0)
            return text

    class Gives:
        def __call__(self, text: str) -> Iterator[str]:
            yield text

    assert asyncio.run(monitor_llm("waits", monitor=spans.monitor)(Waits())("x")) == "x"
    assert list(monitor_llm("gives", monitor=spans.monitor)(Gives())("y")) == ["y"]
    assert {span.name: span.output for span in spans()} == {"waits": "x", "gives": "y"}
