"""What LangGraph's programs become, as text: the same tree by every way to call a graph."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("langgraph")
pytest.importorskip("langgraph_supervisor")
pytest.importorskip("langgraph_swarm")

from langchain_kit import failures_of_ours
from langgraph_kit import WAYS
from langgraph_scenarios import ASK, SCENARIOS, GraphScenario, call_of, supervisor, swarm

from llmops_core import Span
from llmops_core.testing.fixtures import CapturedSpans, spans
from llmops_integrations.langgraph import monitor_graph

__all__ = ["spans"]

# create_react_agent, which the supervisor package still uses, says that it is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")

#: A node that is answered from its cache emits nothing: in the second turn there is no span of it.
TREES = {
    "static edges": """\
workflow desk ok
  task a [a] ok
  task b [b] ok
  task c [c] ok
""",
    "conditional edges": """\
workflow desk ok
  task a [a] ok
  task c [c] ok
""",
    "edges between agents": """\
workflow desk ok
  agent a ok
    chain node [a] ok
      llm scripted-1 [a] ok 12+3 tokens
  handoff a → b [a] -> b by edge handed_off
  agent b ok
    chain node [b] ok
      llm scripted-1 [b] ok 12+3 tokens
""",
    "loop of agents": """\
workflow desk ok
  agent writer ok
    chain node [writer] ok
      llm scripted-1 [writer] ok 12+3 tokens
  handoff writer → reviewer [writer] -> reviewer by edge handed_off
  agent reviewer ok
    chain node [reviewer] ok
      llm scripted-1 [reviewer] ok 12+3 tokens
  handoff reviewer → writer [reviewer] -> writer by edge handed_off
  agent writer ok
    chain node [writer] ok
      llm scripted-1 [writer] ok 12+3 tokens
  handoff writer → reviewer [writer] -> reviewer by edge handed_off
  agent reviewer ok
    chain node [reviewer] ok
      llm scripted-1 [reviewer] ok 12+3 tokens
""",
    "subgraph": """\
workflow desk ok
  task research [research] ok
    chain library [research] ok
      task fetch [research] ok
      agent read [research] ok
        chain node [research] ok
          llm scripted-1 [research] ok 12+3 tokens
  task b [b] ok
""",
    "fan-out": """\
workflow desk ok
  task plan [plan] ok
  handoff plan → work [plan] -> work by send handed_off
  handoff plan → work [plan] -> work by send handed_off
  handoff plan → work [plan] -> work by send handed_off
  task work [work] ok
  task work [work] ok
  task work [work] ok
  task slow [slow] ok
  task join [join] ok
""",
    "fan-out of the input": """\
workflow desk ok
  task work [work] ok
  task work [work] ok
""",
    "command to a node": """\
workflow desk ok
  task triage [triage] ok
  handoff triage → billing [triage] -> billing by command handed_off
  agent billing ok
    chain node [billing] ok
      llm scripted-1 [billing] ok 12+3 tokens
""",
    "command to the parent": """\
workflow desk ok
  task research [research] handed_off
    chain library [research] handed_off
      agent think [research] ok
        chain node [research] ok
          llm scripted-1 [research] ok 12+3 tokens
      task leave [research] handed_off
  handoff research → billing [research] -> billing by command handed_off
  agent billing ok
    chain node [billing] ok
      llm scripted-1 [billing] ok 12+3 tokens
""",
    "command in a subgraph": """\
workflow desk ok
  task research [research] ok
    chain library [research] ok
      task triage [research] ok
      handoff triage → billing [triage] -> billing by command handed_off
      agent billing [research] ok
        chain node [research] ok
          llm scripted-1 [research] ok 12+3 tokens
""",
    "command to the end": """\
workflow desk ok
  task a [a] ok
""",
    "retries": """\
workflow desk ok
  task flaky [flaky] error ConnectionError
  task flaky [flaky] error ConnectionError attempt=2
  task flaky [flaky] ok attempt=3
""",
    "node timeout": """\
