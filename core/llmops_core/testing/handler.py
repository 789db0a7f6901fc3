"""The handler suite: every framework plays the same small scenarios and must yield the same tree.

Subclass :class:`HandlerConformance` in a test module, say how the framework plays a scenario, and
pytest does the rest::

    from llmops_core.testing import HandlerConformance, Scenario
    from llmops_core.testing.fixtures import spans

    class TestMyFramework(HandlerConformance):
        def play(self, scenario, monitor):
            return PLAYS[scenario.name](scenario, monitor)

Where the framework itself puts spans around a scenario, say which: see ``around``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import pytest

from llmops_core import Monitor
from llmops_core.testing.around import whole, without_added
from llmops_core.testing.fixtures import CapturedSpans

__all__ = ["AGENT_SCENARIOS", "SCENARIOS", "HandlerConformance", "Reply", "Scenario"]


@dataclass(frozen=True)
class Reply:
    """What a scripted model answers to one call."""

    text: str = ""
    model: str = "scripted-1"
    input_tokens: int = 12
    output_tokens: int = 3
    #: Raise ``RuntimeError`` with this text instead of answering.
    error: str | None = None
    #: Answer in pieces, split at spaces.
    streamed: bool = False
    #: Do not answer before the call is cancelled.
    hangs: bool = False


@dataclass(frozen=True)
class Scenario:
    """One small program, told without a framework, and the span tree that it must yield."""

    name: str
    about: str
    expected: str
    question: str = "What is 2 + 2?"
    replies: tuple[Reply, ...] = ()
    session: str | None = None


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        name="model_call",
        about="One call of a chat model, and nothing around it.",
        replies=(Reply("It is 4."),),
        expected="llm scripted-1 ok 12+3 tokens\n",
    ),
    Scenario(
        name="model_stream",
        about="One streamed call of a chat model, read to its end.",
        replies=(Reply("It is 4.", streamed=True),),
        expected="llm scripted-1 ok 12+3 tokens streamed\n",
    ),
    Scenario(
        name="model_error",
        about="One call of a chat model that raises RuntimeError('overloaded').",
        replies=(Reply(error="overloaded"),),
        expected="llm scripted-1 error RuntimeError\n",
    ),
    Scenario(
        name="completion",
        about="One call of a completion model (text in, text out) that tells no usage.",
        replies=(Reply("It is 4."),),
        expected="llm scripted-1 ok\n",
    ),
    Scenario(
        name="tool_call",
        about="The tool add(a=2, b=2), called alone.",
        expected="tool add ok\n",
    ),
    Scenario(
        name="tool_error",
        about="The tool divide(a=1, b=0), called alone; it raises ZeroDivisionError.",
        expected="tool divide error ZeroDivisionError\n",
    ),
    Scenario(
        name="retrieval",
        about="The retriever 'notes', asked alone; it returns one document.",
        expected="retriever notes ok\n",
    ),
    Scenario(
        name="pipeline",
        about="A workflow named pipeline: the tool add, then one call of a chat model.",
        replies=(Reply("It is 4."),),
        expected="workflow pipeline ok\n  tool add ok\n  llm scripted-1 ok 12+3 tokens\n",
    ),
    Scenario(
        name="parallel_tools",
        about="A workflow named parallel calls the tool add twice at the same time.",
        expected="workflow parallel ok\n  tool add ok\n  tool add ok\n",
    ),
    Scenario(
        name="retry",
        about="A workflow named retry: a chat model fails once, and is called again.",
        replies=(Reply(error="overloaded"), Reply("It is 4.")),
        expected=(
            "workflow retry ok\n"
            "  llm scripted-1 error RuntimeError\n"
            "  llm scripted-1 ok attempt=2 12+3 tokens\n"
        ),
    ),
    Scenario(
        name="fallback",
        about="A workflow named fallback: one chat model fails, another answers.",
        replies=(Reply(error="overloaded"), Reply("It is 4.", model="scripted-2")),
        expected=(
            "workflow fallback ok\n"
            "  llm scripted-1 error RuntimeError\n"
            "  llm scripted-2 ok 12+3 tokens\n"
        ),
    ),
    Scenario(
        name="cancelled",
        about="A workflow named slow is cancelled while its chat model is at work.",
        replies=(Reply(hangs=True),),
        expected="workflow slow cancelled\n  llm scripted-1 cancelled\n",
    ),
    Scenario(
        name="abandoned",
        about="A workflow named stream streams a chat model; its reader leaves after one piece.",
        replies=(Reply("It is 4.", streamed=True),),
        expected="workflow stream abandoned\n  llm scripted-1 abandoned streamed\n",
    ),
    Scenario(
        name="session",
        about="One call of a chat model in the session chat-7.",
        replies=(Reply("It is 4."),),
        session="chat-7",
        expected="llm scripted-1 ok 12+3 tokens session=chat-7\n",
    ),
)

#: For frameworks that have agents, and pauses that another process may end.
AGENT_SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        name="nested_agents",
        about="In a workflow named team the agent boss has the agent worker as a tool, and asks it.",
        replies=(Reply("It is 4."), Reply("The worker says 4.")),
        expected=(
            "workflow team ok\n"
            "  agent boss ok\n"
            "    llm scripted-1 [boss] ok 12+3 tokens\n"
            "    tool ask_worker [boss] ok\n"
            "      agent worker ok\n"
            "        llm scripted-1 [worker] ok 12+3 tokens\n"
            "    llm scripted-1 [boss] ok 12+3 tokens\n"
            "  handoff boss → worker [boss] -> worker by tool handed_off\n"
        ),
    ),
    Scenario(
        name="handoff",
        about="In a workflow named press the agent writer works, and then the agent editor on it.",
        replies=(Reply("A draft."), Reply("A text.")),
        expected=(
            "workflow press ok\n"
            "  agent writer ok\n"
            "    llm scripted-1 [writer] ok 12+3 tokens\n"
            "  handoff writer → editor [writer] -> editor by edge handed_off\n"
            "  agent editor ok\n"
            "    llm scripted-1 [editor] ok 12+3 tokens\n"
        ),
    ),
    Scenario(
        name="failed_handoff",
        about="In a workflow named press the agent writer asks for the agent editor, which never starts.",
        replies=(Reply("A draft."),),
        expected=(
            "workflow press ok\n"
            "  agent writer ok\n"
            "    llm scripted-1 [writer] ok 12+3 tokens\n"
            "  handoff writer → editor [writer] -> editor by transfer incomplete\n"
        ),
    ),
    Scenario(
        name="interrupt",
        about="A workflow named review: draft asks a person and pauses; resumed, publish follows.",
        question="Is this fine?",
        session="review-7",
        expected=(
            "workflow review interrupted session=review-7\n"
            "  task draft interrupted\n"
            "workflow review ok session=review-7\n"
            "  task draft ok\n"
            "  task publish ok\n"
        ),
    ),
)


class HandlerConformance:
    """Plays every scenario with one framework and compares trees. Needs the fixture ``spans``."""

    #: What is played. A second class with ``AGENT_SCENARIOS`` plays those.
    scenarios: ClassVar[tuple[Scenario, ...]] = SCENARIOS
    #: Scenarios that the framework has no way to play, each with the reason.
    unsupported: ClassVar[Mapping[str, str]] = {}
    #: Whole trees of scenarios that the framework cannot play bare, by name, with ``+`` before each
    #: line that it adds and two spaces before the others. See :mod:`llmops_core.testing.around`.
    around: ClassVar[Mapping[str, str]] = {}
    #: Words that the framework has where the scenario has its own: ``{"notes": "memory_query"}``.
    names: ClassVar[Mapping[str, str]] = {}

    def play(self, scenario: Scenario, monitor: Monitor | None) -> object:
        """Play a scenario and return what the program got, comparable with ``==``.

        With a monitor, attach the handler to it; with None, play without any handler. Catch what
        the scenario says is raised, and return it as text.
        """
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each scenario that the framework has; the others are not collected."""
        if "scenario" in metafunc.fixturenames:
            played = [s for s in self.scenarios if s.name not in self.unsupported]
            metafunc.parametrize("scenario", played, ids=[s.name for s in played])

    def test_the_tree_is_as_told(self, scenario: Scenario, spans: CapturedSpans) -> None:
        self.play(scenario, spans.monitor)
        tree = spans.tree()
        expected = scenario.expected
        for name, theirs in self.names.items():
            expected = re.sub(rf"(?<= ){re.escape(name)}(?=[ \n])", theirs, expected)
        told = self.around.get(scenario.name)
        if told is not None:  # it adds to the scenario's tree, and changes nothing of it
            assert without_added(told) == expected, without_added(told)  # noqa: S101
            expected = whole(told)
        assert tree == expected, tree  # noqa: S101 - a test that others inherit

    def test_the_program_gets_the_same_without_a_handler(
        self, scenario: Scenario, spans: CapturedSpans
    ) -> None:
        ours, theirs = self.play(scenario, spans.monitor), self.play(scenario, None)
        assert ours == theirs, (ours, theirs)  # noqa: S101 - a test that others inherit
