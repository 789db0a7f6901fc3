"""What a run belongs to in threads, executors and other processes, and what never leaks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_core import (
    ConfigError,
    Monitor,
    Span,
    carry,
    monitor_llm,
    monitoring_session,
    monitoring_trace,
    traceparent,
)
from llmops_core.context import _SESSION, session_here, trace_here
from llmops_core.nesting import ACTIVE
from llmops_core.testing.fixtures import CapturedSpans, spans
from llmops_core.trace_context import format_traceparent, parse_traceparent

__all__ = ["spans"]

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
HEADER = f"00-{TRACE}-{SPAN}-01"


def by_name(spans: CapturedSpans) -> dict[str, Span]:
    return {span.name: span for span in spans()}


# ---- the header ----

_hex = st.text("0123456789abcdef", min_size=1)


@given(
    st.integers(1, 2**128 - 1).map(lambda n: f"{n:032x}"),
    st.integers(1, 2**64 - 1).map(lambda n: f"{n:016x}"),
)
def test_what_is_sent_is_read(trace_id: str, span_id: str) -> None:
    header = format_traceparent(trace_id, span_id)
    assert len(header) == 55
    assert parse_traceparent(header) == (trace_id, span_id)


@given(st.text() | st.binary() | st.none() | st.integers() | _hex)
def test_what_is_no_header_is_none_and_nothing_raises(value: object) -> None:
    assert parse_traceparent(value) is None


@given(st.integers(0, 54), st.characters(categories=("L", "N", "P", "S", "Z", "C")))
def test_a_header_with_one_wrong_character_is_none_unless_it_is_another_header(
    at: int, character: str
) -> None:
    header = HEADER[:at] + character + HEADER[at + 1 :]
    found = parse_traceparent(header)
    if character in "0123456789abcdef" and HEADER[at] != "-":
        assert found is None or found == (header[3:35], header[36:52])
    else:
        assert found is None or character == HEADER[at]


@pytest.mark.parametrize(
    "header",
    [
        HEADER.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"{HEADER}-more",
        f"{HEADER}-",
        f" {HEADER}",
        f"{HEADER}\n",
        HEADER[:-1],
        f"01-{TRACE}-{SPAN}-01" + "-x" * 1_000,
    ],
)
def test_the_standard_refuses_it(header: str) -> None:
    assert parse_traceparent(header) is None


def test_a_later_version_may_say_more() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like") == (TRACE, SPAN)
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01.what") is None


# ---- from process to process ----


def test_a_header_carries_a_trace_from_one_monitor_to_another(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def client() -> str | None:
        return traceparent(spans.monitor)

    with Monitor(storage="memory:", durability="memory") as there:

        @monitor_llm(monitor=there)
        def server() -> None:
            leaf()

        @monitor_llm(monitor=there)
        def leaf() -> None: ...

        header = client()
        with monitoring_trace(traceparent=header) as trace:
            server()
        there.flush()
        rows = {row["name"]: row for row in there.query().to_pylist()}
    mine = by_name(spans)["client"]
    assert header == f"00-{mine.trace_id}-{mine.span_id}-01"
    assert {trace, rows["server"]["trace_id"], rows["leaf"]["trace_id"]} == {mine.trace_id}
    assert rows["server"]["parent_id"] == mine.span_id
    assert rows["leaf"]["parent_id"] == rows["server"]["span_id"]
    assert dict(rows["server"]["attributes"])["llmops.remote_parent"] == "true"


@pytest.mark.parametrize("header", [None, "", "00-nonsense", 7, HEADER.upper()])
def test_a_request_without_a_valid_header_gets_a_fresh_trace(
    spans: CapturedSpans, header: object
) -> None:
    @monitor_llm(monitor=spans.monitor)
    def server() -> None: ...

    with monitoring_trace(traceparent=header) as trace:
        server()
    (span,) = spans()
    assert (span.trace_id, span.parent_id) == (trace, None)


def test_where_nothing_runs_there_is_nothing_to_send_but_what_was_received(
    spans: CapturedSpans,
) -> None:
    assert traceparent(spans.monitor) is None
    with monitoring_trace("a name"):
        assert traceparent(spans.monitor) is None
    with monitoring_trace(traceparent=HEADER):
        assert traceparent(spans.monitor) == HEADER
    assert traceparent(spans.monitor) is None


def test_the_header_of_a_call_in_a_named_trace_is_the_spans_own(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf() -> str | None:
        return traceparent(spans.monitor)

    @monitor_llm(monitor=spans.monitor)
    def top() -> str | None:
        return leaf()

    with monitoring_trace("chat") as trace:
        header = top()
    assert header == f"00-{trace}-{by_name(spans)['leaf'].span_id}-01"


# ---- OpenTelemetry's span around us ----


class _Ambient:
    """As much of ``opentelemetry.trace`` as is asked."""

    is_valid, trace_id, span_id = True, int(TRACE, 16), int(SPAN, 16)

    def get_current_span(self) -> Any:
        return self

    def get_span_context(self) -> Any:
        return self


@pytest.mark.parametrize(
    ("joins", "trace", "parent"), [(True, TRACE, SPAN), (False, None, None)], ids=["on", "off"]
)
def test_opentelemetrys_trace_is_joined_once_at_the_root_and_only_if_asked(
    monkeypatch: pytest.MonkeyPatch, joins: bool, trace: str | None, parent: str | None
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.trace", _Ambient())
    with Monitor(storage="memory:", durability="memory", join_opentelemetry=joins) as monitor:

        @monitor_llm(monitor=monitor)
        def leaf() -> None: ...

        @monitor_llm(monitor=monitor)
        def top() -> None:
            leaf()

        top()
        monitor.flush()
        rows = {row["name"]: row for row in monitor.query().to_pylist()}
    assert rows["leaf"]["parent_id"] == rows["top"]["span_id"]
    assert rows["leaf"]["trace_id"] == rows["top"]["trace_id"]
    assert rows["top"]["parent_id"] == parent
    assert (rows["top"]["trace_id"] == TRACE) is joins
    assert trace is None or rows["top"]["trace_id"] == trace


def test_an_opentelemetry_that_fails_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.trace", object())
    with Monitor(storage="memory:", durability="memory", join_opentelemetry=True) as monitor:

        @monitor_llm(monitor=monitor)
        def top() -> None: ...

        top()
        monitor.flush()
        assert monitor.query(name="top").to_pylist()[0]["parent_id"] is None


# ---- threads and executors ----


def test_carried_work_belongs_to_where_it_was_carried_from(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def work(how: str) -> None: ...

    @monitor_llm(monitor=spans.monitor)
    def top() -> None:
        thread = threading.Thread(target=carry(work), args=("thread",))
        thread.start()
        with ThreadPoolExecutor(4) as pool:
            pool.submit(carry(work), "submitted").result()
            list(pool.map(carry(work), [f"mapped {n}" for n in range(20)]))
            pool.submit(work, "not carried").result()
        thread.join()

    with monitoring_session("s-1"):
        top()
    parent = by_name(spans)["top"]
    found = {span.input: span for span in spans() if span.name == "work"}
    alone = found.pop("not carried")
    assert (alone.parent_id, alone.session_id) == (None, None)
    assert len(found) == 22
    assert {(s.parent_id, s.trace_id, s.session_id) for s in found.values()} == {
        (parent.span_id, parent.trace_id, "s-1")
    }


async def test_carried_coroutines_and_executors_of_a_loop_too(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    async def aleaf() -> str:
        await asyncio.sleep(0)
        return "done"

    @monitor_llm(monitor=spans.monitor)
    def leaf() -> None: ...

    def other_loop(work: Any) -> str:
        return asyncio.run(work())

    @monitor_llm(monitor=spans.monitor)
    async def top() -> str:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, carry(leaf))
        return await loop.run_in_executor(None, other_loop, carry(aleaf))

    assert await top() == "done"
    tree = await asyncio.to_thread(spans.tree)
    assert tree == "workflow top ok\n  chain leaf ok\n  chain aleaf ok\n"


async def test_a_carried_coroutine_is_cancelled_with_its_caller(spans: CapturedSpans) -> None:
    began = asyncio.Event()

    @monitor_llm(monitor=spans.monitor)
    async def hangs() -> None:
        began.set()
        await asyncio.sleep(3600)

    task = asyncio.create_task(carry(hangs)())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(spans.tree) == "workflow hangs cancelled\n"


@pytest.mark.parametrize("wrap", [lambda function: function, carry])
async def test_a_carried_coroutine_is_closed_with_its_caller(wrap: Any) -> None:
    log: list[object] = []

    async def work() -> None:
        try:
            await asyncio.sleep(0)
            log.append("finished")
        finally:
            log.append("left")

    caller = wrap(work)()
    caller.send(None)
    caller.close()
    log.append("closed")
    await asyncio.sleep(0)
    assert log == ["left", "closed"]


async def test_what_a_carried_coroutine_sets_stays_in_it_over_all_its_steps() -> None:
    number = ContextVar("number", default=0)

    async def work() -> int:
        number.set(number.get() + 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(3600)
        return number.get()

    carried = carry(work)
    assert await asyncio.gather(carried(), carried()) == [1, 1]
    assert await carried() == 1
    assert number.get() == 0


def test_what_carried_work_sets_stays_in_it() -> None:
    def work() -> None:
        monitoring_session("inner").__enter__()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(carry(work)).result()
        assert pool.submit(session_here).result() is None
    carry(work)()
    assert session_here() is None


@pytest.mark.parametrize("thing", [lambda: (yield), 7, None], ids=["generator", "number", "none"])
def test_what_cannot_be_carried_is_refused_at_once(thing: Any) -> None:
    with pytest.raises(ConfigError, match="Expected a function"):
        carry(thing)


def test_a_carried_function_is_still_itself() -> None:
    def work(a: int, *, b: int = 2) -> int:
        """Adds."""
        if a < 0:
            raise KeyError(a)
        return a + b

    carried = carry(work)
    assert (carried.__name__, carried.__doc__, carried(1, b=3)) == ("work", "Adds.", 4)
    with pytest.raises(KeyError):
        carried(-1)


# ---- nothing leaks ----


@pytest.mark.parametrize("scope", [monitoring_session, monitoring_trace])
async def test_a_scope_that_is_closed_in_another_context_leaves_nothing_behind(
    scope: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def reader() -> AsyncIterator[int]:
        with scope("gone"):
            yield 1
            yield 2

    outer = monitoring_session("outer")
    with outer:
        items = reader()
        await anext(items)
        await asyncio.create_task(items.aclose())  # in a copy of this context
        assert session_here() == ("outer", None)
        assert trace_here() is None
    assert session_here() is None
    assert caplog.records == []


@pytest.mark.parametrize("begun_here", [False, True])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_scope_that_several_share_ends_for_the_one_that_leaves_it(
    is_async: bool, apart: bool, begun_here: bool
) -> None:
    shared = monitoring_session("shared")

    async def reader() -> AsyncIterator[tuple[str, str | None] | None]:
        if is_async:
            async with shared:
                yield session_here()
        else:
            with shared:
                yield session_here()

    async def close(items: Any) -> None:
        await items.aclose()

    async def first(items: Any) -> Any:
        return await anext(items)

    items = reader()
    begun = first(items) if begun_here else asyncio.create_task(first(items))
    assert await begun == ("shared", None)
    with shared:
        if apart:  # in a context in which nothing is set
            await asyncio.create_task(close(items), context=contextvars.Context())
        else:
            await close(items)
        assert session_here() == ("shared", None)
    assert session_here() is None
    assert shared._entered == []


async def test_a_shared_scope_on_exit_stacks_ends_for_the_one_that_leaves_it() -> None:
    shared = monitoring_session("shared")

    async def work(inside: asyncio.Event, go: asyncio.Event) -> Any:
        with contextlib.ExitStack() as stack:
            stack.enter_context(shared)
            inside.set()
            await go.wait()
            found = session_here()
        return found, session_here()

    events = [(asyncio.Event(), asyncio.Event()) for _ in range(3)]
    tasks = [asyncio.create_task(work(*pair)) for pair in events]
    for inside, _ in events:
        await asyncio.wait_for(inside.wait(), 30)
    for (_, go), task in zip(events, tasks, strict=True):
        go.set()
        assert await task == (("shared", None), None)
    assert shared._entered == []


async def test_a_call_that_is_closed_in_another_context_is_nobodys_parent(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    @monitor_llm(monitor=spans.monitor)
    async def hangs() -> None:
        await asyncio.Event().wait()

    @monitor_llm(monitor=spans.monitor)
    def after() -> None: ...

    coroutine = hangs()
    coroutine.send(None)  # begins here
    await asyncio.to_thread(coroutine.close)  # and ends there
    after()
    found = {s.name: s for s in await asyncio.to_thread(spans)}
    assert found["hangs"].outcome == "abandoned"
    assert found["after"].parent_id is None
    assert caplog.records == []


async def test_one_scope_object_serves_several_tasks() -> None:
    scope = monitoring_session("shared")
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        with scope:
            entered.set()
            await leave.wait()
            assert session_here() == ("shared", None)
        assert session_here() is None

    async def second() -> None:
        await entered.wait()
        with scope:
            assert session_here() == ("shared", None)
        assert session_here() is None
        leave.set()

    await asyncio.gather(first(), second())


def test_nothing_is_active_after_a_call(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def call() -> None: ...

    call()
    assert ACTIVE.get() is None


# ---- what starts itself anew ----


def depth_of(held: Any) -> int:
    depth = 0
    while held is not None:
        held, depth = held.above, depth + 1
    return depth


async def test_a_call_that_starts_itself_anew_holds_one_of_those_before(
    spans: CapturedSpans,
) -> None:
    done = asyncio.get_running_loop().create_future()
    depths: list[int] = []

    @monitor_llm(monitor=spans.monitor)
    def tick(n: int) -> None:
        depths.append(depth_of(ACTIVE.get()))
        if n < 9:
            asyncio.get_running_loop().call_soon(tick, n + 1)
        else:
            done.set_result(None)

    tick(0)
    await done
    assert depths == [1] + [2] * 9
    found = {span.input: span for span in await asyncio.to_thread(spans)}
    for n in range(1, 10):  # whoever starts a call is its parent, also when it has ended
        assert found[str(n)].parent_id == found[str(n - 1)].span_id


async def test_a_stream_that_ended_is_not_held_by_what_it_started(spans: CapturedSpans) -> None:
    done = asyncio.get_running_loop().create_future()
    depths: list[int] = []

    @monitor_llm(monitor=spans.monitor)
    def items(n: int) -> Any:
        depths.append(depth_of(ACTIVE.get()))
        asyncio.get_running_loop().call_soon(read, n + 1)
        yield n

    def read(n: int) -> None:
        if n < 9:
            list(items(n))
        else:
            done.set_result(None)

    read(0)
    await done
    assert depths == [1] + [2] * 8


async def test_calls_that_were_left_elsewhere_are_not_held(spans: CapturedSpans) -> None:
    depths: list[int] = []

    @monitor_llm(monitor=spans.monitor)
    async def hangs() -> None:
        depths.append(depth_of(ACTIVE.get()))
        await asyncio.Event().wait()

    for _ in range(5):
        coroutine = hangs()
        coroutine.send(None)
        await asyncio.to_thread(coroutine.close)
    assert depths == [1] * 5


async def test_an_ended_call_of_another_monitor_does_not_hide_the_caller(
    spans: CapturedSpans,
) -> None:
    with Monitor(storage="memory:") as other:

        @monitor_llm(monitor=spans.monitor)
        def leaf() -> None: ...

        @monitor_llm(monitor=other)
        async def between() -> None:
            asyncio.get_running_loop().call_soon(leaf)

        @monitor_llm(monitor=spans.monitor)
        async def top() -> None:
            await asyncio.create_task(between())

        await asyncio.create_task(top())
    found = {span.name: span for span in await asyncio.to_thread(spans)}
    assert found["leaf"].parent_id == found["top"].span_id


async def test_a_block_that_starts_itself_anew_holds_one_of_those_before() -> None:
    done = asyncio.get_running_loop().create_future()
    depths: list[int] = []

    def tick(n: int) -> None:
        assert session_here() == (None if n == 0 else (str(n - 1), None))
        with monitoring_session(str(n)):
            depths.append(depth_of(_SESSION.get()))
            if n < 9:
                asyncio.get_running_loop().call_soon(tick, n + 1)
            else:
                done.set_result(None)

    tick(0)
    await done
    assert depths == [1] + [2] * 9


async def test_blocks_that_were_left_elsewhere_are_not_held() -> None:
    async def reader() -> AsyncIterator[int]:
        with monitoring_session("inner"):
            yield depth_of(_SESSION.get())

    with monitoring_session("outer"):
        for _ in range(5):
            items = reader()
            assert await anext(items) == 2
            await asyncio.create_task(items.aclose())  # in a copy of this context
            assert session_here() == ("outer", None)