workflow desk error langgraph.errors.NodeTimeoutError
  task a [a] ok
  task slow [slow] cancelled
""",
    "cache hit": """\
workflow desk ok
  task a [a] ok
  task b [b] ok
workflow desk ok
  task b [b] ok
""",
    "recursion limit": """\
workflow desk error langgraph.errors.GraphRecursionError
  task a [a] ok
  task b [b] ok
  task a [a] ok
""",
    "functional": """\
workflow LangGraph ok
  task flow [flow] ok
    task double [flow] ok
    task double [flow] ok
""",
    "functional agent": """\
workflow LangGraph ok
  task flow [flow] ok
    agent ask [flow] ok
      llm scripted-1 [flow] ok 12+3 tokens
""",
    "runtime names": """\
workflow friday ok
  task research [research] ok
    chain archive [research] ok
      task fetch [research] ok
  task b [b] ok
""",
    "lone agent": """\
agent boss ok
  task model [boss] ok
    llm scripted-1 [boss] ok
  task tools [boss] ok
    tool add [boss] ok
  task model [boss] ok
    llm scripted-1 [boss] ok 12+3 tokens
""",
    "nameless agent": """\
agent LangGraph ok
  task model [LangGraph] ok
    llm scripted-1 [LangGraph] ok 12+3 tokens
""",
    "agent in a graph": """\
workflow desk ok
  task sums [sums] ok
    agent boss ok
      task model [boss] ok
        llm scripted-1 [boss] ok
      task tools [boss] ok
        tool add [boss] ok
      task model [boss] ok
        llm scripted-1 [boss] ok 12+3 tokens
  handoff boss → b [boss] -> b by edge handed_off
  agent b ok
    chain node [b] ok
      llm scripted-1 [b] ok 12+3 tokens
""",
    "agent that leaves": """\
workflow desk ok
  task r [r] handed_off
    agent researcher handed_off
      task model [researcher] ok
        llm scripted-1 [researcher] ok
      task tools [researcher] handed_off
        tool pass_on [researcher] ok
  handoff researcher → billing [researcher] -> billing by command handed_off
  agent billing ok
    chain node [billing] ok
      llm scripted-1 [billing] ok 12+3 tokens
""",
    "team of agents": """\
workflow desk ok
  task team [team] ok
    chain team [team] ok
      task x [team] ok
        agent x ok
          task model [x] ok
            llm scripted-1 [x] ok 12+3 tokens
      handoff x → y [x] -> y by edge handed_off
      task y [team] ok
        agent y ok
          task model [y] ok
            llm scripted-1 [y] ok 12+3 tokens
  handoff team → z [team] -> z by edge handed_off
  agent z ok
    chain node [z] ok
      llm scripted-1 [z] ok 12+3 tokens
""",
    "named node": """\
workflow desk ok
  agent planner ok
  task b [b] ok
""",
    "react agent": """\
agent boss ok
  task agent [boss] ok
    llm scripted-1 [boss] ok
  task tools [boss] ok
    tool add [boss] ok
  task agent [boss] ok
    llm scripted-1 [boss] ok 12+3 tokens
""",
    "react agent in a graph": """\
workflow desk ok
  task sums [sums] ok
    agent boss ok
      task agent [boss] ok
        llm scripted-1 [boss] ok
      task tools [boss] ok
        tool add [boss] ok
      task agent [boss] ok
        llm scripted-1 [boss] ok 12+3 tokens
  task b [b] ok
""",
    "agent as a tool": """\
agent boss ok
  task model [boss] ok
    llm scripted-1 [boss] ok
  task tools [boss] ok
    tool research [boss] ok
      agent researcher ok
        task model [researcher] ok
          llm scripted-1 [researcher] ok 12+3 tokens
  handoff boss → researcher [boss] -> researcher by tool handed_off
  task model [boss] ok
    llm scripted-1 [boss] ok 12+3 tokens
""",
    "summarising agent": """\
agent boss ok
  task SummarizationMiddleware.before_model [boss] ok
    llm scripted-1 [boss] ok 12+3 tokens
  task model [boss] ok
    llm scripted-1 [boss] ok 12+3 tokens
