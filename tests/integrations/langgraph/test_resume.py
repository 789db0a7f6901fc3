"""Pauses and resumes as data: who answered what, in this process and in another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.runnables import RunnableLambda
from langgraph.types import Command
from langgraph_kit import (
    WAYS,
    agent,
    ask,
    ask_twice,
    config,
    fork,
    line,
    one,
    pauses,
    roots,
    say,
    sub,
)

from llmops_core import open_storage
from llmops_core.cli.waiting import pauses_in
from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langchain import LLMOpsCallbackHandler
from llmops_integrations.langgraph import monitor_graph
from llmops_integrations.langgraph.pauses import pause_key

START: dict[str, Any] = {"said": []}
way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def _asked(pause: Any) -> list[Any]:
    return [question.value for question in pause.asked]


@way
async def test_two_questions_at_once_are_one_pause(way: Any, spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(fork(), monitor=spans.monitor)
    await way(graph, START, config())
    ids = {i.value: i.id for i in graph.get_state(config()).interrupts}
    await way(graph, Command(resume={ids["left?"]: "L", ids["right?"]: "R"}), config())
    (pause,) = pauses(spans)
    assert sorted(_asked(pause)) == ["left?", "right?"]
    assert {q.id: q.value for q in pause.asked} == {v: k for k, v in ids.items()}
    assert pause.answer == {ids["left?"]: "L", ids["right?"]: "R"}


@way
async def test_questions_answered_one_by_one_are_two_pauses_of_one_key(
    way: Any,
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(fork(), monitor=spans.monitor)
    await way(graph, START, config())
    ids = {i.value: i.id for i in graph.get_state(config()).interrupts}
    spans.clock.advance(1_000)
    await way(graph, Command(resume={ids["right?"]: "R"}), config())
    spans.clock.advance(5_000)
    await way(graph, Command(resume="L"), config())
    second, first = pauses(spans)  # the newest first
    assert first.wait_key == second.wait_key
    assert (sorted(_asked(first)), first.answer) == (["left?", "right?"], {ids["right?"]: "R"})
    assert (_asked(second), second.answer) == (["left?"], "L")
    assert first.waited_ms < 2_000 < second.waited_ms


@way
async def test_two_questions_of_one_node_are_two_pauses(way: Any, spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(line(("both", ask_twice)), monitor=spans.monitor)
    for given in (START, Command(resume="one"), Command(resume="two")):
        await way(graph, given, config())
        spans.clock.advance(1_000)
    told = [(_asked(pause), pause.answer) for pause in reversed(pauses(spans))]
    assert told == [(["first?"], "one"), (["second?"], "two")]
    middle = roots(spans)[1]
    assert middle.outcome == "interrupted"
    assert middle.wait_key == middle.resume_key


@way
@pytest.mark.parametrize("make", [sub, agent], ids=["subgraph", "tool"])
async def test_a_pause_deep_inside_is_one_pause_of_the_root(
    make: Any,
    way: Any,
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(make(), monitor=spans.monitor)
    given = {"messages": [("user", "pay me")]} if make is agent else START
    await way(graph, given, config())
    await way(graph, Command(resume="yes"), config())
    (pause,) = pauses(spans)
    assert (pause.answer, len(_asked(pause))) == ("yes", 1)
    assert [s.parent_id for s in spans() if s.wait_key or s.resume_key] == [None, None]


@way
@pytest.mark.parametrize("where", ["interrupt_before", "interrupt_after"])
@pytest.mark.parametrize("by", ["graph", "call"])
async def test_a_breakpoint_is_a_pause_that_asks_nothing(
    where: str,
    by: str,
    way: Any,
    spans: CapturedSpans,  # noqa: F811
):
    at = {where: ["b" if where == "interrupt_before" else "a"]}
    graph = line(("a", say("a")), ("b", say("b")), **(at if by == "graph" else {}))
    graph = monitor_graph(graph, monitor=spans.monitor)
    await way(graph, START, config(), **(at if by == "call" else {}))
    (pause,) = pauses(spans)
    assert (pause.cause, pause.asked, pause.answered) == (where, (), False)
    await way(graph, None, config())
    (pause,) = pauses(spans)
    assert (pause.answered, pause.answer) == (True, None)


def test_a_pause_that_nobody_answers_waits_and_its_thread_may_go_on(
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(one(), monitor=spans.monitor)
    graph.invoke(START, config())
    graph.invoke({"said": ["something else"]}, config())
    assert [pause.answered for pause in pauses(spans)] == [False, False]
    assert len({pause.wait_key for pause in pauses(spans)}) == 2


def test_the_first_of_several_resumes_answers(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(one(), monitor=spans.monitor)
    graph.invoke(START, config())
    paused_at = graph.get_state(config()).config
    graph.invoke(Command(resume="yes"), config())
    graph.invoke(Command(resume="no"), paused_at)
    (pause,) = pauses(spans)
    assert pause.answer == "yes"
    assert pause.resumed_trace_ids == tuple(root.trace_id for root in roots(spans)[1:])


def test_a_fork_asks_again_and_waits_by_itself(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(one(), monitor=spans.monitor)
    graph.invoke(START, config())
    paused_at = graph.get_state(config()).config
    graph.invoke(Command(resume="yes"), config())
    edited = graph.update_state(paused_at, {"said": ["edited"]})
    graph.invoke(None, edited)  # replays the question from the edited state
    waits, answered = pauses(spans)
    assert (answered.answer, waits.answered) == ("yes", False)
    assert waits.wait_key != answered.wait_key


def test_without_a_thread_nothing_can_be_resumed_so_nothing_waits(
    spans: CapturedSpans,  # noqa: F811
):
    monitor_graph(one(saver=None), monitor=spans.monitor).invoke(START)
    assert roots(spans)[0].outcome == "interrupted"
    assert pauses(spans) == []


def test_a_run_that_goes_on_after_an_error_resumes_no_pause(spans: CapturedSpans):  # noqa: F811
    fails = [True]

    def shaky(state):
        if fails.pop():
            raise ValueError("once")
        return {"said": ["fine"]}

    fails.insert(0, False)
    graph = monitor_graph(line(("shaky", shaky)), monitor=spans.monitor)
    with pytest.raises(ValueError, match="once"):
        graph.invoke(START, config())
    graph.invoke(None, config())
    assert [root.outcome for root in roots(spans)] == ["error", "ok"]
    assert pauses(spans) == []


@pytest.mark.parametrize("outer", ["plain handler outside", "no handler outside"])
def test_a_graph_in_a_chain_pauses_and_resumes_by_its_own_run(
    outer: str,
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(one(), monitor=spans.monitor)
    program = RunnableLambda(lambda given: graph.invoke(given, config()))
    outside = [LLMOpsCallbackHandler(spans.monitor)] if outer.startswith("plain") else []
    program.invoke(START, {"callbacks": outside})
    program.invoke(Command(resume="yes"), {"callbacks": outside})
    (pause,) = pauses(spans)
    assert (_asked(pause), pause.answer) == ([{"refund": 42}], "yes")


def test_hostile_questions_and_answers_are_stored(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(line(("a", ask("x" * 100_000 + "\ud800\0"))), monitor=spans.monitor)
    graph.invoke(START, config())
    graph.invoke(Command(resume=[1, {"deep": [None] * 10_000}]), config())
    (pause,) = pauses(spans)
    assert pause.asked[0].value.startswith("xxx")
    assert pause.answer[0] == 1


def test_a_key_needs_a_thread_and_a_checkpoint_and_takes_any_text():
    assert pause_key(None, "c") is pause_key("t", None) is pause_key("", "c") is None
    assert pause_key("t", "c") == pause_key("t", "c") != pause_key("tc", "")
    assert len(pause_key("\ud800", "c") or "") == 32


def test_the_nodes_state_is_kept_whole_beside_the_question(spans: CapturedSpans):  # noqa: F811
    graph = monitor_graph(one(), monitor=spans.monitor)
    graph.invoke(START, config())
    (root,) = roots(spans)
    assert '"said":["planned"]' in (root.output or "")


# ---- over processes ----

_PROGRAM = """
import asyncio, sqlite3, sys
sys.path[:0] = {paths!r}
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from langgraph_kit import config, one, sub
from llmops_core import Monitor
from llmops_integrations.langgraph import monitor_graph

