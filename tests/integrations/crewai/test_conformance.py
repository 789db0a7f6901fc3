"""CrewAI plays the handler suite's scenarios: what it adds of its own is told line by line."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("crewai")

from crewai_plays import PLAYS, leave_a_stream
from crewai_scenarios import IS_OLDEST

from llmops_core import monitoring_session
from llmops_core.testing import AGENT_SCENARIOS, SCENARIOS, HandlerConformance
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import Bus, bus

PAGE = Path(__file__).parents[3] / "docs" / "support.md"

_UNSUPPORTED = {
    "abandoned": "the bus tells nothing when the reader of a crew's stream leaves: "
    "test_the_bus_tells_nothing_of_a_reader_that_leaves has its events",
}
_UNSUPPORTED_BY_THE_OLDEST = {
    "retry": "1.13 runs the second try inside the first, and tells a failed call's text alone: "
    "the tree of llm_error_retried in crewai_scenarios",
}


_UNSUPPORTED_AGENTS = {
    "interrupt": "1.13 tells no start of a flow that is resumed: see test_content",
}


def play(scenario, monitor):
    session = monitoring_session(scenario.session) if scenario.session else nullcontext()
    try:
        with CrewListener(monitor) if monitor else nullcontext(), session:
            return PLAYS[scenario.name](scenario)
    except asyncio.CancelledError:
        return "cancelled"


class TestCrewAI(HandlerConformance):
    """An agent asks for tools, a task stands between a crew and its agents, a flow has methods."""

    unsupported: ClassVar = _UNSUPPORTED | (_UNSUPPORTED_BY_THE_OLDEST if IS_OLDEST else {})
    names: ClassVar = {"notes": "memory_query"}  # memory has no name of its own
    around: ClassVar = {
        "model_error": """\
+ workflow Desk error RuntimeError
+   agent ask error RuntimeError
      llm scripted-1 [ask] error RuntimeError
""",
        "tool_call": """\
+ agent clerk ok
+   llm scripted-1 [clerk] ok 12+3 tokens
    tool add [clerk] ok
+   llm scripted-1 [clerk] ok 12+3 tokens
""",
        "tool_error": """\
+ agent clerk ok
+   llm scripted-1 [clerk] ok 12+3 tokens
    tool divide [clerk] error ZeroDivisionError
+   llm scripted-1 [clerk] ok 12+3 tokens
""",
        "pipeline": """\
  workflow pipeline ok
+   task ask [clerk] ok
+     agent clerk ok
+       llm scripted-1 [clerk] ok 12+3 tokens
        tool add [clerk] ok
        llm scripted-1 [clerk] ok 12+3 tokens
""",
        "parallel_tools": """\
  workflow parallel ok
+   task ask [clerk] ok
+     agent clerk ok
+       llm scripted-1 [clerk] ok 12+3 tokens
        tool add [clerk] ok
        tool add [clerk] ok
+       llm scripted-1 [clerk] ok 12+3 tokens
""",
        "retry": """\
  workflow retry ok
+   task ask [clerk] ok
+     agent clerk error RuntimeError
        llm scripted-1 [clerk] error RuntimeError
+     agent clerk ok attempt=2
        llm scripted-1 [clerk] ok 12+3 tokens
""",
        "fallback": """\
  workflow fallback ok
+   task choose ok
+     chain Desk error RuntimeError
+       agent ask error RuntimeError
          llm scripted-1 [ask] error RuntimeError
+     chain Desk ok
+       agent ask ok
          llm scripted-2 [ask] ok 12+3 tokens
""",
        "cancelled": """\
  workflow slow cancelled
+   task ask [clerk] cancelled
+     agent clerk cancelled
        llm scripted-1 [clerk] cancelled
""",
    }

    def play(self, scenario, monitor):
        return play(scenario, monitor)


class TestCrewAIAgents(HandlerConformance):
    """Delegation, tasks that feed each other, and a flow that waits for a person."""

    scenarios = AGENT_SCENARIOS
    unsupported: ClassVar = _UNSUPPORTED_AGENTS if IS_OLDEST else {}
    names: ClassVar = {
        "ask_worker": "delegate_work_to_coworker",
        "by tool": "by delegation",
        "by edge": "by context",
    }
    around: ClassVar = {
        "nested_agents": """\
  workflow team ok
+   task ask [boss] ok
      agent boss ok
        llm scripted-1 [boss] ok 12+3 tokens
        tool delegate_work_to_coworker [boss] ok
          agent worker ok
            llm scripted-1 [worker] ok 12+3 tokens
        llm scripted-1 [boss] ok 12+3 tokens
    handoff boss → worker [boss] -> worker by delegation handed_off
""",
        "handoff": """\
  workflow press ok
+   task draft [writer] ok
      agent writer ok
        llm scripted-1 [writer] ok 12+3 tokens
    handoff writer → editor [writer] -> editor by context handed_off
+   task edit [editor] ok
      agent editor ok
        llm scripted-1 [editor] ok 12+3 tokens
""",
    }

    def play(self, scenario, monitor):
        return play(scenario, monitor)


def test_at_most_one_scenario_is_not_played_by_the_latest_release_and_the_page_says_which():
    every = {s.name for s in (*SCENARIOS, *AGENT_SCENARIOS)}
    assert set(PLAYS) == every - set(_UNSUPPORTED)
    assert len(_UNSUPPORTED) == 1
    page = PAGE.read_text(encoding="utf-8")
    latest, oldest = list(_UNSUPPORTED), [*_UNSUPPORTED, *_UNSUPPORTED_BY_THE_OLDEST]
    for release, missing in (("latest", latest), ("oldest", oldest)):
        names = ", ".join(f"`{name}`" for name in missing)
        played = len(SCENARIOS) - len(missing)
        assert f"| CrewAI, {release} | {played} | {names} |" in page
    (pause,) = _UNSUPPORTED_AGENTS
    assert f"- `{pause}` in 1.13" in page


def test_the_bus_tells_nothing_of_a_reader_that_leaves(spans, monkeypatch):
    """Why ``abandoned`` is not played: after the last piece no event comes, so all is incomplete."""
    handle = Bus.llmops_handle
    heard = []

    def record(self, source, event):
        if event.type != "flow_started":  # the flow inside each agent: since 1.14
            heard.append(event.type)
        handle(self, source, event)

    monkeypatch.setattr(Bus, "llmops_handle", record)
    with CrewListener(spans.monitor):
        assert asyncio.run(leave_a_stream()) == "It "
        bus.deliver(10)
    assert sorted(heard) == [
        "agent_execution_started",
        "crew_kickoff_started",
        "llm_call_started",
        "llm_stream_chunk",
        "task_started",
    ]