""",
    "supervisor": """\
workflow desk ok
  task supervisor [supervisor] handed_off
    agent supervisor handed_off
      task agent [supervisor] ok
        llm scripted-1 [supervisor] ok
      task tools [supervisor] handed_off
        tool transfer_to_billing [supervisor] ok
  handoff supervisor → billing [supervisor] -> billing by transfer handed_off
  task billing [billing] ok
    agent billing ok
      task model [billing] ok
        llm scripted-1 [billing] ok 12+3 tokens
  handoff billing → supervisor [billing] -> supervisor by return handed_off
  task supervisor [supervisor] ok
    agent supervisor ok
      task agent [supervisor] ok
        llm scripted-1 [supervisor] ok 12+3 tokens
""",
    "nested supervisors": """\
workflow company ok
  task top [top] handed_off
    agent top handed_off
      task agent [top] ok
        llm scripted-1 [top] ok
      task tools [top] handed_off
        tool transfer_to_team [top] ok
  handoff top → team [top] -> team by transfer handed_off
  task team [team] ok
    chain team [team] ok
      task supervisor [team] handed_off
        agent supervisor handed_off
          task agent [supervisor] ok
            llm scripted-1 [supervisor] ok
          task tools [supervisor] handed_off
            tool transfer_to_billing [supervisor] ok
      handoff supervisor → billing [supervisor] -> billing by transfer handed_off
      task billing [team] ok
        agent billing ok
          task model [billing] ok
            llm scripted-1 [billing] ok 12+3 tokens
      handoff billing → supervisor [billing] -> supervisor by return handed_off
      task supervisor [team] ok
        agent supervisor ok
          task agent [supervisor] ok
            llm scripted-1 [supervisor] ok 12+3 tokens
  handoff team → top [team] -> top by return handed_off
  task top [top] ok
    agent top ok
      task agent [top] ok
        llm scripted-1 [top] ok 12+3 tokens
""",
    "swarm": """\
workflow desk ok session=chat-7
  task alice [alice] handed_off
    agent alice handed_off
      task model [alice] ok
        llm scripted-1 [alice] ok
      task tools [alice] handed_off
        tool transfer_to_bob [alice] ok
  handoff alice → bob [alice] -> bob by transfer handed_off
  task bob [bob] ok
    agent bob ok
      task model [bob] ok
        llm scripted-1 [bob] ok 12+3 tokens
workflow desk ok session=chat-7
  task bob [bob] ok
    agent bob ok
      task model [bob] ok
        llm scripted-1 [bob] ok 12+3 tokens
""",
    "pause": """\
workflow desk interrupted session=chat-7
  task a [a] ok
  task ask [ask] interrupted
workflow desk ok session=chat-7
  task ask [ask] ok
  task b [b] ok
""",
    "pause in a tool": """\
agent teller interrupted session=chat-7
  task model [teller] ok
    llm scripted-1 [teller] ok
  task tools [teller] interrupted
    tool refund [teller] interrupted
agent teller ok session=chat-7
  task tools [teller] ok
    tool refund [teller] ok
  task model [teller] ok
    llm scripted-1 [teller] ok 12+3 tokens
