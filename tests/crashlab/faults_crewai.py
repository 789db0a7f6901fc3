"""A crew as a program of the matrix. CrewAI has environments of its own, so this has a file of its own."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

KIT = Path(__file__).parents[1] / "integrations" / "crewai"

__all__ = ["make_crew", "stay_offline"]


def stay_offline() -> None:
    """Before CrewAI is imported: it looks its servers up, and writes into the home folder."""
    home = os.environ.get("LLMOPS_STATE_DIR") or tempfile.gettempdir()
    os.environ.update(
        HOME=home,
        CREWAI_STORAGE_DIR=home,
        CREWAI_DISABLE_TELEMETRY="true",
        CREWAI_DISABLE_VERSION_CHECK="true",
        CREWAI_TESTING="true",
    )
    # It warns "approximate input token count" once or twice a crew: two of its threads race to it.
    logging.getLogger("crewai.llms.base_llm").setLevel(logging.ERROR)
    if str(KIT) not in sys.path:
        sys.path.append(str(KIT))


def make_crew(monitor: Any, work: Any) -> tuple[Any, dict[str, Any]]:
    """Return a crew of two tasks, the second of which has what the first found."""
    from crewai_kit import agent, crew, final, task

    def built(number: int, **more: Any) -> Any:
        try:
            answer: Any = final(str(work(number)))
        except Exception as error:  # the model raises what the user's code does
            answer = error
        first = task("double", agent("counter", answer, **more))
        second = task("tell", agent("teller", final("told"), **more), context=[first])
        return crew(first, second, name="crew")

    class Program:
        """Takes a number where a crew takes inputs."""

        def invoke(self, number: int, config: Any) -> Any:
            return _told(built(number).kickoff())

        async def ainvoke(self, number: int, config: Any) -> Any:
            return _told(await built(number).kickoff_async())

        def stream(self, number: int, config: Any) -> Any:
            return [_told(built(number, pieces=True).kickoff())]

    if monitor is not None:
        from llmops_integrations.crewai import CrewListener

        CrewListener(monitor).attach()
    return Program(), {}


def _told(result: Any) -> list[Any]:
    tasks = [(done.raw, done.agent, done.name) for done in result.tasks_output]
    return [result.raw, tasks, result.token_usage.total_tokens]
