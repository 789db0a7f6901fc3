"""``monitor_graph``: a copy that is the graph in every way, and records each run once."""

from __future__ import annotations

import gc
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.callbacks import BaseCallbackHandler, CallbackManager, dispatch_custom_event
from langchain_kit import failures_of_ours, scripted
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph_kit import State, agent, config, line, one, say

from llmops_core import ConfigError, Monitor
from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langchain import LLMOpsCallbackHandler
from llmops_integrations.langgraph import LangGraphHandler, monitor_graph

START: dict[str, Any] = {"said": []}
LINE = "workflow LangGraph ok session=thread-1\n  task a [a] ok\n"


def test_the_copy_is_the_graph_in_every_way(spans: CapturedSpans):  # noqa: F811
    graph = one(name="desk")
    before = dict(vars(graph))
    copied = monitor_graph(graph, agents=["plan"], monitor=spans.monitor)
    assert vars(graph) == before
    assert copied is not graph
    assert type(copied) is type(graph)
    assert (copied.name, copied.get_name()) == ("desk", "desk")
    assert copied.nodes == graph.nodes
    assert copied.checkpointer is graph.checkpointer
    assert copied.get_graph().to_json() == graph.get_graph().to_json()
    assert copied.get_input_jsonschema() == graph.get_input_jsonschema()
    assert copied.get_output_jsonschema() == graph.get_output_jsonschema()
    others = {k: v for k, v in vars(copied).items() if k not in ("config", "nodes", "channels")}
    assert others == {k: v for k, v in vars(graph).items() if k in others}


def test_the_graph_itself_is_not_monitored(spans: CapturedSpans):  # noqa: F811
    graph = one()
    monitor_graph(graph, monitor=spans.monitor)
    graph.invoke(START, config())
    assert spans() == []


