"""A decorated function beside its plain twin: what differs is only that it is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import sys
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
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


@pytest.mark.parametrize("answer", ["yields", "returns", "raises"])
def test_a_thrown_generator_exit_reaches_the_body_as_it_is(wrap: Wrap, answer: str) -> None:
    seen: list[BaseException] = []

    @wrap
    def stream() -> Any:
        try:
            yield 1
        except GeneratorExit as thrown:
            seen.append(thrown)
            if answer == "raises":
                raise
        if answer == "yields":
            yield "went on"
        return "end"

    generator, mine = stream(), GeneratorExit("mine")
    next(generator)
    if answer == "yields":
        assert generator.throw(mine) == "went on"
    else:
        with pytest.raises((StopIteration, GeneratorExit)) as left:
            generator.throw(mine)
        assert left.value is mine if answer == "raises" else left.value.args == ("end",)
    assert seen == [mine]


async def test_a_thrown_generator_exit_reaches_an_async_body_as_it_is(wrap: Wrap) -> None:
    seen: list[BaseException] = []

    @wrap
    async def stream() -> AsyncIterator[object]:
        try:
            yield 1
        except GeneratorExit as thrown:
            seen.append(thrown)
            yield "went on"

    generator, mine = stream(), GeneratorExit("mine")
    await generator.__anext__()
    assert await generator.athrow(mine) == "went on"
    assert seen == [mine]


def test_a_generator_that_ends_quietly_when_it_is_closed_is_abandoned(
    spans: CapturedSpans,
) -> None:
    @monitor_llm(monitor=spans.monitor)
    def stream() -> Iterator[str]:
        with contextlib.suppress(GeneratorExit):
            yield "a"

    generator: Any = stream()
    next(generator)
    generator.close()
    assert [(s.outcome, s.output) for s in spans()] == [("abandoned", "a")]


# ---- of which sort it is ----


async def test_a_coroutine_made_of_a_generator_is_awaited(wrap: Wrap) -> None:
    @wrap
    @types.coroutine
    def answer(question: str) -> Any:
        yield from asyncio.sleep(0).__await__()
        return question.upper()

    assert await answer("why") == "WHY"
    made = answer("why")
    assert inspect.isawaitable(made)
    made.close()


async def test_a_coroutine_made_of_a_generator_is_recorded_as_one(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    @types.coroutine
    def answer(question: str) -> Any:
        yield from asyncio.sleep(0).__await__()
        if question == "fail":
            raise OSError("gone")
        return question.upper()

    assert await answer("why") == "WHY"
    with pytest.raises(OSError, match="gone"):
        await answer("fail")
    found = {(s.input, s.outcome, s.output, s.error_message) for s in spans()}
    assert found == {("why", "ok", "WHY", None), ("fail", "error", None, "gone")}


def test_a_generator_has_the_name_of_its_function(wrap: Wrap) -> None:
    @wrap
    def letters() -> Iterator[str]:
        yield "a"

    @wrap
    async def later() -> AsyncIterator[str]:
        yield "a"

    for made, name in ((letters(), "letters"), (later(), "later")):
        assert made.__name__ == name
        assert made.__qualname__.endswith(f"<locals>.{name}")


# ---- what stays alive ----


class Big:
    """Something whose life can be watched."""


def read_one(wrap: Wrap) -> tuple[object, Any]:
    @wrap
    def stream() -> Iterator[Any]:
        yield Big()
        yield None

    generator: Any = stream()
    return generator, weakref.ref(next(generator))


def send_one(wrap: Wrap) -> tuple[object, Any]:
    @wrap
    def stream() -> Any:
        yield
        yield

    generator, sent = stream(), Big()
    next(generator)
    generator.send(sent)
    return generator, weakref.ref(sent)


def give_one(wrap: Wrap) -> tuple[object, Any]:
    @wrap
    def stream(given: Big) -> Iterator[None]:
        del given
        yield

    given = Big()
    generator: Any = stream(given)
    next(generator)
    return generator, weakref.ref(given)


def throw_one(wrap: Wrap) -> tuple[object, Any]:
    @wrap
    def stream() -> Any:
        with contextlib.suppress(ValueError):
            yield
        yield

    class Thrown(ValueError):
        pass

    generator, thrown = stream(), Thrown()
    next(generator)
    generator.throw(thrown)
    return generator, weakref.ref(thrown)


def throw_through(wrap: Wrap) -> tuple[object, Any]:
    @wrap
    def stream() -> Any:
        yield

    class Thrown(ValueError):
        pass

    generator, thrown = stream(), Thrown()
    watched = weakref.ref(thrown)
    next(generator)
    try:
        generator.throw(thrown)
    except ValueError:
        del thrown
    return generator, watched


def throw_through_async(wrap: Wrap) -> tuple[object, Any]:
    @wrap
    async def stream() -> Any:
        yield

    class Thrown(ValueError):
        pass

    async def main() -> tuple[object, Any]:
        generator, thrown = stream(), Thrown()
        watched = weakref.ref(thrown)
        await generator.__anext__()
        try:
            await generator.athrow(thrown)
        except ValueError:
            del thrown
        return generator, watched

    return asyncio.run(main())


@pytest.mark.parametrize(
    "use", [read_one, send_one, give_one, throw_one, throw_through, throw_through_async]
)
def test_a_generator_keeps_nothing_that_its_twin_lets_go(
    wrap: Wrap, use: Callable[[Wrap], tuple[object, Any]]
) -> None:
    gc.disable()  # what a cycle keeps would go with it
    try:
        _generator, watched = use(wrap)
        assert watched() is None
    finally:
        gc.enable()


# ---- near the limit of recursion ----


def deepest(function: Callable[[], object]) -> int:
    """Return how deep a function can be called before a RecursionError leaves it."""

    def down(levels: int) -> object:
        return down(levels - 1) if levels else function()

    room = 0
    with contextlib.suppress(RecursionError):
        for room in range(sys.getrecursionlimit()):
            down(room)
    return room


def test_a_call_near_the_limit_of_recursion_is_made_while_there_is_room_for_it(
    spans: CapturedSpans,
) -> None:
    def leaf() -> int:
        return 1

    decorated = monitor_llm(monitor=spans.monitor)(leaf)
    assert deepest(decorated) == deepest(leaf) - 1  # the frame around it, and no more


# ---- what else it can do ----


def test_nothing_that_a_decorated_object_holds_is_asked_what_it_is(wrap: Wrap) -> None:
    class Asked:
        @property
        def __class__(self) -> Any:
            raise SystemExit("asked")

    class Answers:
        helper = Asked()

        def __call__(self) -> int:
            return 7

    assert wrap(Answers())() == 7


def test_what_is_thrown_into_a_generator_is_not_asked_what_it_is(wrap: Wrap) -> None:
    asked: list[str] = []

    class Thrown(Exception):
        @property
        def __class__(self) -> Any:
            asked.append("asked")
            return Thrown

    @wrap
    def stream() -> Iterator[int]:
        yield 1

    generator: Any = stream()
    assert next(generator) == 1
    thrown = Thrown()
    with contextlib.suppress(Thrown):
        generator.throw(thrown)
    assert asked == []


def test_the_methods_of_what_is_decorated_are_there(wrap: Wrap) -> None:
    class Desk:
        def __init__(self) -> None:
            self.asked: list[str] = []

        def __call__(self, question: str) -> str:
            self.asked.append(question)
            return question.upper()

        def count(self) -> int:
            return len(self.asked)

    desk = wrap(Desk())
    assert (desk("why"), desk.count()) == ("WHY", 1)

    @wrap
    @functools.lru_cache
    def answer(question: str) -> str:
        return question.upper()

    assert [answer("why"), answer("why")] == ["WHY", "WHY"]
    assert answer.cache_info().hits == 1
    answer.cache_clear()
    assert answer.cache_info().currsize == 0
