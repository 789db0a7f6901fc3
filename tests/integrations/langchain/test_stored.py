"""Whole ways through a real monitor that no scenario of the handler suite walks."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("langchain_core")

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_kit import FakeMonitor, add, scripted

from llmops_core.testing import Reply
from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langchain import LLMOpsCallbackHandler
from llmops_integrations.langchain import handler as handler_module

CHAIN = ChatPromptTemplate.from_template("Say {word}") | scripted(Reply("a b c", streamed=True))


def test_a_sync_chain_that_is_left_is_abandoned_though_it_reports_success(
    spans: CapturedSpans,  # noqa: F811
):
    stream = CHAIN.stream({"word": "x"}, {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]})
    next(stream)
    stream.close()
    assert spans.tree().startswith("workflow RunnableSequence abandoned\n  llm scripted-1 ")


def test_a_streamed_chain_has_input_output_and_first_token(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)
    list((CHAIN | StrOutputParser()).stream({"word": "x"}, {"callbacks": [handler]}))
    by_kind = {s.kind: s for s in spans()}
    assert by_kind["workflow"].input == '{"word":"x"}'
    assert by_kind["workflow"].output == "a b c "
    assert by_kind["llm"].ttft_ms > 0
    assert by_kind["llm"].finish_reason is None


async def test_a_model_cancelled_alone_is_incomplete_when_the_monitor_closes(
    spans: CapturedSpans,  # noqa: F811
):
    """LangChain tells of no end at all."""
    config = {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]}
    call = asyncio.create_task(scripted(Reply(hangs=True)).ainvoke("x", config))
    await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert spans() == []
    assert spans.monitor.stats()["spans"]["open"] == 1


def test_what_was_said_and_done_is_stored(spans: CapturedSpans):  # noqa: F811
    config = {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]}
    scripted("It is 4.").invoke([("system", "Be brief."), ("user", "2 + 2?")], config)
    add.invoke({"a": 2, "b": 2}, config)
    by_kind = {s.kind: s for s in spans()}
    said = json.loads(by_kind["llm"].input)
    assert [(m["role"], m["content"]) for m in said] == [
        ("system", "Be brief."),
        ("user", "2 + 2?"),
    ]
    answer = json.loads(by_kind["llm"].output)
    assert (answer["role"], answer["content"]) == ("assistant", "It is 4.")
    assert (by_kind["tool"].input, by_kind["tool"].output) == ('{"a":2,"b":2}', "4")


def test_without_a_monitor_it_reports_to_the_default_one(monkeypatch):
    default = FakeMonitor()
    monkeypatch.setattr(handler_module, "default_monitor", lambda: default)
    assert LLMOpsCallbackHandler().monitor is default
