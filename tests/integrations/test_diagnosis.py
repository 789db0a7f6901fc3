"""Planted faults are diagnosed from stored spans alone: lost, altered, dropped, back and forth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

pytest.importorskip("langgraph")

import operator

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from llmops_core import Monitor, open_storage, spans_from_arrow
from llmops_core.analysis.multi_agent import Found, MultiAgent
from llmops_integrations import demo
from llmops_integrations.langgraph import monitor_graph


class Scripted(GenericFakeChatModel):
    """A model that says what it was told to say, and calls tools by name."""

    def bind_tools(self, tools: object, **kwargs: object) -> Scripted:
        """Take any tools: the script knows which one it calls."""
        return self


def says(*messages: str | AIMessage) -> Scripted:
    return Scripted(
        messages=iter([m if isinstance(m, AIMessage) else AIMessage(m) for m in messages])
    )


def transfer(to: str, number: int = 1, said: str = "") -> AIMessage:
    call = {"name": f"transfer_to_{to}", "args": {}, "id": f"call-{number}"}
    return AIMessage(said, tool_calls=[call])


@pytest.fixture
def diagnosed(tmp_path: Path) -> Callable[..., tuple[Found, MultiAgent]]:
    """Run a graph monitored, and analyse what was stored, read back by another reader."""

    def run(use: Callable[[Monitor], Any]) -> tuple[Found, MultiAgent]:
        url = f"parquet:{tmp_path / 'data'}"
        with Monitor(storage=url) as monitor:
            use(monitor)
            assert monitor.flush(60).complete
        analysis = MultiAgent()
        with open_storage(url) as storage:
            found = analysis.add_arrow(storage.query())
        return found, analysis

    return run


Diagnosed = Callable[..., tuple[Found, MultiAgent]]


def lost(found: Found) -> dict[tuple[str, str], dict[str, bool]]:
    return {
        (row.source, row.target): {item.value: item.reacquired for item in row.lost}
        for row in found.drift
    }


def statuses(found: Found) -> list[tuple[str, str, str]]:
    return [(h.source, h.target, h.status) for h in found.handoffs]


def test_the_demo_loses_the_order_number_on_its_way_to_shipping(diagnosed: Diagnosed) -> None:
    def use(monitor: Monitor) -> None:
        graph = demo.support_desk()
        for talk in demo.CONVERSATIONS[:1]:
            demo.hold(graph, talk, callbacks=[demo.handler(monitor)])

    found, _ = diagnosed(use)
    # Shipping had to look it up again, so this loss cost something.
    assert lost(found)["router", "shipping"]["A-1042"] is True
    assert "A-1042" not in lost(found)["router", "billing"]
    assert ("shipping", "reviewer", "pending") in statuses(found)
    assert all(row.altered == row.added == () for row in found.drift)


class Desk(TypedDict, total=False):
    text: str
    log: Annotated[list[str], operator.add]


def node(model: Scripted, role: str, goto: str) -> Callable[[Desk], Command[Any]]:
    def run(state: Desk) -> Command[Any]:
        said = model.invoke([SystemMessage(role), HumanMessage(state["text"])])
        return Command(goto=goto, update={"text": said.content})

    return run


def line(*nodes: tuple[str, Scripted], to: dict[str, str] | None = None) -> Any:
    """Agents in a row: each is given what the one before said."""
    builder = StateGraph(Desk)
    names = [name for name, _ in nodes]
    for at, (name, model) in enumerate(nodes):
        goto = (to or {}).get(name) or (names[at + 1] if at + 1 < len(names) else END)
        builder.add_node(name, node(model, f"You are the {name}.", goto))
    builder.add_edge(START, names[0])
    return builder.compile(name="line")


def test_an_altered_quantity_is_told_with_what_it_became(diagnosed: Diagnosed) -> None:
    graph = line(
        ("sales", says("Send 21 boxes of paper to Anna Berg.")),
        ("store", says("21 boxes were sent.")),
    )

    def use(monitor: Monitor) -> None:
        given = {"text": "Anna Berg wants 12 boxes of paper."}
        monitor_graph(graph, monitor=monitor).invoke(given)

    found, _ = diagnosed(use)
    (row,) = found.drift
    assert [(c.value, c.becomes) for c in row.altered] == [("12", "21")]
    assert row.lost == ()


def test_two_agents_that_send_the_work_back_and_forth_are_a_loop(diagnosed: Diagnosed) -> None:
    turns = iter(["b", "a", "b", "a", "b", END])

    def agent(model: Scripted) -> Callable[[Desk], Command[Any]]:
        def run(state: Desk) -> Command[Any]:
            model.invoke([HumanMessage(state["text"])])
            return Command(goto=next(turns))

        return run

    builder = StateGraph(Desk)
    builder.add_node("a", agent(says(*["please do it"] * 3)))
    builder.add_node("b", agent(says(*["no, you"] * 3)))
    builder.add_edge(START, "a")
    graph = builder.compile(name="loop")
    found, _ = diagnosed(lambda m: monitor_graph(graph, monitor=m).invoke({"text": "hello"}))
    assert [(loop.agents, loop.turns) for loop in found.loops] == [(("a", "b"), 5)]


def test_a_handoff_that_was_asked_for_and_never_happened_is_dropped(diagnosed: Diagnosed) -> None:
    class Refuses(Scripted):
        def invoke(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no model")

    def router(state: Desk) -> Command[Any]:
        says("go").invoke([HumanMessage(state["text"])])
        return Command(goto=["billing", "shipping"])

    def breaks(state: Desk) -> Desk:
        says("x").invoke([HumanMessage(state["text"])])
        raise RuntimeError("broken")

    builder = StateGraph(Desk)
    builder.add_node("router", router)
    builder.add_node("billing", breaks)
    builder.add_edge(START, "router")
    builder.add_node("shipping", breaks)
    graph = builder.compile(name="drops", interrupt_before=None)

    def use(monitor: Monitor) -> None:
        with pytest.raises(RuntimeError):
            monitor_graph(graph, monitor=monitor).invoke({"text": "hello"})

    found, analysis = diagnosed(use)
    assert {h.target for h in found.handoffs if h.status == "failed"} == {"billing", "shipping"}
    assert all(edge.failed == edge.handoffs for edge in analysis.edges())


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
def test_a_supervisor_that_loses_the_order_number_is_told(diagnosed: Diagnosed) -> None:
    pytest.importorskip("langgraph_supervisor")
    from langchain.agents import create_agent
    from langchain.agents.middleware import wrap_model_call
    from langgraph_supervisor import create_supervisor

    @wrap_model_call
    def forgetful(request: Any, handler: Any) -> Any:
        """Give the model a summary in place of what was said."""
        return handler(request.override(messages=[HumanMessage("A customer waits for a parcel.")]))

    desk = create_supervisor(
        [create_agent(says("It is on its way."), [], name="shipping", middleware=[forgetful])],
        model=says(transfer("shipping"), "Your parcel is on its way."),
    ).compile(name="desk")
    asked = {"messages": [("user", "I am Anna Berg. Where is the parcel of order #A-10423?")]}
    found, analysis = diagnosed(lambda m: monitor_graph(desk, monitor=m).invoke(asked))
    assert set(lost(found)["supervisor", "shipping"]) == {"#A-10423", "Anna Berg"}
    assert statuses(found) == [("supervisor", "shipping", "ok"), ("shipping", "supervisor", "ok")]
    assert {row.agent for row in analysis.agents()} == {"supervisor", "shipping"}


def test_a_swarm_that_shares_all_messages_loses_nothing(diagnosed: Diagnosed) -> None:
    pytest.importorskip("langgraph_swarm")
    from langchain.agents import create_agent
    from langgraph_swarm import create_handoff_tool, create_swarm

    alice = create_agent(
        says(transfer("bob", said="Bob knows.")),
        [create_handoff_tool(agent_name="bob")],
        name="alice",
    )
    bob = create_agent(says("It is out."), [create_handoff_tool(agent_name="alice")], name="bob")
    swarm = create_swarm([alice, bob], default_active_agent="alice").compile(name="swarm")
    asked = {"messages": [("user", "Anna Berg here: where is order #A-10423 of $42.50?")]}
    found, _ = diagnosed(lambda m: monitor_graph(swarm, monitor=m).invoke(asked))
    (row,) = found.drift
    assert (row.source, row.target, row.drift) == ("alice", "bob", 0.0)
    assert set(row.kept) == {"Anna Berg", "#A-10423", "$42.50"}
    assert row.added == ()


def test_a_prompt_that_a_capture_limit_cut_makes_unknown_and_never_lost(
    tmp_path: Path,
) -> None:
    """The same run, recorded whole and recorded with a small text budget."""
    from llmops_core import Freezer  # noqa: F401 - the budget is the recorder's

    long = "Some words about the weather. " * 600 + " The order is #A-10423 of Anna Berg."
    graph_of = lambda: line(("first", says(long)), ("second", says("done")))  # noqa: E731
    url = f"parquet:{tmp_path / 'cut'}"
    with Monitor(storage=url) as monitor:
        asked = {"text": "The order is #A-10423 of Anna Berg."}
        monitor_graph(graph_of(), monitor=monitor).invoke(asked)
        assert monitor.flush(60).complete
        spans = spans_from_arrow(monitor.query())
    received = [s for s in spans if s.kind == "llm" and s.agent == "second"]
    assert received[0].input_truncated, "the prompt is longer than what is kept"
    (row,) = MultiAgent().add_spans(spans).drift
    assert row.lost == row.altered == ()
    assert set(row.unknown) == {"#A-10423", "Anna Berg"}
