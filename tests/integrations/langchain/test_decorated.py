"""Decorated functions around and inside LangChain and LangGraph: one tree, whoever records."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from textwrap import indent
from typing import Any, TypedDict

import pytest

pytest.importorskip("langgraph")

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

from llmops_core import carry, monitor_llm, monitoring_session, monitoring_trace
from llmops_core.nesting import ACTIVE
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


# ---- calls and runs that do not end where they began ----


def chain(function: Any, name: str = "chain") -> Any:
    return RunnableLambda(function).with_config(run_name=name)


def config(spans: CapturedSpans) -> Any:
    return {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]}


AFTER = """\
workflow chain ok
  chain background ok
    chain leaf ok
    workflow inner ok
      chain leaf ok
"""


async def test_a_call_that_outlives_the_chain_around_it_keeps_its_children(
    spans: CapturedSpans,
) -> None:
    over, tasks = asyncio.Event(), []

    @monitor_llm(monitor=spans.monitor)
    def leaf(text: str) -> str:
        return text

    @monitor_llm(monitor=spans.monitor)
    async def background() -> None:
        await over.wait()
        leaf("a")
        await chain(leaf, "inner").ainvoke("a", config(spans))

    async def start(text: str) -> str:
        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        return text

    await chain(start).ainvoke("a", config(spans))
    over.set()
    await tasks[0]
    assert await asyncio.to_thread(spans.tree) == AFTER


def test_a_call_that_was_carried_outlives_the_chain_too(spans: CapturedSpans) -> None:
    begun, over, threads = threading.Event(), threading.Event(), []

    @monitor_llm(monitor=spans.monitor)
    def leaf(text: str) -> str:
        return text

    @monitor_llm(monitor=spans.monitor)
    def background() -> None:
        begun.set()
        over.wait()
        leaf("a")
        chain(leaf, "inner").invoke("a", config(spans))

    def start(text: str) -> str:
        threads.append(threading.Thread(target=carry(background)))
        threads[0].start()
        begun.wait()
        return text

    chain(start).invoke("a", config(spans))
    over.set()
    threads[0].join()
    assert spans.tree() == AFTER


class Texts:
    """Decorated generators whose bodies run a decorated call, and a chain with one in it."""

    def __init__(self, spans: CapturedSpans) -> None:
        @monitor_llm(monitor=spans.monitor)
        def leaf(text: str) -> str:
            return text

        @monitor_llm(monitor=spans.monitor)
        def texts() -> Iterator[str]:
            yield leaf("a")
            yield chain(leaf, "inner").invoke("b", config(spans))

        @monitor_llm("texts", monitor=spans.monitor)
        async def atexts() -> AsyncIterator[str]:
            yield leaf("a")
            yield await chain(leaf, "inner").ainvoke("b", config(spans))

        self.sync, self.asynchronous = texts, atexts


BODY = """\
chain leaf ok
workflow inner ok
  chain leaf ok
"""
READ_LATER = "workflow chain ok\n  chain texts ok streamed\n" + indent(BODY, " " * 4)


def test_a_generators_body_is_its_own_wherever_it_is_made_and_read(spans: CapturedSpans) -> None:
    texts = Texts(spans).sync
    made: list[Iterator[str]] = []

    def make(_: str) -> str:
        made.append(texts())
        return ""

    chain(make).invoke("a", config(spans))
    assert list(made[0]) == ["a", "b"]
    assert spans.tree() == READ_LATER


def test_a_generators_body_is_its_own_in_a_chain_that_reads_it(spans: CapturedSpans) -> None:
    texts = Texts(spans).sync
    made, read = texts(), list[str]()
    first = chain(lambda _: read.append(next(made)), "first")
    rest = chain(lambda _: read.extend(made), "rest")
    first.invoke("a", config(spans))
    rest.invoke("a", config(spans))
    assert read == ["a", "b"]
    # To LangChain it is the reader's, and no outermost run.
    body = "workflow texts ok streamed\n" + indent(BODY.replace("workflow", "chain"), "  ")
    assert sorted(spans.tree().splitlines()) == sorted(
        ["workflow first ok", "workflow rest ok", *body.splitlines()]
    )
    assert body in spans.tree()


async def test_an_async_generators_body_is_its_own_too(spans: CapturedSpans) -> None:
    texts = Texts(spans).asynchronous
    made: list[AsyncIterator[str]] = []

    async def make(_: str) -> str:
        made.append(texts())
        return ""

    await chain(make).ainvoke("a", config(spans))
    assert [text async for text in made[0]] == ["a", "b"]
    assert await asyncio.to_thread(spans.tree) == READ_LATER


def test_a_graph_that_decorated_calls_read_step_by_step_stays_one(spans: CapturedSpans) -> None:
    """Its nodes run in the calls, and are the graph's."""
    steps = graph(lambda state: {"text": "b"}).stream(
        {"text": "a"}, config(spans), stream_mode="values"
    )

    @monitor_llm(monitor=spans.monitor)
    def step() -> Any:
        return next(steps, None)

    assert step() == {"text": "a"}
    assert step() == {"text": "b"}
    assert step() is None
    assert spans.tree() == (
        "workflow step ok\n  workflow LangGraph ok\n    task node [node] ok\n"
        "workflow step ok\nworkflow step ok\n"
    )


def test_a_generator_holds_its_readers_context_for_a_step_alone(spans: CapturedSpans) -> None:
    inside: list[Any] = []

    @monitor_llm(monitor=spans.monitor)
    def texts() -> Iterator[str]:
        inside.append(ACTIVE.get())
        yield "a"

    items = texts()
    assert next(items) == "a"
    assert (inside[0].reader, inside[0].token) == (None, None)
    items.close()