""",
}

PLAYS = [
    pytest.param(scenario, way, id=f"{scenario.name}, {way}")
    for scenario in SCENARIOS
    for way in scenario.ways
]


async def _play(scenario: GraphScenario, way: str, monitor: Any) -> None:
    graph = monitor_graph(scenario.make(), agents=scenario.agents, monitor=monitor)
    for given in scenario.turns:
        call = WAYS[way](graph, given, dict(scenario.config))
        if scenario.raises is None:
            await call
        else:
            with pytest.raises(scenario.raises):
                await call


@pytest.mark.parametrize(("scenario", "way"), PLAYS)
async def test_the_tree_is_as_told(scenario: GraphScenario, way: str, spans: CapturedSpans) -> None:
    await _play(scenario, way, spans.monitor)
    tree = spans.tree()
    # Later releases make the model of the summary a chain of its own.
    tree = tree.replace("    chain ScriptedModel [boss] ok\n  ", "")
    assert tree == TREES[scenario.name], tree
    assert failures_of_ours(spans.monitor) == {}


def test_every_scenario_has_a_tree() -> None:
    assert [scenario.name for scenario in SCENARIOS] == list(TREES)


def _handoffs(found: list[Span]) -> list[Span]:
    handoffs = (span for span in found if span.kind == "handoff")
    return sorted(handoffs, key=lambda span: span.start_time)


@pytest.mark.parametrize("way", WAYS)
async def test_of_two_handoffs_asked_at_once_one_happens_and_one_is_incomplete(
    way: str, spans: CapturedSpans
) -> None:
    """Both transfer tools run; LangGraph follows one of their commands, and either may win."""
    graph = supervisor(call_of("transfer_to_billing"), call_of("transfer_to_shipping", "c2"))
    await WAYS[way](monitor_graph(graph, monitor=spans.monitor), ASK, {})
    found = spans()
    asked = {h.target_agent: h for h in _handoffs(found) if h.handoff_mechanism == "transfer"}
    assert set(asked) == {"billing", "shipping"}
    ran = {span.name for span in found if span.kind == "agent"} - {"supervisor"}
    assert len(ran) == 1
    for target, handoff in asked.items():
        assert handoff.handoff_confirmed is (target in ran)
        assert handoff.outcome == ("handed_off" if target in ran else "incomplete")
    (back,) = [h for h in _handoffs(found) if h.handoff_mechanism == "return"]
    assert {back.agent} == ran


def test_what_goes_over_is_the_words_of_the_agents_alone(spans: CapturedSpans) -> None:
    graph = supervisor(call_of("transfer_to_billing"))
    monitor_graph(graph, monitor=spans.monitor).invoke(ASK)
    there, back = _handoffs(spans())
    assert [m["content"] for m in json.loads(there.output or "")] == ["order A-1042 please"]
    assert json.loads(there.input or "")["content"] == "order A-1042 please"
    # The package's own "Transferring back to supervisor" is nobody's.
    assert [m["content"] for m in json.loads(back.output or "")] == ["A-1042 is paid"]
    assert json.loads(back.input or "")["content"] == "A-1042 is paid"


def test_an_order_number_that_is_lost_on_the_way_is_in_the_input_alone(
    spans: CapturedSpans,
) -> None:
    (leaves,) = [s for s in SCENARIOS if s.name == "agent that leaves"]
    monitor_graph(leaves.make(), monitor=spans.monitor).invoke(leaves.turns[0])
    (handoff,) = _handoffs(spans())
    assert "A-1042" in (handoff.input or "")
    assert [m["content"] for m in json.loads(handoff.output or "")] == ["go on"]


def test_a_swarm_stays_with_its_last_agent_without_a_handoff(spans: CapturedSpans) -> None:
    graph = monitor_graph(swarm(), monitor=spans.monitor)
    for _ in range(2):
        graph.invoke(ASK, {"configurable": {"thread_id": "chat-7"}})
    found = spans()
    (handoff,) = _handoffs(found)
    assert handoff.name == "alice → bob"
    assert [m["content"] for m in json.loads(handoff.output or "")] == ["bob knows A-1042"]
    turns = sorted((s for s in found if s.parent_id is None), key=lambda s: s.start_time)
    assert [t.trace_id == handoff.trace_id for t in turns] == [True, False]
    assert {t.thread_id for t in turns} == {t.session_id for t in turns} == {"chat-7"}


def test_the_call_that_summarises_is_marked(spans: CapturedSpans) -> None:
    (summarising,) = [s for s in SCENARIOS if s.name == "summarising agent"]
    monitor_graph(summarising.make(), monitor=spans.monitor).invoke(summarising.turns[0])
    marks = [(s.attributes or {}).get("langchain.source") for s in spans() if s.kind == "llm"]
    assert sorted(marks, key=str) == [None, "summarization"]
