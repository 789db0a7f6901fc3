"""Breakers stop chains, graphs and agents: in sync, async and streamed calls, with everything told."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph")

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_kit import scripted
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send

from llmops_core import Breakers, BreakerTripped, Monitor, monitor_llm
from llmops_core.testing.fixtures import CapturedSpans, FakeClock, spans
from llmops_integrations.langchain import LLMOpsCallbackHandler
from llmops_integrations.langgraph import monitor_graph

__all__ = ["spans"]

HOW = ["invoke", "ainvoke", "stream", "astream"]


@pytest.fixture
def opened():
    monitors = []

    def make(**limits):
        clock = FakeClock()
        monitors.append(
            Monitor(
                storage="memory:", clock=clock, durability="memory", breakers=Breakers(**limits)
            )
        )
        return CapturedSpans(monitors[-1], clock)

    yield make
    for monitor in monitors:
        monitor.close()


def call(runnable: Any, given: Any, how: str, config: Any = None) -> Any:
    if how == "invoke":
        return runnable.invoke(given, config)
    if how == "stream":
        return list(runnable.stream(given, config))

    async def main() -> Any:
        if how == "ainvoke":
            return await runnable.ainvoke(given, config)
        return [piece async for piece in runnable.astream(given, config)]

    return asyncio.run(main())


def ping_pong(monitor: Monitor, *, models: bool) -> tuple[Any, list[str]]:
    """Two nodes that hand the work to each other, for ever."""
    ran: list[str] = []

    def node(name: str, other: str) -> Any:
        model = scripted("over to you")

        def work(state: Any) -> Command:
            ran.append(name)
            said = model.invoke(state["messages"]) if models else AIMessage("over to you")
            return Command(goto=other, update={"messages": [said]})

        return work

    builder = StateGraph(MessagesState)
    builder.add_node("ann", node("ann", "bob"))
    builder.add_node("bob", node("bob", "ann"))
    builder.add_edge(START, "ann")
    return monitor_graph(builder.compile(name="team"), monitor=monitor), ran


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("models", [True, False])
def test_a_ping_pong_is_stopped_within_two_turns(how, models, opened):
    spans = opened(ping_pong=2)
    graph, ran = ping_pong(spans.monitor, models=models)
    with pytest.raises(BreakerTripped) as caught:
        call(graph, {"messages": [("user", "q")]}, how)
    assert caught.value.limit == "ping_pong"
    assert ran in (["ann", "bob", "ann"], ["ann", "bob", "ann", "bob"])
    model_calls = [s for s in spans() if s.kind == "llm" and s.outcome == "ok"]
    assert len(model_calls) == (3 if models else 0)
    roots = [s for s in spans() if s.parent_id is None]
    assert [(s.outcome, s.error_type) for s in roots] == [("error", "llmops_core.BreakerTripped")]


def test_a_supervised_worker_that_is_asked_once_and_tools_in_a_loop_are_no_ping_pong(opened):
    spans = opened(ping_pong=2)

    @tool
    def add(a: int) -> int:
        """Add."""
        return a

    wanted = [
        AIMessage("", tool_calls=[{"name": "add", "args": {"a": n}, "id": f"c{n}"}])
        for n in range(6)
    ]
    agent = create_agent(scripted(*wanted, "done"), [add], name="clerk")
    agent = monitor_graph(agent, monitor=spans.monitor)
    assert agent.invoke({"messages": [("user", "q")]})["messages"][-1].content == "done"


@pytest.mark.parametrize("how", HOW)
def test_a_budget_stops_an_agent_within_one_call(how, opened):
    spans = opened(tokens=20)

    @tool
    def add(a: int) -> int:
        """Add."""
        return a

    usage = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    calls = [{"name": "add", "args": {"a": n}, "id": f"c{n}"} for n in range(4)]
    wanted = [AIMessage("", tool_calls=[one], usage_metadata=usage) for one in calls]
    agent = create_agent(scripted(*wanted, "done"), [add], name="clerk")
    agent = monitor_graph(agent, monitor=spans.monitor)
    with pytest.raises(BreakerTripped, match="used 30 tokens"):
        call(agent, {"messages": [("user", "q")]}, how)
    outcomes = [s.outcome for s in spans() if s.kind == "llm"]
    assert sorted(outcomes) == ["error", "ok", "ok"]
    assert spans.monitor.stats()["breakers"]["open"] == 0
    assert not spans.monitor.stats()["failures"]


@pytest.mark.parametrize("how", HOW)
def test_a_chain_is_stopped_with_a_handler_of_its_own(how, opened):
    spans = opened(calls=1)
    model = scripted("one", "two")

    def work(question: str) -> Any:
        return model.invoke(model.invoke(question).content).content

    async def awork(question: str) -> Any:
        return (await model.ainvoke((await model.ainvoke(question)).content)).content

    config = {"callbacks": [LLMOpsCallbackHandler(spans.monitor)], "run_name": "work"}
    with pytest.raises(BreakerTripped):
        call(RunnableLambda(work, afunc=awork), "q", how, config)
    assert spans.tree() == (
        "workflow work error llmops_core.BreakerTripped\n"
        "  llm scripted ok 12+3 tokens\n"
        "  llm scripted error llmops_core.BreakerTripped\n"
    ).replace("scripted", "scripted-1")


@pytest.mark.parametrize("how", ["stream", "astream"])
def test_a_stream_is_stopped_in_its_middle(how, opened):
    spans = opened(seconds=5)
    model = scripted("one two three four five six")
    pieces = []

    def read(config: Any) -> None:
        for piece in model.stream("q", config):
            pieces.append(piece)
            spans.clock.advance(2000)

    async def aread(config: Any) -> None:
        async for piece in model.astream("q", config):
            pieces.append(piece)
            spans.clock.advance(2000)

    config = {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]}
    with pytest.raises(BreakerTripped):
        read(config) if how == "stream" else asyncio.run(aread(config))
    assert len(pieces) == 3
    assert spans.tree() == "llm scripted-1 error llmops_core.BreakerTripped streamed\n"


@pytest.mark.parametrize("how", HOW)
def test_a_fan_out_of_a_graph_is_stopped(how, opened):
    class State(TypedDict):
        found: Annotated[list[int], operator.add]

    def graph_of(many: int, monitor: Monitor) -> Any:
        builder = StateGraph(State)
        builder.add_node("plan", lambda state: {})
        builder.add_node("look", lambda state: {"found": [state]})
        builder.add_edge(START, "plan")
        builder.add_conditional_edges("plan", lambda _: [Send("look", n) for n in range(many)])
        return monitor_graph(builder.compile(name="search"), monitor=monitor)

    spans = opened(fan_out=8)
    call(graph_of(8, spans.monitor), {"found": []}, how)
    with pytest.raises(BreakerTripped, match="9 runs at once"):
        call(graph_of(9, spans.monitor), {"found": []}, how)


def test_a_fallback_does_not_get_around_it(opened):
    spans = opened(calls=1)
    first, second = scripted("one"), scripted("two")
    model = first.with_fallbacks([second])

    def work(question: str) -> Any:
        return [model.invoke(question).content for _ in range(2)]

    with pytest.raises(BreakerTripped):
        RunnableLambda(work).invoke("q", {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]})
    assert len([s for s in spans() if s.kind == "llm" and s.outcome == "ok"]) == 1


def test_a_decorated_function_and_a_graph_share_one_budget(opened):
    spans = opened(calls=2)
    model = scripted("one")

    @monitor_llm("ask", "llm", monitor=spans.monitor)
    def ask() -> str:
        return "x"

    def node(state: Any) -> Any:
        ask()
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    graph = monitor_graph(builder.compile(name="graph"), monitor=spans.monitor)

    @monitor_llm("run", "workflow", monitor=spans.monitor)
    def run() -> None:
        graph.invoke({"messages": [("user", "q")]})
        ask()

    with pytest.raises(BreakerTripped, match="used 2 model calls"):
        run()


@pytest.mark.parametrize("how", HOW)
def test_without_breakers_the_same_programs_run_on(how, spans):
    graph, ran = ping_pong(spans.monitor, models=True)
    with pytest.raises(Exception, match="Recursion limit"):
        call(graph, {"messages": [("user", "q")]}, how, {"recursion_limit": 12})
    assert len(ran) > 10
    assert LLMOpsCallbackHandler(spans.monitor).raise_error is False
