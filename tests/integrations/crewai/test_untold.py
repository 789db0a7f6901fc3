"""What CrewAI does not tell is not lost: ends without starts, errors without a type, tries, pauses."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

pytest.importorskip("crewai")

from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import pop_event_scope
from crewai.events.types.agent_events import LiteAgentExecutionStartedEvent
from crewai.events.types.llm_events import LLMCallFailedEvent, LLMCallStartedEvent
from crewai.events.types.tool_usage_events import ToolUsageFinishedEvent
from crewai.flow.flow import Flow, start
from crewai_kit import agent, crew, task
from crewai_scenarios import SCENARIOS

from llmops_core import Monitor, monitoring_session, span_tree, spans_from_arrow
from llmops_integrations.crewai import CrewListener, monitor_crew

#: An id of a start that nobody saw.
UNSEEN = "00000000-0000-4000-8000-00000000000a"


def emit(event):
    event.timestamp = datetime.now(UTC)
    crewai_event_bus.emit(None, event)


def an_end_without_its_start():
    now = datetime.now(UTC)
    times = {"started_at": now, "finished_at": now}
    about = {"tool_name": "read", "tool_args": {}, "output": "x", "started_event_id": UNSEEN}
    emit(ToolUsageFinishedEvent(**about, **times, parent_event_id=UNSEEN[:-1] + "b"))


def a_failed_call_of_an_agent_that_goes_on():
    about = {"role": "a", "id": "1"}
    emit(LiteAgentExecutionStartedEvent(agent_info=about, tools=None, messages="hello"))
    emit(LLMCallStartedEvent(model="m", call_id="1", messages="hello"))
    emit(LLMCallFailedEvent(model="m", call_id="1", error="overloaded"))
    pop_event_scope()


STRANDED = {
    an_end_without_its_start: "tool tool_usage ok (orphan)\n",
    a_failed_call_of_an_agent_that_goes_on: "agent a incomplete\n  llm m [a] error LLMError\n",
}


@pytest.mark.parametrize("play", STRANDED)
@pytest.mark.parametrize("flushes", [0, 2])
def test_what_waits_for_an_event_that_never_comes_is_stored_when_the_monitor_closes(
    play, flushes, tmp_path
):
    monitor = Monitor(f"parquet:{tmp_path}/data")
    with CrewListener(monitor):
        play()
    for _ in range(flushes):
        monitor.flush()
    monitor.close()
    with Monitor(f"parquet:{tmp_path}/data") as later:
        assert span_tree(spans_from_arrow(later.query())) == STRANDED[play]


def test_an_end_without_its_start_is_told_soon_although_nothing_follows(spans):
    with CrewListener(spans.monitor):
        an_end_without_its_start()
    crewai_event_bus.flush()
    spans.monitor.flush()
    assert spans.monitor.stats()["spans"]["made"] == 0  # its start may yet come
    spans.clock.advance(60_000)
    pause = threading.Event()
    while not spans.monitor.stats()["spans"]["made"]:
        pause.wait(0.05)
    assert [s.kind for s in spans()] == ["tool"]


def test_a_delegation_is_handed_over_once_and_its_failing_tries_are_numbered(spans):
    with CrewListener(spans.monitor):
        SCENARIOS["delegation_to_one_who_fails"]()
    assert [h.target_agent for h in spans() if h.kind == "handoff"] == ["worker"]
    tries = [s.attempt for s in spans() if s.kind == "agent" and s.name == "worker"]
    assert sorted(tries) == [1, 2]


def test_a_person_who_is_asked_about_an_answer_is_waited_for(spans):
    with CrewListener(spans.monitor):
        SCENARIOS["human_input_of_a_task"]()
    first, second = sorted((s for s in spans() if s.name == "human input"), key=lambda s: s.input)
    assert (first.input, second.input) == ("one", "one two")
    for asked in (first, second):
        assert asked.waited_ms == pytest.approx(asked.duration_ms, abs=1)


def test_a_person_who_leaves_ends_the_wait_as_the_agent_ends(spans, monkeypatch):
    def leaves(*prompt):
        raise EOFError("nobody there")

    monkeypatch.setattr("builtins.input", leaves)
    work = crew(task("t", agent("a", max_retry_limit=0), human_input=True))
    with CrewListener(spans.monitor), pytest.raises(EOFError):
        work.kickoff()
    (asked,) = (s for s in spans() if s.name == "human input")
    assert asked.outcome == "error"
    assert asked.waited_ms is not None


def test_a_crew_in_a_block_inside_a_flow_that_nobody_listened_to_is_a_root(spans):
    class Desk(Flow):
        @start()
        def begin(self):
            good = crew(task("t", agent("b")), name="good")
            with monitoring_session("second"), monitor_crew(good, spans.monitor, user_id="bob"):
                return good.kickoff().raw

    Desk().kickoff()
    (root,) = (s for s in spans() if s.kind == "workflow")
    assert (root.name, root.parent_id, root.session_id, root.user_id) == (
        "good", None, "second", "bob",
    )  # fmt: skip
    assert {s.session_id for s in spans()} == {"second"}


def test_a_crew_in_a_block_inside_a_flow_that_is_recorded_is_in_it(spans):
    class Desk(Flow):
        @start()
        def begin(self):
            with CrewListener(spans.monitor):
                return crew(task("t", agent("b")), name="good").kickoff().raw

    with CrewListener(spans.monitor):
        Desk().kickoff()
    assert spans.tree().splitlines()[:3] == [
        "workflow Desk ok",
        "  task begin ok",
        "    chain good ok",
    ]
