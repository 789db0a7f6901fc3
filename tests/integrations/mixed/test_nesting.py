"""Runs of one framework inside another's, and decorated functions between them: one tree."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("crewai")
pytest.importorskip("langgraph")

from crewai.tools import tool
from crewai_kit import act, agent, crew, final, task
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool as langchain_tool
from langchain_kit import scripted
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from llmops_core import carry, monitor_llm, monitoring_trace, traceparent
from llmops_core.testing.fixtures import CapturedSpans
from llmops_integrations.crewai import CrewListener
from llmops_integrations.langchain import LLMOpsCallbackHandler
from llmops_integrations.langgraph import monitor_graph

CREW = """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
"""


class State(TypedDict, total=False):
    text: str


def indented(tree: str, depth: int) -> str:
    return "".join("  " * depth + line + "\n" for line in tree.splitlines())


def graph_of(node: Any, name: str = "desk") -> Any:
    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(name=name)


def kickoff(*_: Any) -> str:
    return str(crew(task("t", agent("a"))).kickoff().raw)


def crew_with(tool_of_it: Any, **more: Any) -> Any:
    worker = agent("a", act(tool_of_it.name, query="x"), final("found"), tools=[tool_of_it])
    return crew(task("t", worker), **more)


def crew_tree(inside: str) -> str:
    return (
        "workflow crew ok\n"
        "  task t [a] ok\n"
        "    agent a ok\n"
        "      llm scripted-1 [a] ok 12+3 tokens\n"
        f"{indented(inside, 3)}"
        "      llm scripted-1 [a] ok 12+3 tokens\n"
    )


@pytest.fixture
def handler(spans: CapturedSpans) -> LLMOpsCallbackHandler:
    return LLMOpsCallbackHandler(spans.monitor)


# ---- two at a time ----


def test_a_chain_in_a_crews_tool_is_below_the_tool(spans, handler):
    chain = (RunnableLambda(lambda x: x) | scripted("a fact")).with_config(run_name="look up")

    @tool("search")
    def search(query: str) -> str:
        """Searches."""
        return str(chain.invoke(query, {"callbacks": [handler]}).content)

    with CrewListener(spans.monitor):
        crew_with(search).kickoff()
    assert spans.tree() == crew_tree(
        "tool search [a] ok\n"
        "  workflow look up [a] ok\n"
        "    chain RunnableLambda [a] ok\n"
        "    llm scripted-1 [a] ok 12+3 tokens\n"
    )
    assert len({span.trace_id for span in spans()}) == 1


def test_a_crew_in_a_graphs_node_is_below_the_node(spans):
    desk = monitor_graph(graph_of(lambda s: {"text": kickoff()}), monitor=spans.monitor)
    with CrewListener(spans.monitor):
        desk.invoke({"text": ""}, {"metadata": {"session_id": "chat-1"}})
    assert spans.tree() == (
        "workflow desk ok session=chat-1\n  task node [node] ok\n"
        + indented(CREW.replace("workflow crew ok", "workflow crew [node] ok"), 2)
    )
    assert {span.session_id for span in spans()} == {"chat-1"}
    assert len({span.trace_id for span in spans()}) == 1


async def test_an_async_crew_in_an_async_graphs_node_is_below_the_node(spans):
    async def node(state: State) -> State:
        return {"text": str((await crew(task("t", agent("a"))).akickoff()).raw)}

    desk = monitor_graph(graph_of(node), monitor=spans.monitor)
    with CrewListener(spans.monitor):
        await asyncio.gather(desk.ainvoke({"text": "1"}), desk.ainvoke({"text": "2"}))
    tree = await asyncio.to_thread(spans.tree)
    one = "workflow desk ok\n  task node [node] ok\n" + indented(
        CREW.replace("workflow crew ok", "workflow crew [node] ok"), 2
    )
    assert tree == one * 2


def test_a_graph_in_a_crews_tool_is_below_the_tool(spans):
    desk = monitor_graph(graph_of(lambda s: {"text": "done"}), monitor=spans.monitor)

    @tool("ask")
    def ask(query: str) -> str:
        """Asks."""
        return str(desk.invoke({"text": query})["text"])

    with CrewListener(spans.monitor):
        crew_with(ask).kickoff()
    assert spans.tree() == crew_tree(
        "tool ask [a] ok\n  workflow desk [a] ok\n    task node [node] ok\n"
    )


def test_a_crew_in_a_chains_tool_is_below_the_tool(spans, handler):
    @langchain_tool
    def research(query: str) -> str:
        """Researches."""
        return kickoff()

    with CrewListener(spans.monitor):
        research.invoke("x", {"callbacks": [handler]})
    assert spans.tree() == "tool research ok\n" + indented(CREW, 1)


# ---- all at once ----


def test_whatever_is_nearest_is_the_parent_however_deep(spans, handler):
    """A function, a graph, a function, a crew, a function in its tool, a chain, a function."""
    monitor = spans.monitor

    @monitor_llm("innermost", monitor=monitor)
    def innermost(text: str) -> str:
        return text

    chain = RunnableLambda(innermost).with_config(run_name="chain")

    @monitor_llm("in tool", monitor=monitor)
    def in_tool(query: str) -> str:
        return str(chain.invoke(query, {"callbacks": [handler]}))

    @tool("search")
    def search(query: str) -> str:
        """Searches."""
        return in_tool(query) + in_tool(query)

    @monitor_llm("in node", monitor=monitor)
    def in_node(text: str) -> str:
        return str(crew_with(search).kickoff().raw)

    desk = monitor_graph(graph_of(lambda s: {"text": in_node(s["text"])}), monitor=monitor)

    @monitor_llm("outermost", monitor=monitor)
    def outermost() -> Any:
        return desk.invoke({"text": "x"})

    with CrewListener(monitor):
        outermost()
    calls = "  chain in tool [a] ok\n    chain chain [a] ok\n      chain innermost [a] ok\n" * 2
    crewed = crew_tree("tool search [a] ok\n" + calls)
    assert spans.tree() == (
        "workflow outermost ok\n"
        "  workflow desk ok\n"
        "    task node [node] ok\n"
        "      chain in node [node] ok\n"
        + indented(crewed.replace("workflow crew ok", "workflow crew [node] ok"), 4)
    )
    assert len({span.trace_id for span in spans()}) == 1


def test_a_crew_in_a_chain_in_a_crews_tool_is_below_the_chain(spans, handler):
    inner = RunnableLambda(kickoff).with_config(run_name="inner")

    @tool("ask")
    def ask(query: str) -> str:
        """Asks."""
        return str(inner.invoke(query, {"callbacks": [handler]}))

    with CrewListener(spans.monitor):
        crew_with(ask, name="outer").kickoff()
    tree = spans.tree()
    assert tree.count("workflow inner [a] ok\n") == 1
    assert "        workflow inner [a] ok\n          chain crew [a] ok\n" in tree
    assert len({span.trace_id for span in spans()}) == 1


# ---- threads ----


def test_an_agent_in_a_bare_thread_or_an_executor_belongs_to_where_it_was_carried_from(
    spans, handler
):
    model = scripted("hi")

    def in_threads(state: State) -> State:
        thread = threading.Thread(target=carry(kickoff))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(carry(model.invoke), "x").result()
        return {"text": ""}

    desk = monitor_graph(graph_of(in_threads), monitor=spans.monitor)
    with CrewListener(spans.monitor):
        desk.invoke({"text": ""})
    tree = spans.tree()
    head, _, rest = tree.partition("\n  ")
    assert head == "workflow desk ok"
    assert rest.startswith(("agent node ok\n", "task node [node] ok\n"))
    assert "    workflow crew [node] ok\n      task t [a] ok\n" in tree
    assert tree.endswith("    llm scripted-1 [node] ok 12+3 tokens\n")


# ---- what is sent to other processes ----


def test_the_header_names_the_run_that_is_open_whatever_it_is_of(spans, handler):
    sent: dict[str, str | None] = {}

    def note(where: str) -> None:
        sent[where] = traceparent(spans.monitor)

    @tool("search")
    def search(query: str) -> str:
        """Searches."""
        note("search")
        RunnableLambda(lambda x: note("chain")).with_config(run_name="chain").invoke(
            query, {"callbacks": [handler]}
        )
        return query

    def node(state: State) -> State:
        note("node")
        crew_with(search).kickoff()
        return {"text": ""}

    desk = monitor_graph(graph_of(node), monitor=spans.monitor)
    with CrewListener(spans.monitor), monitoring_trace("conversation") as trace:
        desk.invoke({"text": ""})
    named = {span.name: span for span in spans()}
    assert sent == {w: f"00-{trace}-{named[w].span_id}-01" for w in ("node", "search", "chain")}


# ---- when nothing is monitored around ----


def test_what_is_not_monitored_is_nobodys_parent(spans, handler):
    """A crew that nobody listens to, around a chain; a graph that nobody monitors, around a crew."""

    @tool("search")
    def search(query: str) -> str:
        """Searches."""
        return str(scripted("a").invoke(query, {"callbacks": [handler]}).content)

    crew_with(search).kickoff()
    assert spans.tree() == "llm scripted-1 ok 12+3 tokens\n"
    with CrewListener(spans.monitor):
        graph_of(lambda s: {"text": kickoff()}).invoke({"text": ""})
    assert sorted(spans.tree().splitlines()) == sorted(
        ["llm scripted-1 ok 12+3 tokens", *CREW.splitlines()]
    )
