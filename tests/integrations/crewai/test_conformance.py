"""CrewAI plays the handler suite's scenarios: what it adds of its own is told line by line."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("crewai")

from crewai_plays import PLAYS, leave_a_stream

from llmops_core import monitoring_session
from llmops_core.testing import AGENT_SCENARIOS, SCENARIOS, HandlerConformance
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import Bus, bus

PAGE = Path(__file__).parents[3] / "docs" / "support.md"

_UNSUPPORTED = {
    "abandoned": "the bus tells nothing when the reader of a crew's stream leaves: see recordings",
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

    unsupported: ClassVar = _UNSUPPORTED
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
    names: ClassVar = {
        "ask_worker": "delegate_work_to_coworker",
        "by tool": "by delegation",
        "by transfer": "by delegation",
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
        "failed_handoff": """\
  workflow press ok
+   task draft [writer] ok
      agent writer ok
        llm scripted-1 [writer] ok 12+3 tokens
+       tool delegate_work_to_coworker [writer] ok
+       llm scripted-1 [writer] ok 12+3 tokens
    handoff writer → editor [writer] -> editor by delegation incomplete
""",
    }

    def play(self, scenario, monitor):
        return play(scenario, monitor)


def test_at_most_one_scenario_is_not_played_and_the_page_says_which():
    every = {s.name for s in (*SCENARIOS, *AGENT_SCENARIOS)}
    assert set(PLAYS) == every - set(_UNSUPPORTED)
    (missing,) = _UNSUPPORTED
    page = PAGE.read_text(encoding="utf-8")
    assert f"| CrewAI | {len(SCENARIOS) - 1} | `{missing}` |" in page
    assert f"| agents: CrewAI | {len(AGENT_SCENARIOS)} | |" in page


#: What the bus told of a scenario that is not played: the proof that it does not tell enough.
RECORDINGS = Path(__file__).parent / "recordings"


def _told(event):
    """An event's type, and of which type the error is that it tells."""
    error = getattr(event, "error", None)
    return event.type if error is None else f"{event.type} ({type(error).__name__})"


@pytest.mark.parametrize("name", _UNSUPPORTED)
def test_the_bus_tells_of_an_unplayed_scenario_what_was_recorded(name, spans, monkeypatch):
    """Sorted, as the bus calls its handlers in a pool."""
    handle, heard = Bus.llmops_handle, []

    def record(self, source, event):
        if not event.type.startswith("flow_") or type(source).__name__ != "AgentExecutor":
            heard.append(_told(event))  # the flow inside each agent
        handle(self, source, event)

    monkeypatch.setattr(Bus, "llmops_handle", record)
    with CrewListener(spans.monitor):
        asyncio.run({"abandoned": leave_a_stream}[name]())
        bus.deliver(10)
    recorded = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    assert sorted(heard) == recorded["events"], sorted(heard)


def test_the_page_quotes_the_recordings():
    page = PAGE.read_text(encoding="utf-8")
    assert {path.stem for path in RECORDINGS.glob("*.json")} == set(_UNSUPPORTED)
    for name in _UNSUPPORTED:
        recorded = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
        for event in recorded["events"]:
            assert f"`{event}`" in page
