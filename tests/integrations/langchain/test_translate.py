"""Framework objects to span fields, without running a framework."""

from __future__ import annotations

import asyncio
import enum
from types import SimpleNamespace as Some
from uuid import UUID

import pytest

pytest.importorskip("langchain_core")

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from llmops_integrations.langchain import metadata as metadata_of
from llmops_integrations.langchain import reading, translate, translate_model


def _result(message, **kwargs):
    return LLMResult(generations=[[ChatGeneration(message=message)]], **kwargs)


def _usage(**details):
    return {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, **details}


# ---- models ----


def test_provider_and_model_come_from_the_metadata():
    metadata = {"ls_provider": "openai", "ls_model_name": "gpt-4o"}
    fields = translate_model.model_start_fields({"name": "ChatOpenAI"}, metadata, {})
    assert fields == {"kind": "llm", "name": "gpt-4o", "model": "gpt-4o", "provider": "openai"}


def test_the_model_may_come_from_the_invocation():
    for key in ("model", "model_name"):
        extra = {"invocation_params": {key: "m-1", "api_key": "secret"}}
        fields = translate_model.model_start_fields(None, {}, extra)
        assert fields == {"kind": "llm", "name": "m-1", "model": "m-1"}


def test_a_model_without_a_name_is_called_as_its_class():
    for serialized in ({"name": "ChatFake"}, {"id": ["a", "ChatFake"], "repr": "secret"}):
        fields = translate_model.model_start_fields(serialized, {}, {"name": None})
        assert fields == {"kind": "llm", "name": "ChatFake"}


def test_bound_tools_are_names_alone():
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}, {"name": "sub"}]
    extra = {"invocation_params": {"tools": tools}}
    fields = translate_model.model_start_fields(None, {}, extra)
    assert fields["attributes"] == {"langchain.tools": '["add", "sub"]'}


def test_usage_is_split_as_the_provider_told():
    message = AIMessage(
        "hi",
        usage_metadata=_usage(
            input_token_details={"cache_read": 30, "cache_creation": 10, "audio": 5},
            output_token_details={"reasoning": 8, "audio": 2},
        ),
    )
    assert translate_model.usage_fields(message) == {
        "input_tokens": 100,
        "output_tokens": 20,
        "cache_read_tokens": 30,
        "cache_write_tokens": 10,
        "reasoning_tokens": 8,
        "audio_input_tokens": 5,
        "audio_output_tokens": 2,
        "usage_source": "provider",
    }


def test_cache_writes_that_are_split_by_lifetime_are_summed_once():
    split = {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 2}
    for plain in ({"cache_creation": 0}, {}, {"cache_creation": 9}):
        message = AIMessage("", usage_metadata=_usage(input_token_details={**plain, **split}))
        assert translate_model.usage_fields(message)["cache_write_tokens"] == 9


