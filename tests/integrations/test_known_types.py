"""LangChain's and LangGraph's objects are read through their fields, in one form."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from llmops_core.freeze.content import encode_content
from llmops_core.freeze.freezer import Freezer
from llmops_integrations.langchain.known_types import register

register()
ROOMY = Freezer(text_limit=1_000_000, node_limit=100_000)
CALL = {"name": "search", "args": {"q": "x"}, "id": "c1"}


def plain(value: object, freezer: Freezer = ROOMY) -> Any:
    return json.loads(encode_content(freezer.freeze([value])).text)[0]


def message(role: str, content: Any = "hi", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "name": None, "tool_calls": [],
            "tool_call_id": None} | more  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (HumanMessage("hi"), message("user")),
        (HumanMessage("hi", name="ann"), message("user", name="ann")),
        (AIMessage("hi"), message("assistant")),
        (AIMessageChunk("hi"), message("assistant")),
        (SystemMessage("hi"), message("system")),
        (ChatMessage("hi", role="critic"), message("critic")),
        (FunctionMessage("hi", name="f"), message("function", name="f")),
        (ToolMessage("hi", tool_call_id="c1"), message("tool", tool_call_id="c1")),
        (AIMessage("", tool_calls=[CALL]),
         message("assistant", "", tool_calls=[{"id": "c1", "name": "search", "args": {"q": "x"}}])),
        (HumanMessage([{"type": "text", "text": "hi"}]),
         message("user", [{"type": "text", "text": "hi"}])),
    ],
)  # fmt: skip
def test_a_message_has_its_five_keys_in_order(value: BaseMessage, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert list(found) == list(expected)


def test_wrappers_of_langchain_are_read_as_what_they_hold() -> None:
    assert plain(StringPromptValue(text="q")) == "q"
    assert plain(ChatPromptValue(messages=[HumanMessage("hi")])) == [message("user")]
    assert plain(LLMResult(generations=[[Generation(text="a")]])) == "a"
    assert plain(LLMResult(generations=[[ChatGeneration(message=AIMessage("hi"))]])) == message(
        "assistant"
    )
    assert plain(LLMResult(generations=[[Generation(text="a")], [Generation(text="b")]])) == [
        ["a"], ["b"]
    ]  # fmt: skip
    assert plain(Document("text", metadata={"page": 1}, id="d1")) == {
        "page_content": "text", "metadata": {"page": 1}, "id": "d1"
    }  # fmt: skip
    assert plain([Document("a"), Document("b")])[1]["page_content"] == "b"
    assert plain(RemoveMessage(id="m1"))["role"] == "remove"


def test_control_flow_of_langgraph_is_read_by_its_fields() -> None:
    types = pytest.importorskip("langgraph.types")
    send = types.Send("worker", {"n": 1})
    assert plain(send) == {"node": "worker", "arg": {"n": 1}}
    assert plain(types.Command(goto=[send], update={"messages": [HumanMessage("hi")]})) == {
        "goto": [{"node": "worker", "arg": {"n": 1}}],
        "update": {"messages": [message("user")]},
        "resume": None,
        "graph": None,
    }
    assert plain(types.Command(resume="yes"))["resume"] == "yes"
    assert plain(types.Interrupt(value={"ask": 1}, id="i1")) == {"value": {"ask": 1}, "id": "i1"}
    assert plain(types.Overwrite([1])) == [1]


def test_no_property_or_method_of_a_message_runs() -> None:
    class Hostile(HumanMessage):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        __iter__ = __len__ = __repr__ = __str__ = __eq__ = __getattribute__  # type: ignore[assignment]
        __hash__ = None  # type: ignore[assignment]

    value = Hostile.__new__(Hostile)
    object.__setattr__(value, "__dict__", dict(vars(HumanMessage("hi"))))
    assert plain(value) == message("user")


# --- the cache ----------------------------------------------------------------------------------


def test_a_message_of_plain_text_is_frozen_once() -> None:
    history = [HumanMessage("a"), AIMessage("b")]
    first, second = ROOMY.freeze(history).value, ROOMY.freeze(list(history)).value
    assert all(one is two for one, two in zip(first, second, strict=True))


CHANGES = {
    "content": lambda m, n: setattr(m, "content", f"new {n}"),
    "name": lambda m, n: setattr(m, "name", f"name {n}"),
    "content by __dict__": lambda m, n: m.__dict__.__setitem__("content", f"new {n}"),
    "tool calls": lambda m, n: m.tool_calls.append(CALL),
    "new __dict__": lambda m, n: object.__setattr__(m, "__dict__", {**m.__dict__, "content": "z"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_after_the_freeze_is_noticed_by_the_next_one_and_by_it_alone(change: str) -> None:
    for n in range(1000):
        value = AIMessage(f"old {n}")
        before = ROOMY.freeze([value])
        kept = copy.deepcopy(plain(value))
        assert ROOMY.freeze([value]).value[0] is before.value[0]
        CHANGES[change](value, n)
        after = plain(value)
        assert json.loads(encode_content(before).text) == [kept]
        assert after != kept


def test_mutable_parts_of_a_message_are_copied_1000_times() -> None:
    for n in range(1000):
        blocks = HumanMessage([{"type": "text", "text": f"t{n}"}])
        caller = AIMessage("", tool_calls=[copy.deepcopy(CALL)], additional_kwargs={"k": [n]})
        state = {"messages": [blocks, caller], "prompt": ChatPromptValue(messages=[blocks])}
        before = ROOMY.freeze(state)
        text = encode_content(before).text
        blocks.content[0]["text"] = "late"  # type: ignore[index]
        blocks.content.append("late")  # type: ignore[union-attr]
        caller.tool_calls[0]["args"]["q"] = "late"
        caller.additional_kwargs["k"].append("late")
        state["messages"].append(blocks)  # type: ignore[union-attr]
        assert encode_content(before).text == text
        assert "late" not in text


@pytest.mark.parametrize("change", [
    lambda m: m.tool_calls[0]["args"].update(q="late"),
    lambda m: m.tool_calls[0]["args"].update(late=1),
    lambda m: m.tool_calls[0]["args"].clear(),
    lambda m: m.tool_calls[0].update(name="late"),
    lambda m: m.tool_calls[0].update(args={"q": "late"}),
    lambda m: m.tool_calls.append(CALL),
    lambda m: m.tool_calls.clear(),
    lambda m: setattr(m, "tool_calls", []),
])  # fmt: skip
def test_a_message_with_plain_tool_calls_is_kept_until_any_part_of_them_changes(
    change: Any,
) -> None:
    value = AIMessage("", tool_calls=[copy.deepcopy(CALL)])
    first = ROOMY.freeze([value]).value[0]
    assert ROOMY.freeze([value]).value[0] is first
    before = plain(value)
    change(value)
    assert plain(value) != before
    assert (
        plain(value)["tool_calls"]
        == plain(AIMessage("", tool_calls=value.tool_calls))["tool_calls"]
    )


def test_a_message_with_nested_arguments_is_walked_each_time() -> None:
    value = AIMessage("", tool_calls=[{"name": "t", "args": {"q": [1]}, "id": "c"}])
    ROOMY.freeze([value])
    value.tool_calls[0]["args"]["q"].append(2)
    assert plain(value)["tool_calls"][0]["args"] == {"q": [1, 2]}


def test_the_cache_keeps_no_artifact_of_a_tool_alive() -> None:
    freezer = Freezer()
    freezer.freeze([ToolMessage("rows", tool_call_id="c1", artifact=object())])
    freezer.freeze([ToolMessage("rows", tool_call_id="c2")])
    assert len(freezer._messages._young) == 1


def test_an_empty_content_list_that_is_filled_is_noticed() -> None:
    value = HumanMessage([])
    ROOMY.freeze([value])
    value.content.append("late")  # type: ignore[union-attr]
    assert plain(value)["content"] == ["late"]


def test_the_cache_is_bounded() -> None:
    from llmops_core.freeze.messages import CACHED_MESSAGES

    freezer = Freezer()
    for n in range(3 * CACHED_MESSAGES):
        freezer.freeze([HumanMessage(f"m{n}")])
    cache = freezer._messages
    assert len(cache._young) + len(cache._old) <= 2 * CACHED_MESSAGES


# --- histories ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_long_history_keeps_the_first_message_and_the_newest(rounds: int) -> None:
    freezer = Freezer(text_limit=1000)
    history = [HumanMessage(f"{n:03}" + "x" * 97) for n in range(100)]
    for _ in range(rounds):
        found = freezer.freeze({"messages": history})
    messages = json.loads(encode_content(found).text)["messages"]
    texts = [m.get("content", m)[:3] if "content" in m else m for m in messages]
    assert texts[:2] == ["000", {"omitted_messages": 91}]
    assert texts[2:] == [f"{n:03}" for n in range(92, 100)]
    assert found.truncated
    assert 91 * 100 <= found.cut_bytes <= 91 * 180


def test_a_huge_newest_message_is_cut_and_kept() -> None:
    history = [HumanMessage("first"), *map(AIMessage, "abc"), HumanMessage("y" * 20_000)]
    found = plain(history, Freezer())
    assert [m["content"][:1] if "content" in m else m for m in found] == [
        "f", {"omitted_messages": 3}, "y"
    ]  # fmt: skip
    assert len(found[-1]["content"]) > 8000


def test_a_huge_first_message_leaves_half_of_the_budget_to_the_newest() -> None:
    history = [HumanMessage("x" * 20_000), *(AIMessage(f"{n}" * 500) for n in range(10))]
    found = plain(history, Freezer())
    assert len(found[0]["content"]) == 4096
    assert found[-1]["content"] == "9" * 500
    assert len(found) > 5


def test_a_large_first_message_has_what_the_others_leave() -> None:
    history = [HumanMessage("x" * 6_000), AIMessage("y" * 100)]
    found = Freezer().freeze(history)
    assert [len(m.content) for m in found.value] == [6_000, 100]
    assert (found.truncated, found.cut_bytes) == (False, 0)
    history[0] = HumanMessage("x" * 9_000)
    found = Freezer().freeze(history)
    assert [len(m.content) for m in found.value] == [8_092, 100]
    assert (found.truncated, found.cut_bytes) == (True, 908)
    assert len(Freezer().freeze(history[:1]).value[0].content) == 8_192


def test_a_history_with_walked_messages_is_cut_the_same_way() -> None:
    freezer = Freezer(text_limit=1000)
    history = [HumanMessage([{"type": "text", "text": f"{n:03}" + "x" * 97}]) for n in range(50)]
    found = plain(history, freezer)
    assert found[0]["content"][0]["text"].startswith("000")
    assert "omitted_messages" in found[1]
    assert found[-1]["content"][0]["text"] == "049" + "x" * 97


def test_strangers_in_the_middle_of_a_long_history_are_omitted_with_it() -> None:
    history: list[Any] = [HumanMessage("x" * 9000) for _ in range(5)]
    history[2] = "stranger"
    assert plain(history, Freezer())[1] == {"omitted_messages": 3}


def test_who_speaks_and_what_is_called_is_kept_when_the_text_is_spent() -> None:
    value = AIMessage("x" * 20_000, name="writer", tool_calls=[CALL])
    found = plain([value], Freezer())[0]
    assert (found["role"], found["name"]) == ("assistant", "writer")
    assert found["tool_calls"] == [{"id": "c1", "name": "search", "args": {"q": ""}}]


def test_a_list_that_is_not_all_messages_is_copied_as_any_list() -> None:
    assert plain([HumanMessage("hi"), "plain", 3]) == [message("user"), "plain", 3]
    assert plain((HumanMessage("hi"), object()))[1] == "<object>"


def test_a_message_that_holds_itself_ends_in_a_marker() -> None:
    value = HumanMessage(["x"])
    value.content.append({"self": value})  # type: ignore[union-attr]
    assert plain(value)["content"] == ["x", {"self": "<cycle>"}]
