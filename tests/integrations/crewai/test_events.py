"""The breadth of the bus: memory, knowledge, MCP, A2A, plans, conversations; and broken pairs.

Where a server or another agent would be needed, the events are emitted as CrewAI emits them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

pytest.importorskip("crewai")

from crewai.events.event_bus import crewai_event_bus
from crewai.events.types import a2a_events as a2a
from crewai.events.types import knowledge_events as knowledge
from crewai.events.types import mcp_events as mcp
from crewai.events.types import memory_events as memory
from crewai.events.types import observation_events as plans
from crewai.events.types import reasoning_events as reasoning
from crewai.events.types.agent_events import (
    LiteAgentExecutionCompletedEvent,
    LiteAgentExecutionStartedEvent,
)
from crewai.events.types.crew_events import CrewKickoffStartedEvent
from crewai.events.types.llm_events import LLMCallStartedEvent
from crewai.events.types.skill_events import SkillActivatedEvent
from crewai.events.types.tool_usage_events import (
    ToolUsageFinishedEvent,
    ToolUsageStartedEvent,
)

from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import event_classes
from llmops_integrations.crewai.nodes import MAX_NODES, Node, Nodes
from llmops_integrations.crewai.translate import READERS, START_OF
from llmops_integrations.crewai.translate_more import is_internal

NOW = datetime.now(UTC)


def emit(event):
    event.timestamp = datetime.now(UTC)  # it was made before; CrewAI makes and emits at once
    crewai_event_bus.emit(None, event)
    return event


@pytest.fixture
def recorded(spans):
    """Emit inside an agent, and return the tree below it."""

    def play(*events):
        about = {"role": "a", "id": "1"}
        with CrewListener(spans.monitor):
            emit(LiteAgentExecutionStartedEvent(agent_info=about, tools=None, messages="hello"))
            for event in events:
                emit(event() if callable(event) else event)
            emit(LiteAgentExecutionCompletedEvent(agent_info=about, output="done"))
        tree = spans.tree()
        head, _, rest = tree.partition("\n")
        assert head == "agent a ok", tree
        return rest

    return play


def span_named(spans, name):
    return next(s for s in spans() if s.name == name)


# ---- memory and knowledge ----


def test_memory_and_knowledge_are_retrievers_with_what_was_asked_and_found(recorded, spans):
    query = {"query": "cats", "limit": 3}
    tree = recorded(
        memory.MemoryQueryStartedEvent(**query),
        memory.MemoryQueryCompletedEvent(**query, results=["nice"], query_time_ms=1.0),
        memory.MemorySaveStartedEvent(value="cats are nice"),
        memory.MemorySaveFailedEvent(value="cats are nice", error="disk full"),
        knowledge.KnowledgeRetrievalStartedEvent(),
        knowledge.KnowledgeRetrievalCompletedEvent(query="dogs", retrieved_knowledge="loud"),
        knowledge.KnowledgeQueryStartedEvent(task_prompt="about dogs"),
        knowledge.KnowledgeQueryFailedEvent(error="no model"),
    )
    assert tree == (
        "  retriever memory_query [a] ok\n"
        "  retriever memory_save [a] error RetrieverError\n"
        "  retriever knowledge_search_query [a] ok\n"
        "  retriever knowledge_query [a] error RetrieverError\n"
    )
    found = span_named(spans, "memory_query")
    assert (found.input, json.loads(found.output)) == ("cats", ["nice"])
    found = span_named(spans, "knowledge_search_query")
    assert (found.input, found.output) == ("dogs", "loud")
    assert span_named(spans, "memory_save").error_message == "disk full"


# ---- MCP ----


def test_an_mcp_tool_is_one_tool_and_its_servers_call_a_step_of_it(recorded, spans):
    server = {"server_name": "files", "transport_type": "stdio"}
    started = {"tool_name": "read", "tool_args": {"path": "x"}}
    tree = recorded(
        mcp.MCPConnectionStartedEvent(**server),
        mcp.MCPConnectionCompletedEvent(**server),
        ToolUsageStartedEvent(**started),
        mcp.MCPToolExecutionStartedEvent(**server, **started),
        mcp.MCPToolExecutionCompletedEvent(**server, **started, result="text"),
        ToolUsageFinishedEvent(**started, output="text", started_at=NOW, finished_at=NOW),
        mcp.MCPToolExecutionStartedEvent(**server, **started),
        mcp.MCPToolExecutionFailedEvent(**server, **started, error="gone", error_type="timeout"),
        mcp.MCPConnectionStartedEvent(**server),
        mcp.MCPConnectionFailedEvent(**server, error="refused", error_type="network"),
    )
    assert tree == (
        "  chain mcp connect files [a] ok\n"
        "  tool read [a] ok\n"
        "    chain read [a] ok\n"
        "  tool read [a] error MCPError\n"
        "  chain mcp connect files [a] error MCPError\n"
    )
    failed = next(s for s in spans() if s.error_message == "gone")
    assert failed.attributes == {"crewai.mcp_server": "files", "crewai.mcp_error": "timeout"}


# ---- A2A ----


def test_work_for_an_agent_elsewhere_is_an_agent_and_a_handoff(recorded, spans):
    there = {"endpoint": "https://agents.example/x", "a2a_agent_name": "translator"}
    tree = recorded(
        a2a.A2AConversationStartedEvent(agent_id="1", **there),
        a2a.A2ADelegationStartedEvent(task_description="translate", agent_id="1", **there),
        a2a.A2AMessageSentEvent(message="translate", turn_number=1, **there),
        a2a.A2AResponseReceivedEvent(response="ja", turn_number=1, status="completed", **there),
        a2a.A2ADelegationCompletedEvent(status="completed", result="ja", **there),
        a2a.A2AConversationCompletedEvent(
            status="completed", final_result="ja", total_turns=1, **there
        ),
        a2a.A2ADelegationStartedEvent(task_description="again", agent_id="1", **there),
        a2a.A2ADelegationCompletedEvent(status="failed", error="unreachable", **there),
    )
    assert tree == (
        "  chain conversation with translator [a] ok\n"
        "    agent translator ok\n"
        "      event a2a_message_sent [translator] ok\n"
        "      event a2a_response_received [translator] ok\n"
        "  handoff a → translator [a] -> translator by a2a handed_off\n"
        "  handoff a → translator [a] -> translator by a2a handed_off\n"
        "  agent translator error A2AError\n"
    )
    handoffs = [s for s in spans() if s.kind == "handoff"]
    assert [(h.agent, h.target_agent, h.handoff_mechanism) for h in handoffs] == [
        ("a", "translator", "a2a")
    ] * 2
    assert {h.input for h in handoffs} == {"translate", "again"}
    outcomes = [(s.outcome, s.output) for s in spans() if s.kind == "agent" and s.name != "a"]
    assert sorted(outcomes, key=str) == [("error", None), ("ok", "ja")]


def test_a_task_that_was_served_for_another_agent_is_a_trace(spans):
    ids = {"task_id": "1", "context_id": "2"}
    with CrewListener(spans.monitor):
        emit(a2a.A2AServerTaskStartedEvent(**ids))
        emit(a2a.A2AServerTaskCompletedEvent(**ids, result="done"))
        emit(a2a.A2AServerTaskStartedEvent(**ids))
        emit(a2a.A2AServerTaskCanceledEvent(**ids))
        emit(a2a.A2AServerTaskStartedEvent(**ids))
        emit(a2a.A2AServerTaskFailedEvent(**ids, error="broken"))
    assert spans.tree() == (
        "workflow a2a task ok\nworkflow a2a task cancelled\nworkflow a2a task error A2AError\n"
    )


# ---- reasoning, plans, skills ----


def test_reasoning_is_a_step_and_plans_and_skills_are_events(recorded, spans):
    about = {"agent_role": "a", "step_number": 2, "step_description": "look"}
    tree = recorded(
        reasoning.AgentReasoningStartedEvent(agent_role="a", task_id="1"),
        reasoning.AgentReasoningCompletedEvent(
            agent_role="a", task_id="1", plan="look, then say", ready=True
        ),
        reasoning.AgentReasoningStartedEvent(agent_role="a", task_id="1", attempt=2),
        reasoning.AgentReasoningFailedEvent(agent_role="a", task_id="1", error="no plan"),
        plans.StepObservationCompletedEvent(**about, key_information_learned="a fact"),
        plans.GoalAchievedEarlyEvent(**about, steps_remaining=3),
        SkillActivatedEvent(skill_name="sql"),
    )
    assert tree == (
        "  chain reasoning [a] ok\n"
        "  chain reasoning [a] error AgentError attempt=2\n"
        "  event step_observation_completed [a] ok\n"
        "  event goal_achieved_early [a] ok\n"
        "  event skill_activated [a] ok\n"
    )
    step = span_named(spans, "step_observation_completed")
    assert json.loads(step.input)["key_information_learned"] == "a fact"
    assert step.attributes["crewai.plan_step"] == "2"


# ---- broken pairs ----


def test_an_end_that_the_bus_pairs_wrongly_ends_the_run_that_it_means(recorded, capsys):
    """A model call that never ends is on the bus's stack when its agent's end pops it."""
    tree = recorded(lambda: LLMCallStartedEvent(model="m", call_id="1", messages="hello"))
    assert tree == "  llm m [a] incomplete\n"


def test_ends_without_starts_and_ends_told_twice_are_no_errors(spans):
    started = {"tool_name": "read", "tool_args": {}}
    with CrewListener(spans.monitor):
        emit(ToolUsageFinishedEvent(**started, output="x", started_at=NOW, finished_at=NOW))
        begun = emit(ToolUsageStartedEvent(**started))
        for _ in range(2):
            crewai_event_bus.emit(
                None,
                ToolUsageFinishedEvent(
                    **started,
                    output="x",
                    started_at=NOW,
                    finished_at=NOW,
                    started_event_id=begun.event_id,
                    parent_event_id="00000000-0000-4000-8000-000000000009",
                ),
            )
        from crewai.events.event_context import pop_event_scope

        pop_event_scope()
    assert spans.tree() == "tool read ok\n"
    assert spans.monitor.stats()["failures"] == {}


def test_a_run_whose_parent_was_never_heard_of_is_kept(spans):
    lost = "00000000-0000-4000-8000-000000000007"
    with CrewListener(spans.monitor):
        emit(SkillActivatedEvent(skill_name="sql", parent_event_id=lost))
    assert [s.name for s in spans()] == ["skill_activated"]


# ---- what is read ----


def test_every_pair_of_the_bus_that_starts_something_is_read():
    from crewai.events.event_context import SCOPE_ENDING_EVENTS, SCOPE_STARTING_EVENTS

    assert set(SCOPE_STARTING_EVENTS) <= set(READERS)
    assert set(SCOPE_ENDING_EVENTS) <= set(READERS)
    from crewai.events.event_context import VALID_EVENT_PAIRS

    assert VALID_EVENT_PAIRS.items() <= START_OF.items()


def test_the_classes_are_found_without_any_list_of_theirs():
    found = {cls.__name__ for cls in event_classes()}
    assert {"CrewKickoffStartedEvent", "LLMStreamChunkEvent", "A2ADelegationStartedEvent"} <= found
    assert len(found) > 80
    assert "BaseEvent" not in found


def test_only_crewais_own_flows_are_hidden():
    from crewai.flow.flow import Flow
    from crewai.memory.recall_flow import RecallFlow

    class Mine(Flow):
        pass

    assert is_internal(RecallFlow.__new__(RecallFlow))
    assert not is_internal(Mine.__new__(Mine))


def test_what_is_remembered_is_bounded():
    nodes = Nodes(limit=100)
    for run in range(1_000):
        nodes.add(Node("crew_kickoff_started", run, None, {}, watched=True))
    assert len(nodes) == 100
    assert nodes.get(999) is not None
    assert nodes.get(1) is None
    assert MAX_NODES == 50_000


def test_an_event_whose_fields_are_hostile_costs_itself(spans):
    class Hostile:
        @property
        def process(self):
            raise RuntimeError("do not look")

    event = CrewKickoffStartedEvent(crew_name="x", inputs=None)
    with CrewListener(spans.monitor):
        crewai_event_bus.emit(Hostile(), event)
        from crewai.events.event_context import pop_event_scope

        pop_event_scope()
        crewai_event_bus.flush()
    assert spans() == []
    assert sum(spans.monitor.stats()["failures"].values()) == 1