def test_token_usage_of_the_result_is_only_a_fallback():
    output = {"token_usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    told = translate_model.usage_fields(AIMessage("", usage_metadata=_usage()), output)
    assert told["input_tokens"] == 100
    assert translate_model.usage_fields(AIMessage(""), output) == {
        "input_tokens": 1,
        "output_tokens": 2,
        "usage_source": "provider",
    }


@pytest.mark.parametrize("bad", [None, "12", -1, 1.5, True, [3]])
def test_missing_or_odd_usage_is_missing_never_zero(bad):
    message = Some(usage_metadata={"input_tokens": bad, "output_tokens": bad})
    assert translate_model.usage_fields(message) == {"usage_source": "missing"}
    assert translate_model.usage_fields(None) == {"usage_source": "missing"}


@pytest.mark.parametrize(
    ("about", "reason"),
    [({"finish_reason": "stop"}, "stop"), ({"stop_reason": "end_turn"}, "end_turn"), ({}, None)],
)
def test_the_finish_reason_is_found_where_providers_put_it(about, reason):
    fields = translate_model.model_end_fields(_result(AIMessage("", response_metadata=about)))
    assert fields.get("finish_reason") == reason


def test_the_response_id_is_the_provider_s_and_not_langchain_s():
    assert (
        translate_model.model_end_fields(_result(AIMessage("", id="msg_1")))["response_id"]
        == "msg_1"
    )
    for own in ("lc_run--1", "run-1"):
        fields = translate_model.model_end_fields(_result(AIMessage("", id=own)))
        assert "response_id" not in fields


def test_the_output_is_a_message_a_text_or_a_list_of_them():
    message = AIMessage("hi")
    assert translate_model.model_output(_result(message)) is message
    texts = LLMResult(generations=[[Generation(text="a"), Generation(text="b")]])
    assert translate_model.model_output(texts) == ["a", "b"]
    assert translate_model.model_output(LLMResult(generations=[[]])) is None
    assert translate_model.model_output(None) is None


def test_only_a_chunk_that_brings_something_counts_as_the_first_token():
    calls = Some(message=Some(tool_call_chunks=[{"name": "add"}]))
    assert translate_model.has_text("a", None)
    assert translate_model.has_text("", calls)
    assert not translate_model.has_text("", Some(message=Some(tool_call_chunks=[])))
    assert not translate_model.has_text("", None)
    assert not translate_model.has_text([], None)


# ---- identity ----


def test_the_session_is_the_session_id_else_the_thread():
    both = metadata_of.identity_fields(None, {"session_id": "s", "thread_id": "t", "user_id": 7})
    assert both == {"session_id": "s", "thread_id": "t", "user_id": "7"}
    assert metadata_of.identity_fields(None, {"thread_id": "t"}) == {
        "session_id": "t",
        "thread_id": "t",
    }
    uuid = UUID(int=1)
    assert metadata_of.identity_fields(None, {"session_id": uuid})["session_id"] == str(uuid)


def test_tags_are_the_user_s_own_and_an_attempt_is_a_number():
    tags = ["seq:step:1", "graph:step:2", "map:key:a", "langsmith:hidden", "retry:attempt:3"]
    tags += ["condition:1", "branch:2", "branch:main", "beta", 7]
    fields = metadata_of.identity_fields(tags, {})
    assert fields == {"tags": ("branch:main", "beta"), "attempt": 3}


def test_attributes_are_the_user_s_scalars_and_what_langgraph_tells():
    metadata = {
        "langgraph_step": 2,
        "langgraph_node": "fetch",
        "langgraph_triggers": ("branch:to:fetch",),
        "langgraph_path": ("__pregel_pull", "fetch"),
        "langgraph_checkpoint_ns": "fetch:1f",
        "checkpoint_ns": "x",
        "ls_temperature": 0.5,
        "lc_versions": {"langchain-core": "1"},
        "__handoff_destination": "bob",
        "lc_source": "summarization",
        "tenant": "acme",
        "beta": True,
        "score": 0.5,
        "nested": {"secret": 1},
        "none": None,
    }
    fields = metadata_of.identity_fields(None, metadata, of_node=True)
    assert fields["step"] == 2
    assert fields["attributes"] == {
        "langgraph.node": "fetch",
        "langgraph.triggers": '["branch:to:fetch"]',
        "langgraph.path": '["__pregel_pull", "fetch"]',
        "langgraph.checkpoint_ns": "fetch:1f",
        "langgraph.handoff_destination": "bob",
        "langchain.source": "summarization",
        "tenant": "acme",
        "beta": "true",
        "score": "0.5",
    }


def test_what_a_node_s_children_inherit_is_not_stored_again():
    metadata = {"langgraph_triggers": ("a",), "langgraph_path": ("b",), "langgraph_node": "n"}
    fields = metadata_of.identity_fields(None, metadata)
    assert fields["attributes"] == {"langgraph.node": "n"}


def test_metadata_is_bounded():
    metadata = {f"key{i}": "x" * 5_000 for i in range(500)}
    attributes = metadata_of.identity_fields(None, metadata)["attributes"]
    assert len(attributes) == metadata_of.MAX_ATTRIBUTES
    assert {len(v) for v in attributes.values()} == {reading.MAX_TEXT}


def test_no_method_of_a_value_of_the_user_runs():
    class Loud(str):
        __slots__ = ()

        def __str__(self):
            raise AssertionError

        __len__ = __getitem__ = __repr__ = __str__

    class Plan(enum.StrEnum):
        FREE = "free"

    class Bomb:
        def __getattribute__(self, name):
            raise AssertionError(name)

    metadata = {
        "loud": Loud("text"),
        "plan": Plan.FREE,
        "bomb": Bomb(),
        "langgraph_path": ((Bomb(),),),
    }
    metadata["huge"] = 10**10_000
    fields = metadata_of.identity_fields(None, metadata, of_node=True)
    assert fields["attributes"] == {"loud": "text", "plan": "free"}


def test_the_framework_is_told_by_the_metadata():
    assert metadata_of.framework_of({}) == "langchain"
    assert metadata_of.framework_of({"ls_integration": "langchain_chat_model"}) == "langchain"
    assert metadata_of.framework_of({"ls_integration": "langchain_create_agent"}) == "langgraph"
    assert metadata_of.framework_of({"langgraph_node": "a"}) == "langgraph"


# ---- tools, retrievers, chains ----


def test_a_tool_has_its_name_and_the_model_s_call_id():
    extra = {"name": None, "tool_call_id": "c1"}
    fields = translate.tool_start_fields({"name": "add", "description": "adds"}, extra)
    assert fields == {"kind": "tool", "name": "add", "tool_call_id": "c1"}


def test_a_tool_error_that_became_a_message_is_the_tool_s_error():
    message = ToolMessage("no such city", tool_call_id="c1", status="error")
    assert translate.tool_end_fields(message) == {
        "outcome": "error",
        "error_type": "ToolError",
        "error_message": "no such city",
        "tool_call_id": "c1",
    }
    assert translate.tool_end_fields(ToolMessage("4", tool_call_id="c1"))["outcome"] == "ok"
    assert translate.tool_end_fields(4) == {"outcome": "ok"}


def test_a_tool_s_output_is_the_same_however_it_was_called():
    assert translate.content_of_tool_output(ToolMessage("4", tool_call_id="c")) == "4"
    assert translate.content_of_tool_output(4) == 4


def test_a_retriever_has_a_name():
    assert translate.retriever_name(None, {}, {"name": "Notes"}) == "Notes"
    assert translate.retriever_name(None, {"ls_retriever_name": "notes"}, {}) == "notes"
    assert translate.retriever_name(None, {}, {}) == "retriever"


def test_a_placeholder_is_no_input():
    assert translate.is_placeholder({"input": ""})
    for real in ({"input": "x"}, {"input": "", "y": 1}, "", None, {"other": ""}, {"input": None}):
        assert not translate.is_placeholder(real)


# ---- errors ----


def _named(name, base=Exception):
    return type(name, (base,), {"__module__": "langgraph.errors"})


@pytest.mark.parametrize("name", ["CancelledError", "ParentCommand", "GraphInterrupt"])
def test_a_class_of_the_users_own_that_has_such_a_name_is_an_error(name):
    error = type(name, (Exception,), {"__module__": "shop.errors"})("no")
    assert translate.error_fields(error)["outcome"] == "error"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (_named("GraphInterrupt", _named("GraphBubbleUp"))(), "interrupted"),
        (_named("NodeInterrupt", _named("GraphInterrupt"))(), "interrupted"),
        (_named("ParentCommand", _named("GraphBubbleUp"))(), "handed_off"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (GeneratorExit(), "abandoned"),
    ],
)
def test_control_flow_is_no_error(error, outcome):
    assert translate.error_fields(error) == {"outcome": outcome}


def test_an_error_has_a_type_and_a_message():
    fields = translate.error_fields(ValueError("bad city"))
    assert fields["outcome"] == "error"
    assert fields["error_type"].endswith("ValueError")
    assert fields["error_message"] == "bad city"
    assert translate.outcome_of_error(TimeoutError()) == "error"
