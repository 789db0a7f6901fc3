"""Streams: first tokens, placeholders, and readers who leave."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core")

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_kit import recording, scripted

from llmops_core.testing import Reply

CHAIN = ChatPromptTemplate.from_template("Say {word}")
STREAMED = Reply("one two three", streamed=True)


def test_the_first_chunk_with_text_is_marked_and_no_other():
    _, recorder, config = recording()
    list(scripted(STREAMED).stream("x", config))
    assert [event for event, *_ in recorder.events] == ["start", "mark", "end"]
    assert recorder.of("end")[0]["output_tokens"] == 3


def test_an_empty_chunk_is_no_first_token_and_a_tool_call_is_one():
    handler, recorder, _ = recording()
    run_id = uuid4()
    handler.on_chat_model_start({}, [[]], run_id=run_id)
    handler.on_llm_new_token(token="", chunk=None, run_id=run_id)
    assert recorder.of("mark") == []
    chunk = SimpleNamespace(message=SimpleNamespace(tool_call_chunks=[{"name": "add"}]))
    handler.on_llm_new_token(token="", chunk=chunk, run_id=run_id)
    handler.on_llm_new_token(token="more", chunk=chunk, run_id=run_id)
    assert len(recorder.of("mark")) == 1


def test_a_model_that_only_tells_stream_events_has_a_first_token_too():
    handler, recorder, _ = recording()
    run_id = uuid4()
    handler.on_chat_model_start({}, [[]], run_id=run_id)
    handler.on_stream_event({"event": "message-start"}, run_id=run_id)
    assert recorder.of("mark") == []
    handler.on_stream_event({"event": "content-block-delta"}, run_id=run_id)
    handler.on_stream_event({"event": "content-block-delta"}, run_id=run_id)
    assert len(recorder.of("mark")) == 1


def test_without_a_stream_there_is_no_first_token():
    _, recorder, config = recording()
    scripted("hello").invoke("x", config)
    assert recorder.of("mark") == []


def test_a_streamed_chain_has_its_real_input_and_never_the_placeholder():
    _, recorder, config = recording()
    chain = CHAIN | scripted(STREAMED) | StrOutputParser()
    assert "".join(chain.stream({"word": "hello"}, config)) == "one two three "
    root = next(f for e, _, p, f in recorder.events if e == "start" and p is None)
    assert "input" not in root
    end = next(f for e, _, p, f in recorder.events if e == "end" and p is None)
    assert end["input"] == {"word": "hello"}
    assert end["output"] == "one two three "


async def test_a_reader_who_leaves_an_async_stream_abandons_it():
    _, recorder, config = recording()
    chain = CHAIN | scripted(STREAMED)
    stream = chain.astream({"word": "hello"}, config)
    await anext(stream)
    await stream.aclose()
    for _ in range(50):  # the loop closes the inner generators, a few turns later
        await asyncio.sleep(0)
    outcomes = {f["kind"]: f["outcome"] for f in recorder.of("end")}
    assert outcomes == {"workflow": "abandoned", "llm": "abandoned"}
    assert all("error_type" not in f for f in recorder.of("end"))


def test_a_reader_who_leaves_a_sync_stream_abandons_the_model():
    _, recorder, config = recording()
    stream = scripted(STREAMED).stream("x", config)
    next(stream)
    stream.close()
    end = recorder.of("end")[0]
    assert end["outcome"] == "abandoned"


async def test_a_cancelled_chain_is_cancelled_and_its_model_stays_open():
    """LangChain never ends the model's run; the tracer closes it with its parent's outcome."""
    _, recorder, config = recording()
    model = scripted(Reply(hangs=True))

    async def work(x):
        return await model.ainvoke(x)

    call = asyncio.create_task(RunnableLambda(work).ainvoke("x", {**config, "run_name": "slow"}))
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert recorder.tree() == "workflow slow cancelled\n  llm scripted-1 open"


def test_ctrl_c_is_a_cancellation_and_reaches_the_user():
    _, recorder, config = recording()

    def work(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunnableLambda(work).invoke(1, config)
    assert recorder.of("end")[0]["outcome"] == "cancelled"
