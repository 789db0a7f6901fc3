"""Sessions and traces around decorated calls."""

from __future__ import annotations

import asyncio

from llmops_core import (
    Span,
    monitor_llm,
    monitoring_session,
    monitoring_trace,
)
from llmops_core.testing.fixtures import CapturedSpans, spans

__all__ = ["spans"]


def in_order(spans: CapturedSpans) -> list[Span]:
    """Return the spans as they started; a query gives the newest first."""
    return sorted(spans(), key=lambda span: span.start_time)


# ---- sessions and traces ----


def test_a_session_and_a_user_are_on_everything_inside(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf() -> None: ...

    @monitor_llm(monitor=spans.monitor)
    def top() -> None:
        leaf()

    with monitoring_session("s-1", user_id="ann") as session:
        top()
    top()
    assert session == "s-1"
    assert [(s.session_id, s.user_id) for s in in_order(spans)] == [("s-1", "ann")] * 2 + [
        (None, None)
    ] * 2


async def test_scopes_are_async_too_nest_and_do_not_leak(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf(n: int) -> None: ...

    async with monitoring_session("outer"):
        leaf(1)
        async with monitoring_session("inner"), monitoring_trace("t"):
            leaf(2)
        leaf(3)
    leaf(4)
    found = await asyncio.to_thread(in_order, spans)
    assert [s.session_id for s in found] == ["outer", "inner", "outer", None]


def test_calls_inside_a_named_trace_share_it_and_are_all_roots(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf() -> None: ...

    for session in ("a", "b", "a"):
        with monitoring_session(session), monitoring_trace("chat"):
            leaf()
            leaf()
    found = in_order(spans)
    assert all(s.parent_id is None for s in found)
    assert len({s.trace_id for s in found}) == 2  # by session and name: the third joined the first
    assert len({s.trace_id for s in found if s.session_id == "a"}) == 1
    assert {(s.attributes or {})["trace_name"] for s in found} == {"chat"}


def test_a_trace_without_a_name_is_fresh_and_an_id_is_taken_as_it_is(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def leaf() -> None: ...

    given = "0af7651916cd43dd8448eb211c80319c"
    with monitoring_trace() as first:
        leaf()
    with monitoring_trace() as second:
        leaf()
    with monitoring_trace(given) as third:
        leaf()
    assert first != second
    assert [s.trace_id for s in in_order(spans)] == [first, second, third]
    assert third == given


def test_session_and_trace_are_taken_from_parameters(spans: CapturedSpans) -> None:
    @monitor_llm(session_id_from="user", trace_id_from="chat", monitor=spans.monitor)
    def answer(text: str, user: str, chat: str = "main") -> None:
        leaf()

    @monitor_llm(monitor=spans.monitor)
    def leaf() -> None: ...

    answer("a", "ann")
    answer("b", user="ann", chat="side")
    answer("c", "ann")
    found = [s for s in in_order(spans) if s.name == "answer"]
    assert {s.session_id for s in spans()} == {"ann"}
    assert found[0].trace_id == found[2].trace_id != found[1].trace_id
