"""What users of other tools suffer from in LangGraph. Numbers are those of the field's list."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_kit import CompletionModel, add, failures_of_ours, scripted
from langgraph.callbacks import GraphCallbackHandler
from langgraph.types import Command
from langgraph_kit import (
    WAYS,
    agent,
    config,
    fork,
    line,
    one,
    pauses,
    roots,
    say,
    sub,
)
from langgraph_scenarios import ASK, call_of, command_to_the_parent, supervisor, swarm

from llmops_core.testing import Reply
from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langgraph import LangGraphHandler, monitor_graph

way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

# ---- 1: an interrupt is interrupted, never an error ----

STOPPED = {
    "node": (one, {"said": []}),
    "subgraph": (sub, {"said": []}),
    "tool": (agent, {"messages": [("user", "pay me")]}),
    "two at once": (fork, {"said": []}),
    "before": (
        lambda: line(("a", say("a")), ("b", say("b")), interrupt_before=["b"]),
        {"said": []},
    ),
    "after": (
        lambda: line(("a", say("a")), ("b", say("b")), interrupt_after=["a"]),
        {"said": []},
    ),
    "before, in a subgraph": (
        lambda: line(("outer", line(("b", say("b")), saver=None, interrupt_before=["b"]))),
        {"said": []},
    ),
}
TREES = {
    "node": """\
workflow LangGraph interrupted session=thread-1
  task plan [plan] ok
  task approve [approve] interrupted
""",
    "subgraph": """\
workflow LangGraph interrupted session=thread-1
  task outer [outer] interrupted
    chain desk [outer] interrupted
      task inner [outer] interrupted
""",
    "tool": """\
agent teller interrupted session=thread-1
  task model [teller] ok
    llm scripted-1 [teller] ok
  task tools [teller] interrupted
    tool refund [teller] interrupted
""",
    "two at once": """\
workflow LangGraph interrupted session=thread-1
  task left [left] interrupted
  task right [right] interrupted
""",
    "before": "workflow LangGraph interrupted session=thread-1\n  task a [a] ok\n",
    "after": "workflow LangGraph interrupted session=thread-1\n  task a [a] ok\n",
    "before, in a subgraph": """\
workflow LangGraph interrupted session=thread-1
  task outer [outer] interrupted
    chain LangGraph [outer] interrupted
