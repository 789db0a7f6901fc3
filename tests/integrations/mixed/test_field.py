"""What users of other tools suffer from, for CrewAI and where the frameworks meet, under one line.

Numbers are those of the field's list. LangChain and LangGraph alone: tests/integrations/instrument.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("crewai")
pytest.importorskip("langgraph")

from crewai.events import crewai_event_bus
from crewai.tools import tool
from crewai_kit import act, agent, crew, final, task
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_kit import CompletionModel, scripted
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from llmops_core import monitor_llm
from llmops_core.testing.fixtures import CapturedSpans
from llmops_integrations import instrument, instrumented, uninstrument
from llmops_integrations.checks import hooks
from llmops_integrations.crewai import CrewListener, monitor_crew, trees
from llmops_integrations.crewai.listener import Bus
from llmops_integrations.instrumenting import crewai_hook
from llmops_integrations.langgraph import monitor_graph

CREW = """\
workflow crew ok
  task t [a] ok
    agent a ok
      llm scripted-1 [a] ok 12+3 tokens
"""
#: A graph whose node has a crew, whose tool has a decorated function and a chain.
MIXED = """\
workflow desk ok
  task node [node] ok
    workflow crew [node] ok
      task t [a] ok
        agent a ok
          llm scripted-1 [a] ok 12+3 tokens
          tool search [a] ok
            chain look up [a] ok
              chain inner [a] ok
                llm scripted-1 [a] ok 12+3 tokens
          llm scripted-1 [a] ok 12+3 tokens
"""


class State(TypedDict, total=False):
    text: str


@pytest.fixture(autouse=True)
def _taken_back() -> Iterator[None]:
    yield
    uninstrument()
    while _listening:
        _listening.pop().detach()


_listening: list[CrewListener] = []


def listening(listener: CrewListener) -> None:
    """Attach a listener until the test has ended."""
    _listening.append(listener.attach())


def small() -> Any:
    return crew(task("t", agent("a")))


def mixed(monitor: Any) -> Any:
    chain = RunnableLambda(lambda x: scripted("a fact").invoke(x)).with_config(run_name="inner")

    @monitor_llm("look up", monitor=monitor)
    def look_up(query: str) -> str:
        return str(chain.invoke(query).content)

    @tool("search")
    def search(query: str) -> str:
        """Searches."""
        return look_up(query)

    def node(state: State) -> State:
        worker = agent("a", act("search", query=state["text"]), final("found"), tools=[search])
        return {"text": str(crew(task("t", worker)).kickoff().raw)}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(name="desk")


# ---- nothing twice ----


def by_one_line(spans: CapturedSpans) -> Any:
    instrument(spans.monitor)
    return small()


def by_one_line_twice(spans: CapturedSpans) -> Any:
    instrument(spans.monitor)
    instrument(spans.monitor)
    return small()


def by_one_line_and_two_listeners(spans: CapturedSpans) -> Any:
    instrument(spans.monitor)
    made = small()
    listening(CrewListener(spans.monitor))
    listening(monitor_crew(made, spans.monitor))
    return made


def by_two_listeners(spans: CapturedSpans) -> Any:
    made = small()
    listening(CrewListener(spans.monitor))
    listening(CrewListener(spans.monitor))
    return made


@pytest.mark.parametrize(
    "wire", [by_one_line, by_one_line_twice, by_one_line_and_two_listeners, by_two_listeners]
)
def test_a_crew_is_recorded_once_however_it_is_attached(wire: Any, spans: CapturedSpans) -> None:
    wire(spans).kickoff()
    assert spans.tree() == CREW


def test_mixed_runs_are_recorded_once_beside_explicit_handlers(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    with CrewListener(spans.monitor):
        monitor_graph(mixed(spans.monitor), monitor=spans.monitor).invoke({"text": "x"})
    assert spans.tree() == MIXED


def test_taken_back_no_crew_is_recorded(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    uninstrument()
    small().kickoff()
    assert spans() == []


# ---- 7: parents come from run ids; nothing is attached, nothing fails to detach ----


def test_07_crews_of_a_batch_do_not_nest(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    crew(task("t", agent("a"), description="Do {x}.")).kickoff_for_each([{"x": "1"}, {"x": "2"}])
    assert spans.tree() == CREW * 2


def test_07_graphs_of_a_batch_with_crews_inside_do_not_nest(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(spans.monitor)
    with caplog.at_level(logging.WARNING):
        mixed(spans.monitor).batch([{"text": "1"}, {"text": "2"}])
    assert spans.tree() == MIXED * 2
    assert not [r for r in caplog.records if "detach" in r.getMessage().lower()]


# ---- 8: an end without its start is a span ----


def test_08_a_crew_whose_start_nobody_heard_is_told_from_its_end(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "WAIT_NS", 0)  # how long an end waits for its start
    listener = CrewListener(spans.monitor)

    @tool("late")
    def late(query: str) -> str:
        """Begins to listen in the middle."""
        listener.attach()
        return query

    crew(task("t", agent("a", act("late", query="x"), final("done"), tools=[late]))).kickoff()
    spans.monitor.flush()
    small().kickoff()  # the next event lets go of what waits
    found = {span.kind: span for span in spans() if span.duration_ms is None}
    assert {"workflow", "task", "tool"} <= set(found)
    assert {span.outcome for span in found.values()} == {"ok"}
    listener.detach()


class Inline(BaseCallbackHandler):
    """Another tool's handler, which hides the start of async completions from those that are not."""

    run_inline = True


