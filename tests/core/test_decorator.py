"""The decorator: what a call records, and that nothing about the call changes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmops_core import (
    ConfigError,
    Monitor,
    Span,
    monitor_llm,
    monitoring_session,
)
from llmops_core.decorating import operation
from llmops_core.testing.fixtures import CapturedSpans, spans

__all__ = ["spans"]


def tree(spans: CapturedSpans) -> str:
    return spans.tree(content=True)


def in_order(spans: CapturedSpans) -> list[Span]:
    """Return the spans as they started; a query gives the newest first."""
    return sorted(spans(), key=lambda span: span.start_time)


# ---- sorts of functions ----


def test_a_call_is_a_span_with_its_arguments_and_its_result(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def answer(question: str, *, times: int = 1) -> dict[str, str]:
        return {"text": question * times}

    assert answer("a", times=2) == {"text": "aa"}
    assert tree(spans) == (
        'workflow answer ok\n  in: {"question":"a","times":2}\n  out: {"text":"aa"}\n'
    )


def test_the_only_parameter_is_the_input_itself(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def answer(question: str) -> str:
        return question + "!"

    answer("a")
    answer(question="b")
    assert [(s.input, s.output) for s in in_order(spans)] == [("a", "a!"), ("b", "b!")]


def test_a_coroutine_is_recorded_and_stays_one(spans: CapturedSpans) -> None:
    @monitor_llm("ask", "llm_call", monitor=spans.monitor, custom_attributes={"model": "gpt-4o"})
    async def answer(question: str) -> str:
        await asyncio.sleep(0)
        return question

    assert inspect.iscoroutinefunction(answer)
    assert asyncio.run(answer("a")) == "a"
    (span,) = spans()
    assert (span.kind, span.name, span.model, span.framework) == ("llm", "ask", "gpt-4o", "python")


def test_methods_of_every_sort_are_recorded_without_self(spans: CapturedSpans) -> None:
    class Agent:
        @monitor_llm(monitor=spans.monitor)
        def plain(self, text: str) -> str:
            return text

        @monitor_llm(monitor=spans.monitor)
        @classmethod
        def above_class(cls, text: str) -> str:
            return cls.__name__ + text

        @classmethod
        @monitor_llm(monitor=spans.monitor)
        def below_class(cls, text: str) -> str:
            return cls.__name__ + text

        @monitor_llm(monitor=spans.monitor)
        @staticmethod
        def above_static(text: str) -> str:
            return text

        @staticmethod
        @monitor_llm(monitor=spans.monitor)
        def below_static(text: str) -> str:
            return text

    agent = Agent()
    assert agent.plain("1") == "1"
    assert agent.above_class("2") == Agent.above_class("2") == "Agent2"
    assert agent.below_class("3") == "Agent3"
    assert agent.above_static("4") == Agent.above_static("4") == "4"
    assert agent.below_static("5") == "5"
    found = {(s.name, s.input) for s in spans()}
    assert found == {
        ("plain", "1"),
        ("above_class", "2"),
        ("below_class", "3"),
        ("above_static", "4"),
        ("below_static", "5"),
    }


def test_a_callable_without_a_name_is_named_after_its_class(spans: CapturedSpans) -> None:
    class Model:
        def __call__(self, text: str) -> str:
            return text

    assert monitor_llm(monitor=spans.monitor)(Model())("a") == "a"
    partial = functools.partial(lambda a, b: a + b, "x")
    assert monitor_llm("joined", monitor=spans.monitor)(partial)("y") == "xy"
    assert sorted(s.name for s in spans()) == ["Model", "joined"]


@monitor_llm("module_level")
def module_level(text: str, *rest: int, flag: bool = False) -> str:
    """Doc."""
    return text


def test_signature_name_and_pickling_stay() -> None:
    assert str(inspect.signature(module_level)) == (
        "(text: 'str', *rest: 'int', flag: 'bool' = False) -> 'str'"
    )
    assert (module_level.__name__, module_level.__doc__) == ("module_level", "Doc.")
    assert pickle.loads(pickle.dumps(module_level)) is module_level


def test_further_positional_arguments_are_under_their_own_name(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def answer(text: str, *rest: int, **more: int) -> None: ...

    answer("a", 1, 2, extra=3)
    answer("a")
    with pytest.raises(TypeError):
        answer()  # type: ignore[call-arg]
    assert [(s.input, s.outcome) for s in in_order(spans)] == [
        ('{"extra":3,"rest":[1,2],"text":"a"}', "ok"),
        ('{"text":"a"}', "ok"),
        ("{}", "error"),
    ]


def test_a_disabled_decorator_returns_the_function_itself() -> None:
    def answer() -> None: ...

    assert monitor_llm(enabled=False)(answer) is answer
    assert monitor_llm("x", enabled=False)(answer) is answer


# ---- kinds ----


@pytest.mark.parametrize(
    ("operation_type", "as_root", "as_child"),
    [
        (None, "workflow", "chain"),
        ("llm_call", "llm", "llm"),
        ("agent_workflow", "workflow", "workflow"),
        ("tool", "tool", "tool"),
        ("retriever", "retriever", "retriever"),
        ("my_own_word", "chain", "chain"),
    ],
)
def test_the_operation_type_is_the_kind(
    spans: CapturedSpans, operation_type: str | None, as_root: str, as_child: str
) -> None:
    @monitor_llm("inner", operation_type, monitor=spans.monitor)
    def inner() -> None: ...

    @monitor_llm("outer", "agent", monitor=spans.monitor)
    def outer() -> None:
        inner()

    inner()
    outer()
    kinds = {s.parent_id is None: s.kind for s in in_order(spans) if s.name == "inner"}
    assert kinds == {True: as_root, False: as_child}


# ---- outcomes ----


def test_an_exception_passes_through_as_it_is_and_is_an_error(spans: CapturedSpans) -> None:
    error = ValueError("no such city")

    @monitor_llm(monitor=spans.monitor)
    def answer() -> None:
        raise error

    with pytest.raises(ValueError, match="no such city") as caught:
        answer()
    assert caught.value is error
    (span,) = spans()
    assert (span.outcome, span.error_type, span.error_message) == (
        "error",
        "ValueError",
        "no such city",
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_a_stopped_call_is_cancelled(spans: CapturedSpans, error: BaseException) -> None:
    @monitor_llm(monitor=spans.monitor)
    def answer() -> None:
        raise error

    with pytest.raises(type(error)):
        answer()
    assert [(s.outcome, s.error_type) for s in in_order(spans)] == [("cancelled", None)]


async def test_a_cancelled_task_is_cancelled_with_its_children(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    async def inner() -> None:
        await asyncio.Event().wait()

    @monitor_llm(monitor=spans.monitor)
    async def outer() -> None:
        await inner()

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await asyncio.to_thread(in_order, spans)
    assert {(s.name, s.outcome) for s in found} == {("inner", "cancelled"), ("outer", "cancelled")}


def test_a_coroutine_that_is_closed_halfway_is_abandoned(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    async def answer() -> None:
        await asyncio.sleep(10)

    coroutine: Any = answer()
    with contextlib.suppress(RuntimeError):  # there is no loop to sleep in
        contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert len(spans()) == 1


# ---- parents ----


async def test_parents_hold_under_gather_and_to_thread(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf(n: int) -> int:
        return n

    @monitor_llm(monitor=spans.monitor)
    async def middle(n: int) -> int:
        await asyncio.sleep(0)
        return await asyncio.to_thread(leaf, n)

    @monitor_llm(monitor=spans.monitor)
    async def top() -> list[int]:
        return await asyncio.gather(*(middle(n) for n in range(5)))

    assert await top() == [0, 1, 2, 3, 4]
    found = {s.span_id: s for s in await asyncio.to_thread(in_order, spans)}
    leaves = [s for s in found.values() if s.name == "leaf"]
    assert len(leaves) == 5
    for span in leaves:
        parent = found[span.parent_id or ""]
        assert (parent.name, parent.input) == ("middle", span.input)
        assert found[parent.parent_id or ""].name == "top"


def test_a_plain_thread_starts_a_trace_of_its_own_unless_it_is_given_the_context(
    spans: CapturedSpans,
) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf(how: str) -> None: ...

    @monitor_llm(monitor=spans.monitor)
    def top() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(leaf, "alone").result()
            pool.submit(contextvars.copy_context().run, leaf, "carried").result()

    top()
    found = {str(s.input): s.parent_id for s in in_order(spans) if s.name == "leaf"}
    assert found["alone"] is None
    assert found["carried"] is not None


def test_many_threads_never_mix_their_parents(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf(n: int) -> None: ...

    @monitor_llm(monitor=spans.monitor)
    def top(n: int) -> None:
        for _ in range(20):
            leaf(n)

    threads = [threading.Thread(target=top, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {s.span_id: s for s in spans()}
    leaves = [s for s in found.values() if s.name == "leaf"]
    assert len(leaves) == 160
    assert all(found[s.parent_id or ""].input == s.input for s in leaves)


def test_calls_of_two_monitors_are_two_trees(spans: CapturedSpans) -> None:
    with Monitor(storage="memory:", durability="memory") as other:

        @monitor_llm(monitor=other)
        def between() -> None:
            leaf()

        @monitor_llm(monitor=spans.monitor)
        def leaf() -> None: ...

        @monitor_llm(monitor=spans.monitor)
        def top() -> None:
            between()

        top()
        other.flush()
        (row,) = other.query().to_pylist()
        assert (row["name"], row["parent_id"]) == ("between", None)
    assert spans.tree() == "workflow top ok\n  chain leaf ok\n"


# ---- set-up errors, and never an error afterwards ----


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"operation_type": 3}, "operation_type=3"),
        ({"session_id_from": "nobody"}, "'nobody'"),
        ({"measure_text": "char_count"}, "measure_text"),
        ({"measure_text": ["chars"]}, "char_count"),
        ({"measurement": "tokens"}, "measurement='tokens'"),
        ({"measurement": {"mode": "token", "typo": 1}}, "'typo'"),
        ({"measurement": {"tokenization_timeout_ms": -1}}, "tokenization_timeout_ms"),
        ({"collectors": "cost"}, "Write collectors=['cost']"),
        ({"custom_attributes": {"a": object()}}, "custom attribute"),
        ({"monitor": "memory:"}, "Expected a Monitor"),
        ({"enabled": "no"}, "enabled='no'"),
    ],
)
def test_what_cannot_work_is_told_where_it_is_decorated(
    arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        monitor_llm(**arguments)(lambda text: text)
    assert told in str(caught.value)


def test_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="Put it on the methods"):
        monitor_llm(type("Agent", (), {}))


def test_a_failure_of_ours_is_counted_and_the_call_goes_on(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    @monitor_llm(monitor=spans.monitor)
    def answer(text: str) -> str:
        return text

    @monitor_llm(monitor=spans.monitor)
    def stream(text: str) -> Iterator[str]:
        yield text

    def broken(*args: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(spans.monitor.recorder, "start", broken)
    monkeypatch.setattr(spans.monitor.recorder, "end", broken)
    monkeypatch.setattr(spans.monitor.recorder, "mark", broken)
    assert answer("a") == "a"
    assert list(stream("b")) == ["b"]
    failures = spans.monitor.stats()["failures"]
    assert failures["handler.begin: RuntimeError"] == 2
    assert failures["handler.item: RuntimeError"] == 1
    assert failures["handler.finish: RuntimeError"] == 1


def test_a_hostile_argument_costs_the_call_nothing(spans: CapturedSpans) -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise SystemExit

        def __repr__(self) -> str:
            raise SystemExit

    hostile = Hostile()

    @monitor_llm(monitor=spans.monitor, session_id_from="value")
    def answer(value: object) -> object:
        return value

    assert answer(hostile) is hostile
    assert len(spans()) == 1


def _watched(calls: list[str]) -> type[type]:
    """A metaclass that notes whatever of its own code is called."""

    class Watched(type):
        def __getattribute__(cls, name: str) -> Any:
            calls.append(name)
            return type.__getattribute__(cls, name)

        def __eq__(cls, other: object) -> bool:
            calls.append("==")
            return cls is other

        __hash__ = type.__hash__

    return Watched


def test_no_code_of_the_class_of_a_session_or_of_an_exception_is_called(
    spans: CapturedSpans,
) -> None:
    calls: list[str] = []
    watched = _watched(calls)
    session = watched("Tenant", (), {})()
    failed = watched(
        "Failed", (Exception,), {"__class__": property(lambda self: calls.append("__class__"))}
    )("x")

    @monitor_llm(monitor=spans.monitor)
    def fails() -> None:
        raise failed

    calls.clear()
    with monitoring_session(session) as shown, contextlib.suppress(BaseException):
        fails()
    found = [call for call in calls if call != "__mro__"]  # Python itself asks for it, to match
    assert found == []
    (span,) = spans()
    assert (span.outcome, span.error_message, span.session_id) == ("error", "x", shown)


def test_an_exception_whose_class_has_no_module_ends_its_call(spans: CapturedSpans) -> None:
    failed = type("Failed", (Exception,), {"__module__": None})

    @monitor_llm(monitor=spans.monitor)
    def fails() -> None:
        raise failed("x")

    with pytest.raises(failed):
        fails()
    (span,) = spans()
    assert (span.outcome, span.error_message) == ("error", "x")
    assert spans.monitor.stats()["failures"] == {}


def test_an_end_is_told_though_it_cannot_be_described(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    @monitor_llm(monitor=spans.monitor, operation_type="llm_call")
    def answer(divisor: int) -> float:
        return 1 / divisor

    def broken(*args: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(operation, "usage_fields", broken)
    monkeypatch.setattr(operation, "error_fields", broken)
    assert answer(1) == 1.0
    with pytest.raises(ZeroDivisionError):
        answer(0)
    ends = [(s.outcome, s.output, s.error_type) for s in in_order(spans)]
    assert ends == [("ok", None, None), ("error", None, "ZeroDivisionError")]
    assert spans.monitor.stats()["failures"] == {"handler.finish: RuntimeError": 2}
