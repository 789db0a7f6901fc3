"""Decorated functions and crews find each other, in both directions."""

from __future__ import annotations

import pytest

pytest.importorskip("crewai")

from crewai.tools import tool
from crewai_kit import ScriptedLLM, act, agent, crew, final, task

from llmops_core import monitor_llm, monitoring_session
from llmops_integrations.crewai import CrewListener


def test_a_decorated_function_in_a_tool_and_a_model_in_it_are_where_they_ran(spans):
    inner = ScriptedLLM(model="inner", replies=["a fact"])

    @monitor_llm("look_up", monitor=spans.monitor)
    def look_up(query: str) -> str:
        return str(inner.call(query))

    @tool("search")
    def search(query: str) -> str:
        """Searches."""
        return look_up(query)

    worker = agent("a", act("search", query="x"), final("found"), tools=[search])
    with CrewListener(spans.monitor):
        crew(task("t", worker)).kickoff()
    assert spans.tree() == (
        "workflow crew ok\n"
        "  task t [a] ok\n"
        "    agent a ok\n"
        "      llm scripted-1 [a] ok 12+3 tokens\n"
        "      tool search [a] ok\n"
        "        chain look_up [a] ok\n"
        "          llm inner [a] ok 12+3 tokens\n"
        "      llm scripted-1 [a] ok 12+3 tokens\n"
    )


def test_a_crew_in_a_decorated_function_is_below_it_and_in_its_session(spans):
    @monitor_llm("serve", monitor=spans.monitor)
    def serve() -> str:
        return str(crew(task("t", agent("a"))).kickoff().raw)

    with CrewListener(spans.monitor), monitoring_session("chat-9", user_id="bob"):
        serve()
    assert spans.tree() == (
        "workflow serve ok session=chat-9\n"
        "  workflow crew ok\n"
        "    task t [a] ok\n"
        "      agent a ok\n"
        "        llm scripted-1 [a] ok 12+3 tokens\n"
    )
    assert {(s.session_id, s.user_id) for s in spans()} == {("chat-9", "bob")}