async def test_08_a_completion_whose_start_is_hidden_is_a_span_in_its_node(
    spans: CapturedSpans,
) -> None:
    async def ask(state: State) -> State:
        return {"text": await CompletionModel().ainvoke(state["text"])}

    async def delegate(state: State) -> State:
        return {"text": str((await small().akickoff()).raw)}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("delegate", delegate)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "delegate")
    instrument(spans.monitor)
    await builder.compile(name="desk").ainvoke({"text": "x"}, {"callbacks": [Inline()]})
    found = {span.name: span for span in await asyncio.to_thread(spans)}
    nodes = {span.span_id: name for name, span in found.items()}
    asked = next(
        span for span in found.values() if span.output == "It is 4." and span.kind == "llm"
    )
    assert nodes[str(asked.parent_id)] == "ask"
    assert asked.outcome == "ok"
    assert nodes[str(found["crew"].parent_id)] == "delegate"
    assert len({span.trace_id for span in found.values()}) == 1


# ---- 9: one attachment, many runs, and nothing changes for the program ----


async def test_09_concurrent_mixed_runs_are_kept_apart(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    desk = mixed(spans.monitor)
    await asyncio.gather(
        *(
            asyncio.to_thread(desk.invoke, {"text": f"{n}"}, {"metadata": {"session_id": f"s{n}"}})
            for n in range(4)
        )
    )
    found = await asyncio.to_thread(spans)
    assert {span.session_id for span in found} == {f"s{n}" for n in range(4)}
    for session in {span.session_id for span in found}:
        mine = [span for span in found if span.session_id == session]
        assert len(mine) == len(MIXED.splitlines())
        assert len({span.trace_id for span in mine}) == 1


def test_09_results_are_the_same_with_and_without(spans: CapturedSpans) -> None:
    def result() -> Any:
        output = small().kickoff()
        return output.raw, output.token_usage.total_tokens

    before = result()
    instrument(spans.monitor)
    assert result() == before


def test_09_it_is_seen_from_plain_threads(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    threads = [threading.Thread(target=small().kickoff) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spans.tree() == CREW * 2


# ---- 10: CrewAI's pairs, nests and noise; and under LangGraph too ----


def test_10_nothing_of_the_agents_inner_flow_is_shown_in_a_graph(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    mixed(spans.monitor).invoke({"text": "x"})
    assert "AgentExecutor" not in spans.tree()
    assert {span.outcome for span in spans()} == {"ok"}
    assert all(span.duration_ms is not None for span in spans())


@pytest.mark.parametrize("seed", range(2))
def test_10_a_mixed_tree_is_the_same_in_any_order_of_delivery(
    seed: int, spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CrewAI's bus calls its handlers in a pool: an end may overtake its start."""
    dice, lock, handle = random.Random(seed), threading.Lock(), Bus.llmops_handle

    def late(self: Any, source: Any, event: Any) -> None:
        with lock:
            pause = dice.uniform(0, 0.004)
        time.sleep(pause)
        handle(self, source, event)

    monkeypatch.setattr(Bus, "llmops_handle", late)
    instrument(spans.monitor)
    try:
        mixed(spans.monitor).invoke({"text": "x"})
        assert spans.tree() == MIXED
    finally:
        uninstrument()  # before the patch goes: it takes off the bus what it finds there


# ---- 21: nothing is disabled silently ----


@pytest.mark.timeout(600)  # as below
def test_21_the_doctor_tries_what_would_be_hooked_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a process of its own, which imports CrewAI: one run of each framework is recorded."""
    monkeypatch.setattr(hooks, "_SECONDS", 560)
    found = {f.facts["framework"]: (f.level, f.text) for f in hooks.Hooks().check() if f.facts}
    assert found == {
        name: ("ok", f"{name}: attached: {how}; a run of it is recorded")
        for name, how in (
            ("langchain", "register_configure_hook"),
            ("langgraph", "wrapped functions of langgraph.pregel.main"),
            ("crewai", "crewai_event_bus"),
        )
    }


def test_21_what_is_hooked_is_told(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    assert instrumented()["crewai"] == "attached: crewai_event_bus"
    small().kickoff()
    mixed(spans.monitor).invoke({"text": "x"})
    assert set(instrumented().values()) == {
        "attached: crewai_event_bus",
        "attached: register_configure_hook",
        "attached: wrapped functions of langgraph.pregel.main",
    }


def test_21_a_crewai_that_cannot_be_hooked_is_told_and_counted(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ImportError("no event bus")

    monkeypatch.setattr(crewai_hook.CrewAIHook, "imported", fails)
    instrument(spans.monitor)
    assert instrumented()["crewai"] == "failed: ImportError: no event bus"
    assert spans.monitor.stats()["failures"] == {"handler.instrument crewai: ImportError": 1}
    monkeypatch.undo()


def test_21_handlers_are_off_the_bus_when_taken_back(spans: CapturedSpans) -> None:
    def ours() -> int:
        return sum(
            "llmops" in getattr(handler, "__name__", "")
            for handlers in crewai_event_bus._sync_handlers.values()
            for handler in handlers
        )

    before = ours()
    instrument(spans.monitor)
    assert ours() > before
    uninstrument()
    assert ours() == before


PROGRAM = """
import sys
{first}
assert ("crewai" in sys.modules) is {imported}
{second}
sys.path[:0] = {folders!r}
from crewai_kit import agent, crew, task
crew(task("t", agent("a"))).kickoff()
from llmops_core import span_tree, spans_from_arrow
monitor.flush()
print(span_tree(spans_from_arrow(monitor.query())), end="")
monitor.close()
"""
INSTRUMENT = """
from llmops_core import Monitor
from llmops_integrations import instrument
monitor = instrument(Monitor(storage="memory:", durability="memory"))
"""


@pytest.mark.timeout(600)  # CrewAI alone takes minutes to import where a machine is overloaded
@pytest.mark.parametrize("order", ["before", "after"])
def test_21_it_works_before_and_after_crewais_import(order: str) -> None:
    first, second = INSTRUMENT, "import crewai"
    if order == "after":
        first, second = second, first
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "crewai")  # noqa: PTH118, PTH120
    program = PROGRAM.format(
        first=first, second=second, folders=[folder], imported=order == "after"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=560
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(CREW)
