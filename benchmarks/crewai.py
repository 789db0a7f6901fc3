"""What monitoring costs a crew, beside OpenInference's CrewAI instrumentation where it is installed.

Beside both stands a listener that does nothing with the events that ours reads: what the bus itself
takes to call one. One process; rounds of blocks, the variants of a round in random order, so that a
noisy machine hits all of them alike. A block of ours includes the flush to Parquet; one of
OpenInference's hands its spans to a batch processor whose exporter drops them. Prints the CPU that
each adds to a kickoff, as a share of the unmonitored one's, with a bootstrap 95 % interval, and the
spans that each makes::

    pip install 'llmops-integrations[crewai]' openinference-instrumentation-crewai
    python benchmarks/crewai.py --rounds 15 --kickoffs 8
"""

# ruff: noqa: E402 - CrewAI reads the environment when it is imported

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_DISABLE_VERSION_CHECK"] = "true"
os.environ["CREWAI_TESTING"] = "true"
sys.path[:] = [path for path in sys.path if path != str(Path(__file__).parent)]  # it has our name

from crewai import Agent, Crew, Task
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context
from crewai.tools import tool

from llmops_core import Monitor
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import event_classes


class Scripted(BaseLLM):
    """Answers from a script, and reports as the providers' classes do."""

    lines: list[str] = []  # noqa: RUF012 - a field, which each model gets a copy of
    turn: int = 0

    def supports_function_calling(self) -> bool:
        return False

    def call(self, messages: Any, *args: Any, **about: Any) -> str:
        who = {"from_task": about.get("from_task"), "from_agent": about.get("from_agent")}
        with llm_call_context():
            self._emit_call_started_event(messages=messages, **who)
            said = self.lines[self.turn % len(self.lines)]
            self.turn += 1
            usage = {"prompt_tokens": 40, "completion_tokens": 12}
            self._emit_call_completed_event(
                response=said, call_type=LLMCallType.LLM_CALL, messages=messages, usage=usage, **who
            )
        return said


@tool("search")
def search(query: str) -> str:
    """Searches the notes."""
    return f"3 notes about {query}"


def kickoff() -> None:
    """Run a crew of three agents: six model calls, three tools, two thousand characters each."""
    answer = "Thought: I know.\nFinal Answer: " + "cats sleep. " * 160
    lines = ['Thought: look.\nAction: search\nAction Input: {"query": "cats"}', answer]
    agents = [
        Agent(
            role=role,
            goal="write",
            backstory="an expert",
            llm=Scripted(model="scripted-1", lines=lines),
            tools=[search],
        )
        for role in ("researcher", "writer", "editor")
    ]
    tasks = [
        Task(name=a.role, description=f"Do {a.role}.", expected_output="a text", agent=a)
        for a in agents
    ]
    Crew(name="press", agents=agents, tasks=tasks).kickoff()


def block(kickoffs: int, after: Callable[[], object]) -> float:
    """Return the CPU seconds of a block."""
    before = time.process_time()
    for _ in range(kickoffs):
        kickoff()
    crewai_event_bus.flush()
    after()
    return time.process_time() - before


def handlers() -> set[tuple[Any, Any]]:
    """Return what listens on the bus."""
    found = crewai_event_bus._sync_handlers.items()
    return {(cls, handler) for cls, listening in found for handler in listening}


class Ours:
    """This project, to Parquet."""

    def __init__(self, folder: str) -> None:
        self.monitor = Monitor(f"parquet:{folder}")
        self.listener = CrewListener(self.monitor)

    def run(self, kickoffs: int) -> float:
        with self.listener:
            return block(kickoffs, self.monitor.flush)

    def spans(self) -> int:
        return int(self.monitor.stats()["spans"]["made"])


class Idle:
    """A listener that does nothing, of the same events."""

    def run(self, kickoffs: int) -> float:
        classes = tuple(event_classes())

        def listen(source: Any, event: Any) -> None:
            pass

        for cls in classes:
            crewai_event_bus.register_handler(cls, listen)
        try:
            return block(kickoffs, lambda: None)
        finally:
            for cls in classes:
                crewai_event_bus.off(cls, listen)

    def spans(self) -> int:
        return 0


class OpenInference:
    """OpenInference's instrumentation, into a batch processor that drops."""

    def __init__(self, **options: Any) -> None:
        from openinference.instrumentation.crewai import CrewAIInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )

        outer = self
        self.count = 0

        class Drop(SpanExporter):
            def export(self, spans: Any) -> Any:
                outer.count += len(spans)
                return SpanExportResult.SUCCESS

        self.provider = TracerProvider()
        self.provider.add_span_processor(BatchSpanProcessor(Drop()))
        self.instrumentor = CrewAIInstrumentor()
        self.options = options

    def run(self, kickoffs: int) -> float:
        before = handlers()
        self.instrumentor.instrument(tracer_provider=self.provider, **self.options)
        try:
            return block(kickoffs, self.provider.force_flush)
        finally:
            self.instrumentor.uninstrument()
            for cls, handler in handlers() - before:  # it leaves its listener on the bus
                crewai_event_bus.off(cls, handler)

    def spans(self) -> int:
        return self.count


def interval(values: list[float]) -> tuple[float, float]:
    """Return a bootstrap 95 % interval of the median."""
    dice = random.Random(1)
    medians = sorted(statistics.median(dice.choices(values, k=len(values))) for _ in range(2_000))
    return medians[50], medians[1_949]


def main() -> None:
    """Measure, and print one line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kickoffs", type=int, default=8)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        variants: dict[str, Any] = {"ours": Ours(folder), "a listener that does nothing": Idle()}
        try:
            variants["openinference"] = OpenInference()
            options = {"use_event_listener": True, "create_llm_spans": True}
            variants["openinference, by events"] = OpenInference(**options)
        except ImportError:
            print("openinference-instrumentation-crewai is not installed: measuring ours alone")
        block(2, lambda: None)
        for variant in variants.values():
            variant.run(1)
        added: dict[str, list[float]] = {name: [] for name in variants}
        bases = []
        for _ in range(given.rounds):
            times = {}
            for name in random.sample(["none", *variants], len(variants) + 1):
                run = variants[name].run if name in variants else lambda n: block(n, lambda: None)
                times[name] = run(given.kickoffs)
            bases.append(times["none"] / given.kickoffs)
            for name in variants:
                added[name].append(times[name] / times["none"] - 1)
        base = statistics.median(bases)
        print(f"a kickoff takes {base * 1000:.1f} ms of CPU")
        runs = given.rounds * given.kickoffs + 1
        for name, values in added.items():
            low, high = interval(values)
            middle = statistics.median(values)
            print(
                f"{name}: adds {middle:+.1%} [{low:+.1%}, {high:+.1%}], {base * middle * 1000:.2f} ms"
                f" a kickoff; {variants[name].spans() / runs:.0f} spans"
            )
        ours = statistics.median(added["ours"])
        for name in (n for n in added if n != "ours"):
            theirs = statistics.median(added[name])
            print(f"ours / {name}: {ours / theirs:.2f} of its added CPU")
        variants["ours"].monitor.close()


if __name__ == "__main__":
    main()
