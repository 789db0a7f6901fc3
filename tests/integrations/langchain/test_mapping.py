"""The span mapping: which run becomes which span."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_core")

from llmops_core.span import KINDS
from llmops_integrations.langchain import mapping
from llmops_integrations.langchain.mapping import (
    AGENT_RUN,
    EDGE,
    HIDDEN,
    IN_AGENT,
    NODE,
    PLUMBING,
    ROOT,
    RULES,
    TASK,
    agent_name,
    facts,
    rule_for,
)

GRAPH = {"ls_integration": "langgraph"}
AGENT = {"ls_integration": "langchain_create_agent", "lc_agent_name": "boss"}


def _node(name="fetch", *, base=GRAPH, ns="fetch:1f"):
    return {
        **base,
        "langgraph_node": name,
        "langgraph_step": 1,
        "langgraph_path": ("__pregel_pull", name),
        "langgraph_checkpoint_ns": ns,
    }


def _decide(name, tags=(), metadata=None, extra=None, **kwargs):
    metadata = metadata or {}
    kwargs.setdefault("has_parent", True)
    found = facts(name, tags, metadata, extra or {}, **kwargs)
    rule = rule_for(found)
    return rule.kind, rule.promotable, agent_name(rule, name or "", metadata, found)


def test_every_rule_can_be_reached_and_names_a_kind():
    for rule in RULES:
        assert rule_for(rule.when) is rule
        assert rule.kind is None or rule.kind in KINDS


def test_any_set_of_facts_has_a_rule():
    for found in range(512):
        assert rule_for(found) in RULES


def test_a_root_is_always_stored():
    for found in range(512):
        assert rule_for(found | ROOT).kind is not None


@pytest.mark.parametrize("name", ["answer", "RunnableSequence", "Prompt", "LangGraph"])
def test_a_root_is_a_workflow(name):
    assert _decide(name, has_parent=False)[0] == "workflow"


def test_the_root_of_a_lone_agent_is_an_agent():
    assert _decide("boss", (), AGENT, has_parent=False) == ("agent", False, "boss")


def test_an_agent_without_a_name_is_called_as_its_graph():
    unnamed = {"ls_integration": "langchain_create_agent"}
    assert _decide("LangGraph", (), unnamed, has_parent=False) == ("agent", False, "LangGraph")


def test_a_node_is_a_task_that_may_become_an_agent():
    assert _decide("fetch", ["graph:step:1"], _node()) == ("task", True, "fetch")


def test_a_node_of_a_subgraph_works_for_the_outer_node():
    metadata = _node("fetch", ns="research:1f|fetch:2e")
    assert _decide("fetch", ["graph:step:1"], metadata) == ("task", True, "research")


def test_a_node_inside_an_agent_stays_a_task():
    metadata = _node("model", base=AGENT, ns="model:1f")
    found = _decide("model", ["graph:step:1"], metadata, parent_facts=AGENT_RUN)
    assert found == ("task", False, "boss")


def test_a_node_inside_an_agent_without_a_name_inherits_it():
    metadata = _node("model", base={"ls_integration": "langchain_create_agent"}, ns="model:1f")
    found = _decide("model", ["graph:step:1"], metadata, parent_facts=AGENT_RUN)
    assert found == ("task", False, None)


def test_what_merely_runs_inside_a_node_is_no_node():
    metadata = _node("fetch")
    assert _decide("fetch", ["seq:step:1"], metadata)[0] == "chain"
    assert _decide("helper", ["seq:step:1"], metadata)[0] == "chain"


def test_a_functional_task_is_a_task_and_a_send_is_a_node():
    task = {**_node("work"), "langgraph_path": ("__pregel_push", ("x",), 0, True)}
    assert _decide("work", ["seq:step:1"], task)[:2] == ("task", True)
    send = {**_node("work"), "langgraph_path": ("__pregel_push", 0, False)}
    assert _decide("work", ["graph:step:2"], send)[:2] == ("task", True)
    assert _decide("work", ["seq:step:1"], send)[0] == "chain"


def test_an_agent_inside_a_node_is_an_agent():
    metadata = _node("r", base={**AGENT, "lc_agent_name": "researcher"})
    found = _decide("researcher", ["seq:step:1"], metadata, parent_facts=NODE)
    assert found == ("agent", False, "researcher")


def test_an_agent_in_a_tool_of_an_agent_is_an_agent():
    metadata = _node("tools", base={**AGENT, "lc_agent_name": "researcher"})
    found = _decide("researcher", ["seq:step:1"], metadata, parent_facts=IN_AGENT)
    assert found == ("agent", False, "researcher")


def test_a_graph_in_a_tool_of_an_agent_is_no_agent():
    """Metadata is inherited: below an agent everything says that create_agent made it."""
    unnamed = {"ls_integration": "langchain_create_agent"}
    metadata = _node("tools", base=unnamed)
    assert _decide("LangGraph", ["seq:step:1"], metadata, parent_facts=IN_AGENT)[0] == "chain"


@pytest.mark.parametrize("name", [None, "RunnableCallable", "route", "should_continue"])
def test_an_edge_function_is_not_stored(name):
    assert _decide(name, ["seq:step:3"], _node(), parent_facts=NODE)[0] is None


def test_a_later_step_of_a_chain_that_is_a_node_is_no_edge():
    extra = {"run_type": "parser"}
    assert _decide("Parser", ["seq:step:3"], _node(), extra, parent_facts=NODE)[0] == "chain"


def test_a_container_in_a_node_is_no_edge():
    found = _decide("RunnableParallel<a,b>", ["seq:step:2"], _node(), parent_facts=NODE)
    assert found[0] == "chain"


@pytest.mark.parametrize("name", ["call_model", "RunnableSequence", "Prompt"])
def test_the_inside_of_a_prebuilt_agent_is_not_stored(name):
    assert _decide(name, ["seq:step:1"], _node("agent"), parent_facts=NODE)[0] is None


def test_a_user_s_own_call_model_is_stored():
    assert _decide("call_model", [], {}, {"run_type": None})[0] == "chain"
    assert _decide("call_model", [], _node(), {"run_type": None})[0] == "chain"
    node = _node("call_model", ns="call_model:1f")
    assert _decide("call_model", ["graph:step:1"], node)[0] == "task"


def test_prompts_sequences_start_and_hidden_runs_are_not_stored():
    assert _decide("ChatPromptTemplate", [], {}, {"run_type": "prompt"})[0] is None
    assert _decide("RunnableSequence")[0] is None
    assert _decide("__start__", ["graph:step:0", "langsmith:hidden"], _node("__start__"))[0] is None
    assert _decide("RunnableCallable", ["langsmith:hidden"], _node("__start__"))[0] is None


def test_another_runnable_is_a_chain():
    assert _decide("RunnableLambda", ["seq:step:1"], {}, {"run_type": None})[0] == "chain"


def test_facts_have_names():
    assert mapping.FACTS == {
        "root": ROOT,
        "agent run": AGENT_RUN,
        "node": NODE,
        "task": TASK,
        "hidden": HIDDEN,
        "edge": EDGE,
        "plumbing": PLUMBING,
        "in agent": IN_AGENT,
        "named agent": mapping.NAMED,
    }
