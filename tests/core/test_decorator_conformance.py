"""Plain functions play the handler suite's scenarios: every one, with nothing left out."""

from __future__ import annotations

from typing import Any, ClassVar

from decorated_plays import PLAYS, Program

from llmops_core.testing import AGENT_SCENARIOS, SCENARIOS, HandlerConformance
from llmops_core.testing.fixtures import spans

__all__ = ["spans"]


class TestDecorator(HandlerConformance):
    """Nothing stands around a scenario: a decorated function is a span, and nothing else is."""

    names: ClassVar = {"stream abandoned": "stream abandoned streamed"}  # a generator itself

    def play(self, scenario: Any, monitor: Any) -> Any:
        return PLAYS[scenario.name](Program(scenario, monitor))


class TestDecoratorAgents(HandlerConformance):
    """A handoff is told by what the next agent is given, or asked for by a transfer function."""

    scenarios = AGENT_SCENARIOS
    names: ClassVar = {"by edge": "by context"}
    around: ClassVar = {
        "failed_handoff": """\
  workflow press ok
    agent writer ok
      llm scripted-1 [writer] ok 12+3 tokens
+     tool to_editor [writer] ok
    handoff writer → editor [writer] -> editor by transfer incomplete
""",
    }

    def play(self, scenario: Any, monitor: Any) -> Any:
        return PLAYS[scenario.name](Program(scenario, monitor))


def test_every_scenario_is_played():
    assert set(PLAYS) == {scenario.name for scenario in (*SCENARIOS, *AGENT_SCENARIOS)}
