"""What the handler records of chains, models, tools and retrievers: plain LangChain."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import dispatch_custom_event
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_kit import CompletionModel, Notes, add, divide, recording, scripted

from llmops_core.testing import Reply

CHAIN = ChatPromptTemplate.from_template("Say {word}")


def test_a_chain_keeps_its_runnables_and_hides_its_plumbing():
    _, recorder, config = recording()
    (CHAIN | scripted("hello") | StrOutputParser()).invoke({"word": "hello"}, config)
    assert recorder.tree() == (
        "workflow RunnableSequence ok\n  llm scripted-1 ok\n  chain StrOutputParser ok"
    )
    assert recorder.skipped == 1


def test_children_of_a_run_that_is_not_stored_get_its_parent():
    _, recorder, config = recording()
    inner = CHAIN | scripted("hello")
    outer = RunnableLambda(lambda word: inner.invoke({"word": word}))
    outer.invoke("hello", {**config, "run_name": "outer"})
    assert recorder.tree() == "workflow outer ok\n  llm scripted-1 ok"


def test_a_model_tells_usage_content_and_who_it_is():
    _, recorder, config = recording()
    scripted("hello").invoke("Say hello", config)
    start, end = recorder.of("start")[0], recorder.of("end")[0]
    assert start["input"] == [HumanMessage("Say hello")]
    assert (start["provider"], start["model"], start["framework"]) == (
        "scriptedmodel",
        "scripted-1",
        "langchain",
    )
    assert end["output"].content == "hello"
    assert (end["input_tokens"], end["output_tokens"], end["usage_source"]) == (12, 3, "provider")
    assert (end["kind"], end["name"]) == ("llm", "scripted-1")


def test_nothing_of_serialized_or_of_the_invocation_is_stored_whole():
    _, recorder, config = recording()
    scripted("hello", model="scripted-1").bind(api_key="sk-secret", top_k=7).invoke("x", config)
    assert "sk-secret" not in repr(recorder.events)
    assert "top_k" not in repr(recorder.events)


def test_several_prompts_are_several_runs():
    _, recorder, config = recording()
    model = scripted("hello")
    model.generate([[HumanMessage("a")], [HumanMessage("b")]], callbacks=config["callbacks"])
    CompletionModel().generate(["c", "d"], callbacks=config["callbacks"])
    assert recorder.tree() == "\n".join(["llm scripted-1 ok"] * 4)
    inputs = [fields["input"] for fields in recorder.of("start")]
    assert inputs == [[HumanMessage("a")], [HumanMessage("b")], "c", "d"]


def test_a_tool_is_recorded_with_its_arguments_and_its_result():
    _, recorder, config = recording()
    add.invoke({"a": 1, "b": 2}, config)
    add.invoke({"type": "tool_call", "id": "c1", "name": "add", "args": {"a": 1, "b": 2}}, config)
    starts, ends = recorder.of("start"), recorder.of("end")
    assert [s["input"] for s in starts] == [{"a": 1, "b": 2}] * 2
    assert [e["output"] for e in ends] == [3, "3"]
    assert starts[1]["tool_call_id"] == "c1"


def test_errors_of_tools_models_and_retrievers_are_theirs():
    _, recorder, config = recording()
    with pytest.raises(ZeroDivisionError):
        divide.invoke({"a": 1, "b": 0}, config)
    with pytest.raises(RuntimeError):
        scripted(Reply(error="overloaded")).invoke("x", config)
    with pytest.raises(RuntimeError):
        Notes(fails=True).invoke("x", config)
    ends = recorder.of("end")
    assert [(e["kind"], e["outcome"]) for e in ends] == [
        ("tool", "error"),
        ("llm", "error"),
        ("retriever", "error"),
    ]
    assert [e["error_message"] for e in ends] == ["division by zero", "overloaded", "no index"]


def test_each_item_of_a_batch_is_its_own_root():
    _, recorder, config = recording()
    RunnableLambda(lambda x: x).batch([1, 2, 3], config)
    assert recorder.tree() == "\n".join(["workflow RunnableLambda ok"] * 3)


def test_branches_of_a_parallel_chain_are_siblings():
    _, recorder, config = recording()
    branches = {"a": RunnableLambda(lambda x: x), "b": RunnableLambda(lambda x: x)}
    RunnableParallel(branches).invoke(1, config)
    assert recorder.tree().splitlines()[1:] == ["  chain RunnableLambda ok"] * 2
    assert all("tags" not in fields for fields in recorder.of("start"))


def test_a_retried_attempt_has_its_number():
    _, recorder, config = recording()
    model = scripted(Reply(error="overloaded"), "hello")
    model.with_retry(wait_exponential_jitter=False).invoke("x", config)
    starts = recorder.of("start")
    assert [s.get("attempt") for s in starts] == [None, None, 2]
    assert recorder.tree() == (
        "workflow ScriptedModel ok\n  llm scripted-1 error\n  llm scripted-1 ok"
    )


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_fallback_attempt_finds_its_parent_that_the_framework_loses(way, nested):
    _, recorder, config = recording()
    chain = scripted(Reply(error="overloaded")).with_fallbacks([scripted("b", model="other")])
    expected = (
        "workflow RunnableWithFallbacks ok\n  llm scripted-1 error\n  llm other ok".splitlines()
    )
    if nested:
        chain = RunnableLambda(lambda x: x) | chain
        expected = [
            "workflow RunnableSequence ok",
            "  chain RunnableLambda ok",
            "  chain RunnableWithFallbacks ok",
            "    llm scripted-1 error",
            "    llm other ok",
        ]
    if way == "invoke":
        chain.invoke("x", config)
    else:
        asyncio.run(chain.ainvoke("x", config))
    assert recorder.tree().splitlines() == expected


def test_a_handler_given_again_inside_a_run_still_finds_the_parent():
    handler, recorder, config = recording()
    model = scripted("hello")
    outer = RunnableLambda(lambda x: model.invoke(x, {"callbacks": [handler]}).content)
    outer.invoke("x", {**config, "run_name": "outer"})
    assert recorder.tree() == "workflow outer ok\n  llm scripted-1 ok"


def test_a_parent_that_this_handler_never_saw_is_no_parent():
    """The handler is given to the model alone: in this trace the model is the root."""
    _, recorder, config = recording()
    model = scripted("hello")
    RunnableLambda(lambda x: model.invoke(x, config).content).invoke("x")
    assert recorder.tree() == "llm scripted-1 ok"


def test_a_custom_event_is_an_event_of_the_run_it_happened_in():
    _, recorder, config = recording()

    def work(x):
        dispatch_custom_event("progress", {"percent": 40})
        return x

    RunnableLambda(work).invoke(1, {**config, "run_name": "work"})
    assert recorder.tree() == "workflow work ok\n  event progress ok"
    assert recorder.of("point")[0]["input"] == {"percent": 40}


def test_a_custom_event_of_a_run_that_is_not_stored_goes_to_its_parent():
    handler, recorder, _ = recording()
    root, hidden = uuid4(), uuid4()
    handler.on_chain_start(None, {}, run_id=root, name="work")
    handler.on_chain_start(None, {}, run_id=hidden, parent_run_id=root, name="RunnableSequence")
    handler.on_custom_event("progress", 1, run_id=hidden)
    assert recorder.events[-1][2] == root.int


def test_a_retry_that_the_framework_announces_is_an_event():
    handler, recorder, _ = recording()

    class State:
        attempt_number = 2

    handler.on_retry(State(), run_id=uuid4())
    point = recorder.of("point")[0]
    assert (point["kind"], point["name"], point["attempt"]) == ("event", "retry", 2)


def test_session_user_and_tags_are_the_run_s():
    _, recorder, config = recording()
    metadata = {"session_id": "s", "user_id": "u", "tenant": "acme"}
    scripted("hello").invoke("x", {**config, "metadata": metadata, "tags": ["beta"]})
    start = recorder.of("start")[0]
    assert (start["session_id"], start["user_id"], start["tags"]) == ("s", "u", ("beta",))
    assert start["attributes"] == {"tenant": "acme"}


def test_run_ids_and_names_that_the_user_gives_are_kept():
    _, recorder, config = recording()
    run_id = uuid4()
    RunnableLambda(lambda x: x).invoke(1, {**config, "run_id": run_id, "run_name": "mine"})
    assert recorder.events[0][1] == run_id.int
    assert recorder.of("start")[0]["name"] == "mine"


def test_a_model_s_tool_calls_are_in_its_output():
    _, recorder, config = recording()
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "c1"}
    scripted(AIMessage("", tool_calls=[call])).bind_tools([add]).invoke("x", config)
    assert recorder.of("end")[0]["output"].tool_calls[0]["name"] == "add"
    assert recorder.of("start")[0]["attributes"]["langchain.tools"] == '["add"]'
