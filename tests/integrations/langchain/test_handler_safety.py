"""The handler never hurts the program: it raises nothing, changes nothing, and keeps nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import OrderedDict
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableLambda
from langchain_kit import FakeMonitor, add, recording, scripted

from llmops_integrations.langchain import LLMOpsCallbackHandler, handoffs
from llmops_integrations.langchain.runs import MAX_RUNS, OpenRuns, Run

EVENTS = {
    "on_chain_start": ({}, {}),
    "on_chain_end": ({},),
    "on_chain_error": (ValueError(),),
    "on_chat_model_start": ({}, [[]]),
    "on_llm_start": ({}, ["x"]),
    "on_llm_new_token": ("x",),
    "on_stream_event": ({"event": "content-block-delta"},),
    "on_llm_end": (object(),),
    "on_llm_error": (ValueError(),),
    "on_tool_start": ({}, "x"),
    "on_tool_end": (object(),),
    "on_tool_error": (ValueError(),),
    "on_retriever_start": ({}, "x"),
    "on_retriever_end": ([],),
    "on_retriever_error": (ValueError(),),
    "on_custom_event": ("x", {}),
    "on_retry": (object(),),
}


class BrokenRecorder:
    """Fails in every way."""

    stops = False

    def __init__(self, error):
        self.error = error
        self.reported = []

    def _fail(self, *args, **kwargs):
        raise self.error

    start = end = mark = point = skip = freeze = _fail

    def report(self, where, error):
        self.reported.append((where, type(error)))


def _broken(error):
    monitor = FakeMonitor()
    monitor.recorder = BrokenRecorder(error)
    return LLMOpsCallbackHandler(monitor), monitor.recorder


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), MemoryError(), RecursionError()])
@pytest.mark.parametrize("event", EVENTS)
def test_no_failure_of_ours_leaves_a_callback(event, error):
    handler, recorder = _broken(error)
    run_id = uuid4()
    if not event.endswith("_start"):  # a second start is none
        handler._runs.open(run_id.int, Run("llm", "m", None, None))
    getattr(handler, event)(*EVENTS[event], run_id=run_id)
    assert recorder.reported == [(event, type(error))]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_the_user_does_is_not_swallowed(error):
    handler, recorder = _broken(error)
    with pytest.raises(type(error)):
        handler.on_chain_start({}, {}, run_id=uuid4())
    assert recorder.reported == []


@pytest.mark.parametrize("event", EVENTS)
def test_every_callback_takes_arguments_that_it_does_not_know(event):
    handler, recorder, _ = recording()
    getattr(handler, event)(*EVENTS[event], run_id=uuid4(), brand_new="argument", tags=None)
    assert recorder.failures == []


def test_a_broken_handler_changes_nothing_for_the_program():
    handler, recorder = _broken(SystemExit(3))
    model = scripted("hello")
    chain = RunnableLambda(lambda x: add.invoke({"a": x, "b": 1})) | str | model
    assert chain.invoke(1, {"callbacks": [handler]}).content == "hello"
    assert recorder.reported


def test_it_is_a_plain_synchronous_handler():
    handler, _, _ = recording()
    assert isinstance(handler, BaseCallbackHandler)
    assert (handler.run_inline, handler.raise_error) == (True, False)
    assert recording(inline=False)[0].run_inline is False
    assert not any(asyncio.iscoroutinefunction(getattr(handler, name)) for name in EVENTS)


@pytest.mark.parametrize("bad", [None, 5, "x", object()])
def test_odd_values_from_a_framework_are_survived(bad):
    handler, recorder, _ = recording()
    run_id = uuid4()
    handler.on_chat_model_start(bad, [[]], run_id=run_id, tags=None, metadata=None, name=bad)
    handler.on_llm_end(bad, run_id=run_id)
    handler.on_tool_start(bad, bad, run_id=run_id, inputs=None, tool_call_id=bad)
    handler.on_tool_end(bad, run_id=run_id)
    handler.on_chain_start(bad, bad, run_id=run_id, name=bad)
    handler.on_chain_end(bad, run_id=run_id)
    assert recorder.failures == []
    assert len(recorder.of("end")) == 3


def test_no_code_of_a_token_is_called():
    class Token(str):
        __slots__ = ()

        def __bool__(self):
            raise AssertionError

        __len__ = __eq__ = __bool__
        __hash__ = None

    handler, recorder, _ = recording()
    run_id = uuid4()
    handler.on_chat_model_start({}, [[]], run_id=run_id)
    handler.on_llm_new_token(Token(""), run_id=run_id)
    assert recorder.of("mark") == []
    handler.on_llm_new_token(Token("x"), run_id=run_id)
    assert len(recorder.of("mark")) == 1
    assert recorder.failures == []


def test_an_exception_whose_class_has_an_odd_module_ends_its_run():
    class Module:
        def __str__(self):
            raise AssertionError

    class Failed(Exception):
        __module__ = Module()

    handler, recorder, _ = recording()
    run_id = uuid4()
    handler.on_tool_start({}, "x", run_id=run_id)
    handler.on_tool_error(Failed("x"), run_id=run_id)
    assert [end["error_message"] for end in recorder.of("end")] == ["x"]


def test_a_run_ends_though_what_it_asks_for_cannot_be_read(monkeypatch):
    def broken(outputs):
        yield handoffs.Asked(None.target, "send")

    monkeypatch.setattr(handoffs, "asked_by_outputs", broken)
    handler, recorder, _ = recording()
    run_id = uuid4()
    node = {"langgraph_node": "n", "langgraph_step": 1, "langgraph_checkpoint_ns": "n:1"}
    handler.on_chain_start({}, {}, run_id=run_id, name="n", tags=["graph:step:1"], metadata=node)
    handler.on_chain_end([1], run_id=run_id)
    assert [end["outcome"] for end in recorder.of("end")] == ["ok"]
    assert [where for where, _ in recorder.failures] == ["handoff"]


def test_a_run_that_is_not_stored_costs_no_copy():
    handler, recorder, _ = recording()
    root, hidden = uuid4(), uuid4()
    handler.on_chain_start(None, {}, run_id=root, name="work")
    before = recorder.frozen
    handler.on_chain_start(None, {}, run_id=hidden, parent_run_id=root, name="RunnableSequence")
    handler.on_chain_end({}, run_id=hidden)
    assert recorder.frozen == before


# ---- memory ----


async def test_the_run_table_is_empty_when_all_has_ended():
    handler, _, config = recording()
    chain = RunnableLambda(lambda x: x) | scripted("hello")
    chain.invoke("x", config)
    list(chain.stream("x", config))
    await chain.ainvoke("x", config)
    async for _ in chain.astream("x", config):
        pass
    chain.batch(["x"] * 20, config)
    assert len(handler._runs) == 0


def test_the_run_table_is_bounded_when_ends_never_come():
    handler, recorder, _ = recording()
    for _ in range(MAX_RUNS + 100):
        handler.on_tool_start({}, "x", run_id=uuid4())
        recorder.events.clear()
    assert len(handler._runs) == MAX_RUNS


def test_the_oldest_run_is_forgotten_first():
    runs = OpenRuns(limit=2)
    for number in range(3):
        runs.open(number, Run("llm", "m", None, None))
    assert runs.get(0) is None
    assert runs.get(2) is not None


def test_the_oldest_run_is_found_without_a_search_among_those_forgotten():
    """The first key of a plain dict is: at the limit each start would take longer than the last."""
    runs = OpenRuns(limit=2)
    assert isinstance(runs._runs, OrderedDict)
    for number in range(5):
        runs.open(number, Run("llm", "m", None, None))
        runs.open(number, Run("llm", "m", None, None))  # another handler's: it stays where it is
    assert list(runs._runs) == [3, 4]


def test_importing_it_imports_no_graph_and_no_database():
    code = (
        "import sys, llmops_integrations.langchain as x\n"
        "heavy = {'langgraph', 'pyarrow', 'duckdb', 'crewai'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
