"""Breakers stop crews by CrewAI's own hooks around model calls: see llmops_integrations.crewai.breaking."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("crewai")

from crewai.hooks import get_before_llm_call_hooks
from crewai_kit import Search, act, agent, crew, final, task

from llmops_core import Breakers, BreakerTripped, Monitor, monitor_llm, monitoring_session
from llmops_core.testing.fixtures import CapturedSpans, FakeClock
from llmops_integrations.crewai import CrewListener, monitor_crew


@pytest.fixture
def opened():
    monitors = []

    def make(**limits):
        monitor = Monitor(storage="memory:", durability="memory", breakers=Breakers(**limits))
        monitors.append(monitor)
        return CapturedSpans(monitor, FakeClock())

    yield make
    for monitor in monitors:
        monitor.close()


def searching(**more: Any) -> Any:
    """A crew whose agent searches for ever."""
    return agent("clerk", act("search", query="x"), tools=[Search()], **more)


HOW = ["kickoff", "kickoff_async", "akickoff", "stream"]


def run(made: Any, how: str) -> Any:
    if how == "kickoff":
        return made.kickoff()
    if how == "stream":
        made.stream = True
        return [piece.content for piece in made.kickoff()]
    return asyncio.run(getattr(made, how)())


@pytest.mark.parametrize("how", HOW)
def test_a_budget_stops_a_crew_within_one_call(how, opened):
    spans = opened(tokens=20)
    made = crew(task("look", searching()), name="desk")
    with pytest.raises(BreakerTripped) as caught, CrewListener(spans.monitor):
        run(made, how)
    spans.monitor.flush()
    calls = spans.monitor.query(kind="llm").to_pylist()
    used = sum(c["input_tokens"] + c["output_tokens"] for c in calls if c["outcome"] == "ok")
    most = max(c["input_tokens"] + c["output_tokens"] for c in calls if c["outcome"] == "ok")
    assert used - most < 20 <= used
    refused = [c for c in calls if c["outcome"] == "error"]
    assert {c["error_type"] for c in refused} == {"llmops_core.BreakerTripped"}
    assert spans.monitor.stats()["breakers"]["stopped"] == {"tokens": 1}
    assert "tokens=20" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_fails_with_it_bears_its_type(opened):
    spans = opened(calls=1)
    made = crew(task("look", searching()), name="desk")
    with pytest.raises(BreakerTripped), monitor_crew(made, spans.monitor):
        made.kickoff()
    spans.monitor.flush()
    failed = {
        (row["kind"], row["error_type"]) for row in spans.monitor.query(outcome="error").to_pylist()
    }
    assert failed == {
        (kind, "llmops_core.BreakerTripped") for kind in ("workflow", "task", "agent", "llm")
    }


@pytest.mark.parametrize("how", HOW)
def test_a_ping_pong_of_agents_is_stopped_within_two_turns(how, opened):
    spans = opened(ping_pong=2)
    ann, bob = agent("ann", final("for bob")), agent("bob", final("for ann"))
    made = crew(*(task(f"t{n}", (ann, bob)[n % 2]) for n in range(6)), name="desk")
    with pytest.raises(BreakerTripped), CrewListener(spans.monitor):
        run(made, how)
    spans.monitor.flush()
    ran = spans.monitor.query(kind="llm", outcome="ok", order=["start_time"]).to_pylist()
    assert [row["agent"] for row in ran] == ["ann", "bob", "ann"]


def test_sessions_have_budgets_over_crews(opened):
    spans = opened(session_calls=2)
    told = []
    for name in ("a", "a", "b", "a"):
        made = crew(task("say", agent("clerk", final("done"))), name="desk")
        try:
            with CrewListener(spans.monitor), monitoring_session(name):
                made.kickoff()
            told.append("ok")
        except BreakerTripped:
            told.append("stopped")
    assert told == ["ok", "ok", "ok", "stopped"]


def test_a_crew_shares_the_budget_of_the_function_around_it(opened):
    spans = opened(calls=2)
    ask = monitor_llm("ask", "llm", monitor=spans.monitor)(lambda: "x")

    @monitor_llm("run", "workflow", monitor=spans.monitor)
    def work() -> None:
        ask()
        ask()
        crew(task("say", agent("clerk", final("done"))), name="desk").kickoff()

    with pytest.raises(BreakerTripped), CrewListener(spans.monitor):
        work()


def test_other_crews_are_left_alone_and_the_hooks_go_with_the_listener(opened):
    spans = opened(calls=1)
    watched = crew(task("look", searching()), name="desk")
    other = crew(
        task("say", agent("a", final("one"))), task("more", agent("b", final("two"))), name="other"
    )
    before = len(get_before_llm_call_hooks())
    listener = monitor_crew(watched, spans.monitor).attach()
    assert len(get_before_llm_call_hooks()) == before + 1
    assert other.kickoff().raw == "two"
    listener.detach()
    assert len(get_before_llm_call_hooks()) == before


def test_without_breakers_there_are_no_hooks(spans):
    before = len(get_before_llm_call_hooks())
    with CrewListener(spans.monitor):
        assert len(get_before_llm_call_hooks()) == before


def test_without_a_block_the_error_is_crewais_own_and_the_log_says_why(opened, caplog):
    spans = opened(calls=1)
    made = crew(task("look", searching()), name="desk")
    listener = CrewListener(spans.monitor).attach()
    try:
        with pytest.raises(ValueError, match="blocked by before_llm_call hook"):
            made.kickoff()
    finally:
        listener.detach()
    assert "The run used 1 model calls and was to make another call." in caplog.text
