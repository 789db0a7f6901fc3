"""With a handler and without one, a program gets the same values, chunks and exceptions."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("langchain_core")

from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_kit import CompletionModel, Notes, add, divide, failures_of_ours, scripted

from llmops_core.testing import Reply
from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langchain import LLMOpsCallbackHandler

OK = Reply("one two three", streamed=True)
BAD = Reply(error="overloaded")


def _chain(*replies):
    return ChatPromptTemplate.from_template("Say {word}") | scripted(*replies) | StrOutputParser()


def _graph(node):
    graphs = pytest.importorskip("langgraph.graph")
    builder = graphs.StateGraph(dict)
    builder.add_node("work", node)
    builder.add_edge(graphs.START, "work")
    return builder.compile()


def _agent():
    agents = pytest.importorskip("langchain.agents")
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "c1"}
    model = scripted(AIMessage("", tool_calls=[call]), "3", by_history=True)
    return agents.create_agent(model, [add], name="boss")


WORD = {"word": "hello"}
#: name -> (make the program anew, its input)
PROGRAMS = {
    "model": (lambda: scripted(OK), "x"),
    "failing model": (lambda: scripted(BAD), "x"),
    "completion": (CompletionModel, "x"),
    "chain": (lambda: _chain(OK), WORD),
    "failing chain": (lambda: _chain(BAD), WORD),
    "wrong input": (lambda: _chain(OK), {"other": 1}),
    "tool": (lambda: add, {"a": 1, "b": 2}),
    "failing tool": (lambda: divide, {"a": 1, "b": 0}),
    "tool with wrong arguments": (lambda: add, {"a": "x"}),
    "retriever": (Notes, "x"),
    "failing retriever": (lambda: Notes(fails=True), "x"),
    "parallel": (lambda: RunnableParallel(a=RunnablePassthrough(), b=RunnableLambda(str)), 1),
    "retry": (lambda: scripted(BAD, OK).with_retry(wait_exponential_jitter=False), "x"),
    "fallback": (lambda: scripted(BAD).with_fallbacks([scripted(OK)]), "x"),
    "graph": (lambda: _graph(lambda state: {**state, "more": 1}), {"n": 1}),
    "failing graph": (lambda: _graph(lambda state: {}[1]), {"n": 1}),
    "agent": (_agent, {"messages": [("user", "add 1 and 2")]}),
}


async def _invoke(program, given, config):
    return program.invoke(given, config)


async def _ainvoke(program, given, config):
    return await program.ainvoke(given, config)


async def _stream(program, given, config):
    return list(program.stream(given, config))


async def _astream(program, given, config):
    return [chunk async for chunk in program.astream(given, config)]


async def _batch(program, given, config):
    return program.batch([given, given], config, return_exceptions=True)


async def _abatch(program, given, config):
    return await program.abatch([given, given], config, return_exceptions=True)


async def _abandoned(program, given, config):
    stream = program.astream(given, config)
    first = await anext(stream)
    await stream.aclose()
    return first


async def _left(program, given, config):
    stream = program.stream(given, config)
    first = next(stream)
    stream.close()
    return first


async def _cancelled(program, given, config):
    call = asyncio.create_task(program.ainvoke(given, config))
    await asyncio.sleep(0)
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return "cancelled"


WAYS = [_invoke, _ainvoke, _stream, _astream, _batch, _abatch, _abandoned, _left, _cancelled]


def _plain(value):
    """What of a value can be compared: ids of messages are random, or hold a run's id."""
    if isinstance(value, BaseException):
        return type(value), str(value)
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "model_dump") and hasattr(value, "content"):
        return type(value), {**value.model_dump(exclude={"id"}), "tool_calls": None}
    return value


async def _observe(way, name, config):
    make, given = PROGRAMS[name]
    try:
        return "returned", _plain(await way(make(), given, config))
    except Exception as error:
        return "raised", type(error), str(error)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.strip("_"))
@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_gets_the_same_with_a_handler(
    name: str,
    way,
    inline: bool,
    spans: CapturedSpans,  # noqa: F811
):
    handler = LLMOpsCallbackHandler(spans.monitor, inline=inline)
    ours = await _observe(way, name, {"callbacks": [handler]})
    theirs = await _observe(way, name, {})
    assert ours == theirs
    assert failures_of_ours(spans.monitor) == {}