""",
}


@way
@pytest.mark.parametrize("name", STOPPED)
async def test_01_an_interrupt_is_interrupted_and_never_an_error(
    name: str,
    way: Any,
    spans: CapturedSpans,  # noqa: F811
):
    make, given = STOPPED[name]
    graph = monitor_graph(make(), monitor=spans.monitor)
    await way(graph, given, config())
    tree = "\n".join(row for row in spans.tree().splitlines() if "handoff " not in row) + "\n"
    assert tree == TREES[name]
    assert all(span.error_type is None for span in spans())
    assert [pause.answered for pause in pauses(spans)] == [False]
    assert failures_of_ours(spans.monitor) == {}


# ---- 2: a resumed run joins the paused one; the other process is in test_resume.py ----


@way
async def test_02_a_resumed_run_joins_the_paused_one(way: Any, spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(one(), monitor=spans.monitor)
    await way(graph, {"said": []}, config())
    spans.clock.advance(90_000)
    await way(graph, Command(resume="approved"), config())
    paused, resumed = roots(spans)
    (pause,) = pauses(spans)
    assert (paused.outcome, resumed.outcome) == ("interrupted", "ok")
    assert paused.trace_id != resumed.trace_id
    assert paused.wait_key == resumed.resume_key is not None
    assert [question.value for question in pause.asked] == [{"refund": 42}]
    assert (pause.answer, pause.resumed_trace_ids) == ("approved", (resumed.trace_id,))
    assert 90_000 <= pause.waited_ms < 91_000


# ---- 3: the lifecycle callbacks are there ----


def test_03_the_handler_is_a_graph_callback_handler(spans: CapturedSpans, caplog):  # noqa: F811
    handler = LangGraphHandler(spans.monitor)
    assert isinstance(handler, GraphCallbackHandler)
    for name in ("on_interrupt", "on_resume"):
        assert getattr(LangGraphHandler, name) is not getattr(GraphCallbackHandler, name)
    graph = one()
    graph.invoke({"said": []}, config(callbacks=[handler]))
    graph.invoke(Command(resume="yes"), config(callbacks=[handler]))
    assert [pause.answer for pause in pauses(spans)] == ["yes"]
    assert caplog.records == []


# ---- 4: a handoff is control flow: one span of it, confirmed by its target's start ----

HANDED_OVER = {
    "command to the parent": (command_to_the_parent, {"said": []}, "command"),
    "transfer tool": (swarm, ASK, "transfer"),
}


@way
@pytest.mark.parametrize("name", HANDED_OVER)
async def test_04_a_handoff_is_one_confirmed_span_and_no_error(
    name: str,
    way: Any,
    spans: CapturedSpans,  # noqa: F811
):
    make, given, mechanism = HANDED_OVER[name]
    await way(monitor_graph(make(), monitor=spans.monitor), given, config())
    assert [span.name for span in spans() if span.outcome == "error"] == []
    handoffs = [span for span in spans() if span.kind == "handoff"]
    assert [(h.handoff_mechanism, h.handoff_confirmed) for h in handoffs] == [(mechanism, True)]
    (handoff,) = handoffs
    assert handoff.outcome == "handed_off"
    assert handoff.end_time == min(s.start_time for s in spans() if s.name == handoff.target_agent)


@pytest.mark.filterwarnings("ignore:create_react_agent has been moved")
@way
async def test_04_a_handoff_that_never_arrives_is_reported(
    way: Any,
    spans: CapturedSpans,  # noqa: F811
):
    both = (call_of("transfer_to_billing"), call_of("transfer_to_shipping"))
    graph = monitor_graph(supervisor(*both), monitor=spans.monitor)
    await way(graph, ASK, config())
    ran = {span.agent for span in spans() if span.kind == "agent"}
    asked = [s for s in spans() if s.kind == "handoff" and s.handoff_mechanism == "transfer"]
    assert {handoff.target_agent for handoff in asked} == {"billing", "shipping"}
    for handoff in asked:
        arrived = handoff.target_agent in ran
        assert handoff.handoff_confirmed is arrived
        assert handoff.outcome == ("handed_off" if arrived else "incomplete")


# ---- 5: left is abandoned, cancelled is cancelled ----


def _talker() -> Any:
    model = scripted(Reply("one two three", streamed=True))
    return line(("talk", lambda state: {"said": [model.invoke("x").content]}), ("end", say("end")))


def test_05_a_stream_that_its_reader_left_is_abandoned(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(_talker(), monitor=spans.monitor)
    stream = graph.stream({"said": []}, config())
    next(stream)
    stream.close()
    assert roots(spans)[0].outcome == "abandoned"
    assert not [span for span in spans() if span.outcome == "error"]


async def test_05_an_async_stream_that_its_reader_left_is_abandoned(
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(_talker(), monitor=spans.monitor)
    stream = graph.astream({"said": []}, config())
    await anext(stream)
    await stream.aclose()
    assert roots(spans)[0].outcome == "abandoned"
    assert not [span for span in spans() if span.outcome == "error"]


async def test_05_a_cancelled_run_is_cancelled_with_what_is_in_it(
    spans: CapturedSpans,  # noqa: F811
):
    model = scripted(Reply(hangs=True))

    async def talk(state):
        return {"said": [await model.ainvoke("x")]}

    graph = monitor_graph(line(("talk", talk)), monitor=spans.monitor)
    call = asyncio.create_task(graph.ainvoke({"said": []}, config()))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert {(span.kind, span.outcome) for span in spans()} == {
        ("workflow", "cancelled"),
        ("agent", "cancelled"),
        ("llm", "cancelled"),
    }


def test_05_ctrl_c_is_cancelled(spans: CapturedSpans):  # noqa: F811
    def stop(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        monitor_graph(line(("stop", stop)), monitor=spans.monitor).invoke({"said": []}, config())
    assert {span.outcome for span in spans()} == {"cancelled"}


# ---- 6: incomplete only when the whole tree is idle ----


async def test_06_a_run_is_incomplete_only_when_its_tree_is_idle(
    spans: CapturedSpans,  # noqa: F811
):
    go, started = asyncio.Event(), asyncio.Event()

    async def wait(state):
        started.set()
        await go.wait()
        return {"said": ["late"]}

    idle_ms = spans.monitor.settings.idle_seconds * 1_000
    graph = monitor_graph(line(("wait", wait)), monitor=spans.monitor)
    call = asyncio.create_task(graph.ainvoke({"said": []}, config()))
    await started.wait()
    spans.clock.advance(idle_ms / 2)
    spans.monitor.flush()
    assert spans.monitor.query().num_rows == 0  # old, and not idle
    go.set()
    await call
    assert {span.outcome for span in spans()} == {"ok"}


def test_06_a_tree_without_an_end_is_incomplete_once_it_is_idle(
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(line(("a", say("a")), ("b", say("b"))), monitor=spans.monitor)
    stream = graph.stream({"said": []}, config())
    next(stream)  # and never read on
    spans.monitor.flush()
    spans.clock.advance(spans.monitor.settings.idle_seconds * 1_000 + 60_000)
    end = time.monotonic() + 20
    while time.monotonic() < end and not [s for s in spans() if s.parent_id is None]:
        time.sleep(0.05)
    outcomes = {span.name: span.outcome for span in spans()}
    assert outcomes == {"LangGraph": "incomplete", "a": "ok"}
    stream.close()


# ---- 7: parents come from run ids ----

ITEM = "workflow item ok\n  task work [work] ok\n    tool add [work] ok\n"


def adding() -> Any:
    """A graph whose node calls a tool with what it is given."""
    work = lambda state: {"said": [add.invoke({"a": int(state["said"][-1]), "b": 0})]}  # noqa: E731
    return line(("work", work), saver=None, name="item")


@pytest.mark.parametrize("way", ["batch", "abatch"])
async def test_07_graphs_of_a_batch_do_not_nest(way: str, spans: CapturedSpans, caplog):  # noqa: F811
    graph = monitor_graph(adding(), monitor=spans.monitor)
    given = [{"said": [str(n)]} for n in range(3)]
    if way == "batch":
        graph.batch(given)
    else:
        await graph.abatch(given)
    assert spans.tree() == ITEM * 3
    assert "detach" not in caplog.text.lower()


# ---- 8: an end whose start was hidden is a span, below the node that it belongs to ----


class Inline(BaseCallbackHandler):
    """Another tool's handler, which hides the start of async completions from those that are not."""

    run_inline = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("start")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("end")