async def test_every_way_to_call_it_records_once(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(line(("a", say("a")), saver=None), monitor=spans.monitor)
    graph.invoke(START)
    await graph.ainvoke(START)
    list(graph.stream(START))
    assert [chunk async for chunk in graph.astream(START)]
    assert [event async for event in graph.astream_events(START, version="v2")]
    graph.batch([START, START])
    await graph.abatch([START])
    graph.with_config(tags=["x"]).invoke(START)
    graph.copy().invoke(START)
    assert spans.tree() == "workflow LangGraph ok\n  task a [a] ok\n" * 10


def test_its_state_can_be_read_and_written(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(one(), monitor=spans.monitor)
    graph.invoke(START, config())
    assert graph.get_state(config()).values == {"said": ["planned"]}
    assert graph.get_state(config()).next == ("approve",)
    graph.update_state(config(), {"said": ["edited"]})
    assert graph.get_state(config()).values == {"said": ["planned", "edited"]}
    assert len(list(graph.get_state_history(config()))) == 4


def test_what_is_bound_to_the_graph_stays(spans: CapturedSpans):  # noqa: F811
    seen: list[str] = []

    class Other(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            seen.append(kwargs["name"])

    for callbacks in ([Other()], CallbackManager([Other()], [Other()])):
        bound = line(("a", say("a"))).with_config(tags=["mine"], callbacks=callbacks)
        graph = monitor_graph(bound, monitor=spans.monitor)
        graph.invoke(START, config())
        assert "a" in seen
        seen.clear()
        bound.invoke(START, config())
        assert "a" in seen
        seen.clear()
    assert spans.tree() == LINE * 2
    assert {span.tags for span in spans()} == {("mine",)}


@pytest.mark.parametrize("turns", [2, 3])
def test_monitoring_again_records_once(turns: int, spans: CapturedSpans):  # noqa: F811
    graph = line(("a", say("a")))
    for _ in range(turns):
        graph = monitor_graph(graph, monitor=spans.monitor)
    graph.invoke(START, config())
    assert spans.tree() == LINE
    assert len(graph.config["callbacks"]) == 1


@pytest.mark.parametrize("kind", [LLMOpsCallbackHandler, LangGraphHandler])
def test_an_explicit_handler_beside_it_records_once(
    kind: Any,
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(one(), monitor=spans.monitor)
    graph.invoke(START, config(callbacks=[kind(spans.monitor)]))
    assert spans.tree() == (
        "workflow LangGraph interrupted session=thread-1\n"
        "  task plan [plan] ok\n"
        "  task approve [approve] interrupted\n"
    )
    assert [bool(s.wait_key) for s in spans() if s.parent_id is None] == [True]
    assert failures_of_ours(spans.monitor) == {}


def test_custom_events_are_recorded_once_beside_an_explicit_handler(
    spans: CapturedSpans,  # noqa: F811
):
    graph = line(("a", lambda state: dispatch_custom_event("half", {"done": 1}) or say("a")(state)))
    graph = monitor_graph(graph, monitor=spans.monitor)
    for callbacks in ([], [LLMOpsCallbackHandler(spans.monitor)]):
        graph.invoke(START, config(callbacks=callbacks))
    assert [span.name for span in spans() if span.kind == "event"] == ["half", "half"]


def test_monitored_graphs_in_a_monitored_graph_record_once(spans: CapturedSpans):  # noqa: F811
    inner = monitor_graph(line(("b", say("b")), saver=None, name="inner"), monitor=spans.monitor)
    called = monitor_graph(line(("c", say("c")), saver=None, name="called"), monitor=spans.monitor)
    outer = line(("a", inner), ("f", lambda state: called.invoke(START)), name="outer")
    monitor_graph(outer, monitor=spans.monitor).invoke(START, config())
    assert spans.tree() == (
        "workflow outer ok session=thread-1\n"
        "  task a [a] ok\n"
        "    chain inner [a] ok\n"
        "      task b [a] ok\n"
        "  task f [f] ok\n"
        "    chain called [f] ok\n"
        "      task c [f] ok\n"
    )


def test_a_monitored_graph_in_an_unmonitored_one_is_a_workflow_of_its_own(
    spans: CapturedSpans,  # noqa: F811
):
    inner = monitor_graph(line(("b", say("b")), saver=None, name="inner"), monitor=spans.monitor)
    line(("a", inner)).invoke(START, config())
    assert [(span.name, span.kind) for span in spans()][-1][0] == "inner"


def test_a_functional_workflow_can_be_monitored(spans: CapturedSpans):  # noqa: F811
    @task
    def double(n: int) -> int:
        return 2 * n

    @entrypoint(checkpointer=InMemorySaver())
    def workflow(n: int) -> int:
        return double(n).result()

    graph = monitor_graph(workflow, monitor=spans.monitor)
    assert type(graph) is type(workflow)
    assert graph.invoke(3, config()) == 6
    assert spans.tree().startswith("workflow ")
    assert "task double" in spans.tree()


def test_a_copy_keeps_its_monitor_and_lets_it_go(spans: CapturedSpans):  # noqa: F811
    gc.collect()
    first = monitor_graph(one(), monitor=spans.monitor)
    second = monitor_graph(one(), monitor=spans.monitor)
    (handler,) = first.config["callbacks"]
    assert second.config["callbacks"] == [handler]
    other = Monitor("memory:", durability="memory")
    (foreign,) = monitor_graph(one(), monitor=other).config["callbacks"]
    assert foreign is not handler
    other.close()


# ---- agents= ----


def test_named_nodes_are_agents(spans: CapturedSpans):  # noqa: F811
    graph = line(("writer", say("w")), ("printer", say("p")), name="press")
    monitor_graph(graph, agents=["writer"], monitor=spans.monitor).invoke(START, config())
    assert spans.tree() == (
        "workflow press ok session=thread-1\n  agent writer ok\n  task printer [printer] ok\n"
    )


def test_names_hold_for_the_graph_that_named_them(spans: CapturedSpans):  # noqa: F811
    for name, agents in (("first", ["a"]), ("second", None)):
        graph = line(("a", say("a")), saver=None, name=name)
        monitor_graph(graph, agents=agents, monitor=spans.monitor).invoke(START)
    assert spans.tree() == "workflow first ok\n  agent a ok\nworkflow second ok\n  task a [a] ok\n"


def test_names_hold_under_another_run_name_and_in_graphs_inside(
    spans: CapturedSpans,  # noqa: F811
):
    inner = line(("b", say("b")), saver=None, name="inner")
    graph = monitor_graph(
        line(("a", inner), name="outer"), agents=["a", "b"], monitor=spans.monitor
    )
    graph.invoke(START, config(run_name="renamed"))
    kinds = {(span.kind, span.name) for span in spans()}
    assert {("agent", "a"), ("agent", "b"), ("workflow", "renamed")} <= kinds


def test_a_plain_handler_outside_knows_the_named_agents_too(spans: CapturedSpans):  # noqa: F811
    inner = line(("b", say("b")), saver=None, name="inner")
    inner = monitor_graph(inner, agents=["b"], monitor=spans.monitor)
    line(("a", lambda state: inner.invoke(START))).invoke(
        START, config(callbacks=[LLMOpsCallbackHandler(spans.monitor)])
    )
    assert ("agent", "b") in {(span.kind, span.name) for span in spans()}


def test_an_agent_that_langchain_made_stays_one_agent(spans: CapturedSpans):  # noqa: F811
    monitor_graph(agent(), monitor=spans.monitor).invoke({"messages": [("user", "x")]}, config())
    assert [span.name for span in spans() if span.kind == "agent"] == ["teller"]


# ---- what cannot be monitored ----


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: StateGraph(State), "monitor_graph(builder.compile())"),
        (lambda: RemoteGraph("x", url="http://localhost:1"), "where it runs"),
        (lambda: one().bind(stop=["x"]), "bind the copy"),
        (lambda: scripted("x"), "LLMOpsCallbackHandler()"),
        (lambda: None, "NoneType was given to monitor_graph()"),
        (lambda: type(one()), "The class CompiledStateGraph was given"),
    ],
    ids=["builder", "remote graph", "bound", "model", "none", "class"],
)
def test_what_is_no_compiled_graph_is_refused(make: Any, says: str):
    with pytest.raises(ConfigError) as caught:
        monitor_graph(make())
    assert says.lower() in str(caught.value).lower()
    assert caught.value.found
    assert caught.value.expected == "expected a compiled graph"
    assert caught.value.do


def test_an_unknown_agent_name_is_refused_with_the_likely_one(spans: CapturedSpans):  # noqa: F811
    with pytest.raises(ConfigError, match="Did you mean 'approve'"):
        monitor_graph(one(), agents=["aprove"], monitor=spans.monitor)
    with pytest.raises(ConfigError, match="Expected approve, plan"):
        monitor_graph(one(), agents=[None], monitor=spans.monitor)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"Write \['plan'\]"):
        monitor_graph(one(), agents="plan", monitor=spans.monitor)
