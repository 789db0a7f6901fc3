"""Decorated functions around and inside LangChain and LangGraph: one tree, whoever records."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

import pytest

pytest.importorskip("langgraph")

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from llmops_core import monitor_llm, monitoring_session, monitoring_trace
from llmops_core.testing.fixtures import CapturedSpans, spans
from llmops_integrations.langchain import LLMOpsCallbackHandler

__all__ = ["spans"]


class State(TypedDict):
    text: str


def graph(node: Any, **options: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile(**options)


def model() -> Any:
    return GenericFakeChatModel(messages=iter(lambda: AIMessage("hi"), None))


EXPECTED = """\
workflow outer ok
  workflow LangGraph ok
    agent node ok
      chain inner [node] ok
        chain RunnableLambda [node] ok
        llm GenericFakeChatModel [node] ok
"""


def test_a_decorated_function_hangs_between_the_runs_around_and_inside_it(
    spans: CapturedSpans,
) -> None:
    chat = RunnableLambda(lambda text: text) | model()

    @monitor_llm(monitor=spans.monitor)
    def inner(text: str) -> str:
        return str(chat.invoke(text).content)

    app = graph(lambda state: {"text": inner(state["text"])})

    @monitor_llm(monitor=spans.monitor)
    def outer(text: str) -> Any:
        handler = LLMOpsCallbackHandler(spans.monitor)
        return app.invoke({"text": text}, config={"callbacks": [handler]})

    outer("a")
    assert spans.tree() == EXPECTED


async def test_it_does_so_in_async_code_and_under_gather(spans: CapturedSpans) -> None:
    chat = RunnableLambda(lambda text: text) | model()

    @monitor_llm(monitor=spans.monitor)
    async def inner(text: str) -> str:
        return str((await chat.ainvoke(text)).content)

    async def node(state: State) -> State:
        return {"text": await inner(state["text"])}

    app, handler = graph(node), LLMOpsCallbackHandler(spans.monitor)

    @monitor_llm(monitor=spans.monitor)
    async def outer(text: str) -> Any:
        return await app.ainvoke({"text": text}, config={"callbacks": [handler]})

    await asyncio.gather(outer("a"), outer("b"))
    assert await asyncio.to_thread(spans.tree) == EXPECTED * 2


def test_a_graph_beside_the_call_is_not_below_it(spans: CapturedSpans) -> None:
    handler = LLMOpsCallbackHandler(spans.monitor)

    @monitor_llm(monitor=spans.monitor)
    def alone() -> None: ...

    alone()
    model().invoke("a", config={"callbacks": [handler]})
    assert [s.parent_id for s in spans()] == [None, None]


def test_an_interrupt_that_passes_a_decorated_function_is_no_error(spans: CapturedSpans) -> None:
    @monitor_llm(monitor=spans.monitor)
    def ask(text: str) -> str:
        return str(interrupt("really?"))

    app = graph(lambda state: {"text": ask(state["text"])}, checkpointer=InMemorySaver())
    config = {
        "callbacks": [LLMOpsCallbackHandler(spans.monitor)],
        "configurable": {"thread_id": "t"},
    }
    app.invoke({"text": "a"}, config=config)
    assert {s.name: s.outcome for s in spans()}["ask"] == "interrupted"


def test_the_session_and_the_trace_that_are_set_are_the_frameworks_too(
    spans: CapturedSpans,
) -> None:
    handler = LLMOpsCallbackHandler(spans.monitor)

    @monitor_llm(monitor=spans.monitor)
    def beside() -> None: ...

    with monitoring_session("s-1", user_id="ann"), monitoring_trace("chat") as trace:
        model().invoke("a", config={"callbacks": [handler]})
        beside()
        model().invoke("b", config={"callbacks": [handler], "metadata": {"session_id": "own"}})
    assert {s.trace_id for s in spans()} == {trace}
    assert sorted(str(s.session_id) for s in spans()) == ["own", "s-1", "s-1"]