@pytest.mark.parametrize("inline", [True, False])
async def test_08_a_completion_in_a_node_is_a_span_whoever_is_inline(
    inline: bool,
    spans: CapturedSpans,  # noqa: F811
):
    async def work(state: Any) -> Any:
        return {"said": [await CompletionModel().ainvoke("x")]}

    handlers = [Inline(), LangGraphHandler(spans.monitor, inline=inline)]
    await line(("work", work), saver=None).ainvoke({"said": []}, {"callbacks": handlers})
    assert spans.tree().splitlines()[0] == "workflow LangGraph ok"
    (call,) = [span for span in spans() if span.kind == "llm"]
    (node,) = [span for span in spans() if span.name == "work"]
    assert (call.outcome, call.output, call.parent_id) == ("ok", "It is 4.", node.span_id)
    assert (call.duration_ms is not None) is inline
    assert handlers[0].seen == ["start", "end"]


# ---- 9: one graph, many runs; the same results are in test_twin.py ----


async def test_09_one_graph_keeps_concurrent_sessions_apart(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(adding(), monitor=spans.monitor)
    await asyncio.gather(
        *(
            graph.ainvoke({"said": [str(n)]}, {"metadata": {"session_id": f"s{n}"}})
            for n in range(20)
        )
    )
    stored = spans()
    assert len(stored) == 3 * 20
    for session in (f"s{n}" for n in range(20)):
        mine = [span for span in stored if span.session_id == session]
        assert len(mine) == 3
        assert len({span.trace_id for span in mine}) == 1
        assert [s.output for s in mine if s.kind == "tool"] == [session[1:]]


def test_09_two_handlers_and_monitor_graph_twice_record_once(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(monitor_graph(adding(), monitor=spans.monitor), monitor=spans.monitor)
    handlers = [LangGraphHandler(spans.monitor), LangGraphHandler(spans.monitor)]
    graph.invoke({"said": ["1"]}, {"callbacks": handlers})
    assert spans.tree() == ITEM
