"""Each of the seven outcomes, by every way to call a graph that can reach it; and late ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.runnables import RunnableLambda
from langchain_kit import failures_of_ours, scripted
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from langgraph_kit import WAYS, State, ask, config, line, roots, say

from llmops_core import OUTCOMES, Span
from llmops_core.testing import Reply
from llmops_core.testing.fixtures import CapturedSpans, spans
from llmops_integrations.langgraph import monitor_graph

__all__ = ["spans"]

way = pytest.mark.parametrize("way", WAYS)
GIVEN: dict[str, Any] = {"said": []}


def _outcomes(found: list[Span]) -> dict[str, str]:
    return {span.name: span.outcome for span in found}


@way
async def test_ok(way: str, spans: CapturedSpans) -> None:
    await WAYS[way](monitor_graph(line(("a", say("a"))), monitor=spans.monitor), GIVEN, config())
    assert _outcomes(spans()) == {"LangGraph": "ok", "a": "ok"}


@way
async def test_error(way: str, spans: CapturedSpans) -> None:
    def fail(state: State) -> State:
        raise ValueError("no")

    graph = monitor_graph(line(("a", say("a")), ("fail", fail)), monitor=spans.monitor)
    with pytest.raises(ValueError, match="no"):
        await WAYS[way](graph, GIVEN, config())
    assert _outcomes(spans()) == {"LangGraph": "error", "a": "ok", "fail": "error"}
    assert {s.error_type for s in spans() if s.outcome == "error"} == {"ValueError"}


@way
async def test_interrupted(way: str, spans: CapturedSpans) -> None:
    graph = monitor_graph(line(("a", say("a")), ("ask", ask("?"))), monitor=spans.monitor)
    await WAYS[way](graph, GIVEN, config())
    assert _outcomes(spans()) == {"LangGraph": "interrupted", "a": "ok", "ask": "interrupted"}


@way
async def test_handed_off(way: str, spans: CapturedSpans) -> None:
    def leave(state: State) -> Command[Any]:
        return Command(goto="b", graph=Command.PARENT)

    builder = StateGraph(State).add_node("b", say("b"))
    builder.add_node("a", line(("leave", leave), saver=None, name="inner"), destinations=("b", END))
    graph = monitor_graph(builder.add_edge(START, "a").compile(), monitor=spans.monitor)
    await WAYS[way](graph, GIVEN, config())
    assert _outcomes(spans()) == {
        "LangGraph": "ok",
        "a": "handed_off",
        "inner": "handed_off",
        "leave": "handed_off",
        "a → b": "handed_off",
        "b": "ok",
    }


@way
async def test_incomplete_is_a_handoff_that_nobody_took(way: str, spans: CapturedSpans) -> None:
    """The recursion limit comes between the request and its target."""

    def go(state: State) -> Command[Any]:
        return Command(goto="b")

    builder = StateGraph(State).add_node("a", go).add_node("b", say("b"))
    graph = monitor_graph(builder.add_edge(START, "a").compile(), monitor=spans.monitor)
    with pytest.raises(RecursionError):
        await WAYS[way](graph, GIVEN, config(recursion_limit=1))
    assert _outcomes(spans()) == {"LangGraph": "error", "a": "ok", "a → b": "incomplete"}


@pytest.mark.parametrize("way", ["invoke", "stream"])
async def test_cancelled_by_ctrl_c(way: str, spans: CapturedSpans) -> None:
    """In a node that is alone in its step: others run in a pool, where no Ctrl-C arrives."""

    def stop(state: State) -> State:
        raise KeyboardInterrupt

    graph = monitor_graph(line(("a", say("a")), ("stop", stop)), monitor=spans.monitor)
    with pytest.raises(KeyboardInterrupt):
        await WAYS[way](graph, GIVEN, config())
    assert _outcomes(spans()) == {"LangGraph": "cancelled", "a": "ok", "stop": "cancelled"}


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_cancelled_with_the_model_call_that_never_ends(
    way: str, spans: CapturedSpans
) -> None:
    model, at_work = scripted(Reply(hangs=True)), asyncio.Event()

    async def talk(state: State) -> State:
        at_work.set()
        return {"said": [await model.ainvoke("x")]}

    graph = monitor_graph(line(("a", say("a")), ("talk", talk)), monitor=spans.monitor)
    call = asyncio.ensure_future(WAYS[way](graph, GIVEN, config()))
    await at_work.wait()
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert _outcomes(spans()) == {
        "LangGraph": "cancelled",
        "a": "ok",
        "talk": "cancelled",
        "scripted-1": "cancelled",
    }
    assert spans.monitor.stats()["spans"]["open"] == 0


def _talker() -> Any:
    model = scripted(Reply("one two three four", streamed=True))

    async def atalk(state: State) -> State:
        return {"said": [(await model.ainvoke("x")).content]}

    return line(("talk", atalk)), line(
        ("talk", lambda state: {"said": [model.invoke("x").content]})
    )


def test_abandoned_in_the_middle_of_a_stream(spans: CapturedSpans) -> None:
    graph = monitor_graph(_talker()[1], monitor=spans.monitor)
    stream = graph.stream(GIVEN, config(), stream_mode="messages")
    next(stream)
    stream.close()
    assert roots(spans)[0].outcome == "abandoned"
    assert {s.outcome for s in spans()} <= {"abandoned", "ok"}, "what had ended had ended well"


async def test_abandoned_in_the_middle_of_an_async_stream(spans: CapturedSpans) -> None:
    graph = monitor_graph(_talker()[0], monitor=spans.monitor)
    stream = graph.astream(GIVEN, config(), stream_mode="messages")
    await anext(stream)
    await stream.aclose()
    assert roots(spans)[0].outcome == "abandoned"
    assert "error" not in {s.outcome for s in spans()}


async def test_every_outcome_is_one_that_the_schema_knows() -> None:
    names = " ".join(name for name in globals() if name.startswith("test_"))
    assert {outcome for outcome in OUTCOMES if outcome not in names} == set()


# ---- ends that come late, or never ----


async def test_an_open_child_waits_for_its_own_end_after_its_root_s(spans: CapturedSpans) -> None:
    """A task that a node started and did not wait for ends after its graph: it keeps its end."""
    model, go, left = scripted("late"), asyncio.Event(), []

    async def work(_: Any) -> str:
        await go.wait()
        return str((await model.ainvoke("x")).content)

    async def start(state: State) -> State:
        left.append(asyncio.ensure_future(RunnableLambda(work).ainvoke(0)))
        await asyncio.sleep(0.01)
        return {"said": ["started"]}

    graph = monitor_graph(line(("start", start)), monitor=spans.monitor)
    await graph.ainvoke(GIVEN, config())
    go.set()
    assert await left[0] == "late"
    found = spans()
    assert {s.outcome for s in found} == {"ok"}
    root = roots(spans)[0]
    (call,) = [s for s in found if s.kind == "llm"]
    assert call.start_time > root.end_time
    assert call.trace_id == root.trace_id


async def test_an_open_child_is_closed_when_its_root_ended_and_a_later_end_is_only_counted(
    spans: CapturedSpans,
) -> None:
    go, left = asyncio.Event(), []

    async def wait(_: Any) -> str:
        await go.wait()
        return "too late"

    async def start(state: State) -> State:
        run = RunnableLambda(wait).with_config(run_name="left behind")
        left.append(asyncio.ensure_future(run.ainvoke(0)))
        await asyncio.sleep(0.01)
        return {"said": ["started"]}

    graph = monitor_graph(line(("start", start)), monitor=spans.monitor)
    await graph.ainvoke(GIVEN, config())
    assert _outcomes(spans())["left behind"] == "incomplete"
    before = len(spans())
    go.set()
    assert await left[0] == "too late"
    assert len(spans()) == before
    assert spans.monitor.stats()["tracer"]["late_end"] == 1
    assert failures_of_ours(spans.monitor) == {}


async def test_a_failing_branch_closes_what_runs_beside_it(spans: CapturedSpans) -> None:
    async def fail(state: State) -> State:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async def wait(state: State) -> State:
        await asyncio.sleep(30)
        return {}

    builder = StateGraph(State)
    for name, node in (("fail", fail), ("wait", wait)):
        builder.add_node(name, node).add_edge(START, name)
    with contextlib.suppress(ValueError):
        await monitor_graph(builder.compile(), monitor=spans.monitor).ainvoke(GIVEN)
    assert _outcomes(spans()) == {"LangGraph": "error", "fail": "error", "wait": "cancelled"}
