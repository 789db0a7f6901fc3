"""LangGraph plays the handler suite's scenarios of agents and pauses."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.importorskip("langgraph")

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_kit import scripted
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from langgraph_kit import ask, line, say

from llmops_core.testing import AGENT_SCENARIOS, HandlerConformance
from llmops_core.testing.fixtures import spans
from llmops_integrations.langgraph import monitor_graph

__all__ = ["spans"]


def _graph(name, *agents):
    builder = StateGraph(MessagesState)
    before = START
    for node, agent in agents:
        builder.add_node(node, agent)
        builder.add_edge(before, node)
        before = node
    return builder.compile(name=name)


def _answer(graph, scenario, monitor):
    graph = monitor_graph(graph, monitor=monitor) if monitor else graph
    return graph.invoke({"messages": [("user", scenario.question)]})["messages"][-1].content


def nested_agents(scenario, monitor):
    inner, outer = scenario.replies
    worker = create_agent(scripted(inner), [], name="worker")

    @tool
    def ask_worker(question: str) -> str:
        """Ask the worker."""
        return str(worker.invoke({"messages": [("user", question)]})["messages"][-1].content)

    usage = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    wanted = {"name": "ask_worker", "args": {"question": "2 + 2?"}, "id": "c1"}
    model = scripted(AIMessage("", tool_calls=[wanted], usage_metadata=usage), outer)
    boss = create_agent(model, [ask_worker], name="boss")
    return _answer(_graph("team", ("desk", boss)), scenario, monitor)


def handoff(scenario, monitor):
    first, second = (scripted(reply) for reply in scenario.replies)
    writer, editor = create_agent(first, name="writer"), create_agent(second, name="editor")
    graph = _graph("press", ("writer", writer), ("editor", editor))
    return _answer(graph, scenario, monitor)


def failed_handoff(scenario, monitor):
    """A command goes to a node that the graph has not: LangGraph ignores it."""
    model = scripted(*scenario.replies)

    def writer(state):
        return Command(goto="editor", update={"messages": [model.invoke(state["messages"])]})

    return _answer(_graph("press", ("writer", writer)), scenario, monitor)


def interrupt(scenario, monitor):
    graph = line(("draft", ask(scenario.question)), ("publish", say("published")), name="review")
    graph = monitor_graph(graph, monitor=monitor) if monitor else graph
    config = {"configurable": {"thread_id": scenario.session}}
    graph.invoke({"said": []}, config)
    return graph.invoke(Command(resume="very fine"), config)


PLAYS = {play.__name__: play for play in (nested_agents, handoff, failed_handoff, interrupt)}


class TestLangGraphAgents(HandlerConformance):
    """A node stands around an agent, and others in it; a node counts as an agent."""

    scenarios = AGENT_SCENARIOS
    names: ClassVar = {
        "draft": "draft [draft]",
        "publish": "publish [publish]",
        "by transfer": "by command",
    }
    around: ClassVar = {
        "nested_agents": """\
  workflow team ok
+   task desk [desk] ok
      agent boss ok
+       task model [boss] ok
          llm scripted-1 [boss] ok 12+3 tokens
+       task tools [boss] ok
          tool ask_worker [boss] ok
            agent worker ok
+             task model [worker] ok
                llm scripted-1 [worker] ok 12+3 tokens
+       task model [boss] ok
          llm scripted-1 [boss] ok 12+3 tokens
    handoff boss → worker [boss] -> worker by tool handed_off
""",
        "handoff": """\
  workflow press ok
+   task writer [writer] ok
      agent writer ok
+       task model [writer] ok
          llm scripted-1 [writer] ok 12+3 tokens
    handoff writer → editor [writer] -> editor by edge handed_off
+   task editor [editor] ok
      agent editor ok
+       task model [editor] ok
          llm scripted-1 [editor] ok 12+3 tokens
""",
    }

    def play(self, scenario, monitor):
        return PLAYS[scenario.name](scenario, monitor)