step, make = sys.argv[1:]
given = {{"said": []}} if step == "pause" else Command(resume="approved")
with Monitor("parquet:spans") as monitor:
    saver = SqliteSaver(sqlite3.connect("checkpoints.db", check_same_thread=False))
    graph = monitor_graph({{"one": one, "sub": sub}}[make](saver=saver), monitor=monitor)
    print(graph.invoke(given, config("case-7")))
"""


@pytest.mark.parametrize("make", ["one", "sub"])
def test_02_a_run_resumed_in_another_process_joins_the_paused_one(make: str, tmp_path: Path):
    here = Path(__file__).parent
    program = _PROGRAM.format(paths=[str(here), str(here.parent / "langchain")])
    for step in ("pause", "resume"):
        done = subprocess.run(
            [sys.executable, "-c", program, step, make],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        with open_storage(f"parquet:{tmp_path}/spans") as reader:
            (pause,) = pauses_in(reader)
        if step == "pause":
            assert not pause.answered
    assert (pause.thread_id, pause.answer) == ("case-7", "approved")
    assert _asked(pause) == [{"refund": 42} if make == "one" else "inner?"]
    assert pause.waited_ms > 0
    assert pause.resumed_trace_ids != (pause.trace_id,)
    assert len(pause.resumed_trace_ids) == 1


def test_what_a_pause_brings_stands_beside_the_applications_own_attributes(
    spans: CapturedSpans,  # noqa: F811
):
    graph = monitor_graph(one(), monitor=spans.monitor)
    graph.invoke(START, config(metadata={"tenant": "acme"}))
    (root,) = roots(spans)
    assert root.attributes["tenant"] == "acme"
    assert root.attributes["langgraph.pause"] == "interrupt"
    assert root.attributes["langgraph.checkpoint_id"]
