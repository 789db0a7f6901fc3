"""CrewAI plays the handler suite's scenarios, those that its event bus has words for."""

from __future__ import annotations

from typing import ClassVar

import pytest

pytest.importorskip("crewai")

from contextlib import nullcontext

from crewai_kit import ScriptedLLM

from llmops_core import monitoring_session
from llmops_core.testing import HandlerConformance
from llmops_integrations.crewai import CrewListener

_NO_EVENT = "a tool that is called by hand emits nothing; the trees of crews have tools"
_NO_RUN = "the bus has no run right around a model or tool: a crew has tasks, a flow has methods"


class TestCrewAI(HandlerConformance):
    """A model alone, whole, streamed and in a session."""

    unsupported: ClassVar = {
        "model_error": "llm_call_failed brings an error's text, and alone nothing tells its type",
        "tool_call": _NO_EVENT,
        "tool_error": _NO_EVENT,
        "retrieval": "knowledge and memory are asked by agents; test_events has their spans",
        "pipeline": _NO_RUN,
        "parallel_tools": _NO_RUN,
        "retry": _NO_RUN,
        "fallback": _NO_RUN,
        "cancelled": _NO_RUN,
        "abandoned": _NO_RUN,
    }

    def play(self, scenario, monitor):
        reply = scenario.replies[0]
        usage = {"prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens}
        model = ScriptedLLM(
            model=reply.model,
            replies=[reply.text],
            pieces=reply.streamed,
            usage=None if scenario.name == "completion" else usage,
        )
        session = monitoring_session(scenario.session) if scenario.session else nullcontext()
        with CrewListener(monitor) if monitor else nullcontext(), session:
            return model.call(scenario.question)
