"""LangGraph's runs, as the LangChain handler alone sees them."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_kit import add, divide, recording, scripted
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from llmops_integrations.langchain import handoffs


class State(TypedDict):
    seen: Annotated[list[Any], operator.add]


class Messages(TypedDict):
    messages: Annotated[list[Any], operator.add]


def _graph(nodes, edges, *, state=State, conditional=(), **kwargs):
    builder = StateGraph(state)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for edge in edges:
        builder.add_edge(*edge)
    for where, route in conditional:
        builder.add_conditional_edges(where, route)
    return builder.compile(**kwargs)


def _call(name="add", call_id="c1", **args):
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": call_id}])


ASK = {"messages": [("user", "add 1 and 2")]}


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_nodes_are_tasks_and_edges_are_hidden(way):
    _, recorder, config = recording()
    model = scripted("hello")

    def write(state):
        model.invoke("x")
        return {"seen": [1]}

    graph = _graph(
        {"write": write, "check": lambda state: {"seen": [2]}},
        [],
        conditional=[
            (START, lambda state: "write"),
            ("write", lambda state: "check"),
            ("check", lambda state: END),
        ],
    )
    given = {"seen": []}
    if way == "invoke":
        graph.invoke(given, config)
    elif way == "stream":
        list(graph.stream(given, config))
    elif way == "ainvoke":
        await graph.ainvoke(given, config)
    else:
        async for _ in graph.astream(given, config):
            pass
    assert recorder.tree().splitlines() == [
        "workflow LangGraph ok",
        "  task write [write] ok",
        "    llm scripted-1 ok",
        "  task check [check] ok",
    ]
    assert recorder.failures == []


def test_only_nodes_outside_an_agent_may_become_agents():
    _, recorder, config = recording()
    agent = create_agent(scripted(_call(a=1, b=2), "3"), [add], name="boss")
    graph = _graph({"r": agent}, [(START, "r")], state=Messages, name="team")
    graph.invoke(ASK, config)
    assert recorder.tree().splitlines() == [
        "workflow team ok",
        "  task r [r] ok",
        "    agent boss [boss] ok",
        "      task model [boss] ok",
        "        llm scripted-1 ok",
        "      task tools [boss] ok",
        "        tool add ok",
        "      task model [boss] ok",
        "        llm scripted-1 ok",
    ]
    named = {run: f["name"] for e, run, _, f in recorder.events if e == "start"}
    assert [named[run] for run in recorder.promotable] == ["r"]


@pytest.mark.parametrize("name", ["boss", None])
def test_a_lone_agent_is_an_agent_and_no_workflow(name):
    _, recorder, config = recording()
    agent = create_agent(scripted(_call(a=1, b=2), "3"), [add], name=name)
    agent.invoke(ASK, config)
    shown = name or "LangGraph"
    nodes = f" [{name}]" if name else ""
    assert recorder.tree().splitlines()[:3] == [
        f"agent {shown} [{shown}] ok",
        f"  task model{nodes} ok",
        "    llm scripted-1 ok",
    ]


def test_an_agent_as_a_tool_is_an_agent_below_the_tool():
    _, recorder, config = recording()
    inner = create_agent(scripted("found"), [], name="researcher")

    @tool
    def research(topic: str) -> str:
        """Ask the researcher."""
        return inner.invoke({"messages": [("user", topic)]})["messages"][-1].content

    boss = create_agent(scripted(_call("research", topic="x"), "done"), [research], name="boss")
    boss.invoke(ASK, config)
    lines = recorder.tree().splitlines()
    assert "    tool research ok" in lines
    assert "      agent researcher [researcher] ok" in lines


def test_a_subgraph_is_between_its_nodes():
    _, recorder, config = recording()
    inner = _graph({"fetch": lambda s: {"seen": [1]}}, [(START, "fetch")], name="inner")
    _graph({"research": inner}, [(START, "research")]).invoke({"seen": []}, config)
    assert recorder.tree().splitlines() == [
        "workflow LangGraph ok",
        "  task research [research] ok",
        "    chain inner ok",
        "      task fetch [research] ok",
    ]


def test_functional_tasks_are_tasks():
    _, recorder, config = recording()

    @task
    def double(x):
        return 2 * x

    @entrypoint()
    def flow(x):
        return [double(i).result() for i in range(x)]

    flow.invoke(2, config)
    assert recorder.tree().splitlines() == [
        "workflow LangGraph ok",
        "  task flow [flow] ok",
        "    task double [flow] ok",
        "    task double [flow] ok",
    ]


def test_a_chain_as_a_node_keeps_its_runnables():
    _, recorder, config = recording()
    node = RunnableLambda(lambda s: s["seen"]) | RunnableLambda(lambda seen: {"seen": [1]})
    graph = _graph({"work": node}, [(START, "work")], conditional=[("work", lambda s: END)])
    graph.invoke({"seen": []}, config)
    assert recorder.tree().splitlines() == [
        "workflow LangGraph ok",
        "  task work [work] ok",
        "    chain RunnableLambda ok",
        "    chain RunnableLambda ok",
    ]


def test_a_fan_out_is_many_nodes():
    _, recorder, config = recording()
    graph = _graph(
        {"plan": lambda s: {}, "work": lambda s: {"seen": [s]}},
        [(START, "plan")],
        conditional=[("plan", lambda s: [Send("work", i) for i in range(3)])],
    )
    graph.invoke({"seen": []}, config)
    assert recorder.tree().splitlines() == [
        "workflow LangGraph ok",
        "  task plan [plan] ok",
        *["  task work [work] ok"] * 3,
    ]


def test_no_code_of_the_class_of_what_a_task_returns_is_called():
    calls = []

    class Watched(type):
        def __getattribute__(cls, name):
            calls.append(name)
            return type.__getattribute__(cls, name)

        def __eq__(cls, other):
            calls.append("==")
            return cls is other

        __hash__ = type.__hash__

    returned = Watched("Returned", (), {})()
    calls.clear()
    assert list(handoffs.asked_by_outputs(returned)) == []
    assert list(handoffs.asked_by_outputs([returned])) == []
    assert list(handoffs.asked_by_edge(returned)) == []
    assert list(handoffs.asked_by_outputs(Command(goto=returned))) == []
    assert calls == []


@pytest.mark.parametrize("read", [handoffs.asked_by_outputs, handoffs.asked_by_edge])
@pytest.mark.parametrize("item", [0.5, "text", {}])
def test_of_a_long_list_that_asks_for_nothing_a_few_items_are_looked_at(read, item, monkeypatch):
    looked = []
    monkeypatch.setattr(handoffs, "_is", lambda value, name: looked.append(value))
    assert list(read([item] * 1_000_000)) == []
    assert len(looked) <= 2_000


def test_a_fan_out_of_a_thousand_is_a_thousand_requests():
    many = [Send(f"work{number}", number) for number in range(1_000)]
    for found in (
        handoffs.asked_by_edge(many),
        handoffs.asked_by_outputs(Command(goto=many)),
        handoffs.asked_by_outputs([Command(goto=one.node) for one in many]),
        handoffs.asked_by_edge(["end", *many[:500], "other", *many[500:]]),
    ):
        assert [asked.target for asked in found] == [one.node for one in many]


def test_a_list_of_updates_and_commands_asks_for_what_its_commands_do():
    found = handoffs.asked_by_outputs([*[{"seen": [1]}] * 20, Command(goto="a"), 1])
    assert [asked.target for asked in found] == ["a"]


def test_a_node_has_its_step_and_where_it_stands():
    _, recorder, config = recording()
    _graph({"a": lambda s: {}}, [(START, "a")]).invoke({"seen": []}, config)
    node = recorder.of("start")[1]
    assert (node["step"], node["framework"]) == (1, "langgraph")
    assert node["attributes"]["langgraph.node"] == "a"
    assert node["attributes"]["langgraph.triggers"] == '["branch:to:a"]'
    assert node["attributes"]["langgraph.checkpoint_ns"].startswith("a:")


def test_an_interrupt_is_no_error_and_reaches_the_root():
    """The graph ends normally, and what its callback is given says nothing of the interrupt."""
    _, recorder, config = recording()
    ask = lambda state: {"seen": [interrupt("sure?")]}  # noqa: E731
    inner = _graph({"ask": ask}, [(START, "ask")], name="inner")
    graph = _graph({"outer": inner}, [(START, "outer")], checkpointer=InMemorySaver())
    thread = {**config, "configurable": {"thread_id": "t"}}
    graph.invoke({"seen": []}, thread)
    assert recorder.tree().splitlines() == [
        "workflow LangGraph interrupted",
        "  task outer [outer] interrupted",
        "    chain inner interrupted",
        "      task ask [outer] interrupted",
    ]
    assert all("error_type" not in fields for fields in recorder.of("end"))
    assert recorder.of("start")[0]["session_id"] == "t"
    recorder.events.clear()
    graph.invoke(Command(resume="yes"), thread)
    assert "interrupted" not in recorder.tree()


def test_an_interrupt_of_a_graph_inside_a_chain_ends_at_the_graph():
    _, recorder, config = recording()
    ask = lambda state: {"seen": [interrupt("sure?")]}  # noqa: E731
    graph = _graph({"ask": ask}, [(START, "ask")], checkpointer=InMemorySaver(), name="inner")
    thread = {"configurable": {"thread_id": "t"}}
    chain = RunnableLambda(lambda x: graph.invoke({"seen": []}, thread) and None)
    chain.invoke(1, {**config, "run_name": "outer"})
    assert recorder.tree().splitlines()[:2] == [
        "workflow outer ok",
        "  chain inner interrupted",
    ]


def test_a_handoff_to_the_parent_is_no_error():
    _, recorder, config = recording()
    go = lambda state: Command(goto="b", graph=Command.PARENT)  # noqa: E731
    inner = _graph({"go": go}, [(START, "go")], name="inner")
    graph = _graph({"a": inner, "b": lambda s: {"seen": [1]}}, [(START, "a")])
    graph.invoke({"seen": []}, config)
    assert recorder.tree().splitlines() == [
        "workflow LangGraph ok",
        "  task a [a] handed_off",
        "    chain inner handed_off",
        "      task go [a] handed_off",
        "  task b [b] ok",
    ]


def test_an_error_in_a_node_is_an_error_all_the_way_up():
    _, recorder, config = recording()
    node = lambda state: divide.invoke({"a": 1, "b": 0})  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        _graph({"work": node}, [(START, "work")]).invoke({"seen": []}, config)
    assert [e["outcome"] for e in recorder.of("end")] == ["error"] * 3


def test_a_tool_call_with_wrong_arguments_is_the_tool_s_error_alone():
    _, recorder, config = recording()
    agent = create_agent(scripted(_call(a="x"), "sorry"), [add], name="boss")
    agent.invoke(ASK, config)
    by_name = {(e["kind"], e["name"]): e["outcome"] for e in recorder.of("end")}
    assert by_name["tool", "add"] == "error"
    assert by_name["agent", "boss"] == "ok"


def test_the_run_table_is_empty_after_graphs():
    handler, _, config = recording()
    agent = create_agent(scripted(_call(a=1, b=2), "3"), [add], name="boss")
    agent.invoke(ASK, config)
    assert len(handler._runs) == 0
