"""LangChain's and LangGraph's objects are read through their fields, in one form."""

from __future__ import annotations

import copy
import gc
import json
import weakref
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

from llmops_core.freeze import content as content_module
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


class Whole:
    """Stands for what a program holds on to: a table, a parsed answer, a connection."""


class WithTable(AIMessage):
    table: Any = None


def _held(*values: object) -> list[Any]:
    """Freeze the values as often as a graph does, let go of them, and say what is still alive."""
    wholes = [Whole() for _ in values]
    alive = [weakref.ref(whole) for whole in wholes]
    made = [value(whole) for value, whole in zip(values, wholes, strict=True)]  # type: ignore[operator]
    freezer = Freezer()
    for _ in range(3):
        freezer.freeze(made)
    del made, wholes
    gc.collect()
    return [ref() for ref in alive if ref() is not None]


@pytest.mark.parametrize("value", [
    lambda whole: ToolMessage("rows", tool_call_id="c1", artifact=whole),
    lambda whole: AIMessage("hi", additional_kwargs={"parsed": whole}),
    lambda whole: AIMessage("hi", response_metadata={"logprobs": [{"deep": whole}]}),
    lambda whole: WithTable("hi", table=whole),
    lambda whole: AIMessage("hi", extra=whole),
])  # fmt: skip
def test_the_cache_keeps_nothing_alive_that_was_not_copied(value: Any) -> None:
    assert _held(value) == []


def test_a_kept_history_keeps_nothing_of_the_omitted_messages_alive() -> None:
    def small(whole: object) -> Any:
        return HumanMessage("x" * 300)

    def table(whole: object) -> Any:
        return ToolMessage("rows", tool_call_id="c1", artifact=whole)

    assert _held(small, *[table] * 5, *[small] * 40) == []


@pytest.mark.parametrize("more", [
    {"additional_kwargs": {"audio": b"x" * 1_000_000}},
    {"additional_kwargs": {"parsed": "x" * 1_000_000}},
    {"response_metadata": {"logprobs": list(range(1_000))}},
    {"response_metadata": {"seed": 1 << 8_000_000}},
])  # fmt: skip
def test_the_cache_takes_no_message_that_is_large_beside_what_was_copied(more: Any) -> None:
    freezer = Freezer()
    freezer.freeze([AIMessage("hi", **more)])
    assert not freezer._messages._young


def test_an_answer_as_providers_give_it_is_frozen_once() -> None:
    counts = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    value = AIMessage(
        "",
        id="run-1",
        tool_calls=[CALL],
        additional_kwargs={"refusal": None, "tool_calls": [{"id": "c1", "function": CALL}]},
        response_metadata={
            "token_usage": {**counts, "prompt_tokens_details": {"cached_tokens": 0}},
            "model_name": "gpt-4o",
            "logprobs": None,
            "safety_ratings": [{"category": "HARM", "blocked": False, "score": 0.1}],
        },
        usage_metadata={"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
    )
    first = ROOMY.freeze([value]).value[0]
    assert ROOMY.freeze([value]).value[0] is first


def test_the_bytes_of_the_cache_count_all_that_a_message_holds() -> None:
    freezer = Freezer()
    for n in range(300):
        freezer.freeze([AIMessage(f"{n}", additional_kwargs={"note": "x" * 15_000})])
    assert len(freezer._messages._young) < 300


def test_an_empty_content_list_that_is_filled_is_noticed() -> None:
    value = HumanMessage([])
    ROOMY.freeze([value])
    value.content.append("late")  # type: ignore[union-attr]
    assert plain(value)["content"] == ["late"]


def test_the_cache_is_bounded() -> None:
    from llmops_core.freeze.message_cache import CACHED_MESSAGES

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
    assert 91 * 73 + 16 * 100 - 50 <= found.cut_bytes <= 91 * 180


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


# --- histories that come by again ------------------------------------------------------------------


def _history(length: int = 40) -> list[Any]:
    call = {"name": "search", "args": {"q": "x"}, "id": "c1", "type": "tool_call"}
    kinds: list[Any] = [
        lambda n: HumanMessage(f"question {n}", name="ann"),
        lambda n: AIMessage(f"answer {n}"),
        lambda n: AIMessage("", tool_calls=[{**call, "args": {"q": f"q{n}"}}]),
        lambda n: ToolMessage(f"found {n}", tool_call_id="c1"),
    ]
    return [kinds[n % 4](n) for n in range(length)]


@pytest.mark.parametrize("limit", [200, 1_000_000])
def test_the_same_history_gives_the_very_same_copy_from_the_third_time_on(limit: int) -> None:
    freezer, history = Freezer(text_limit=limit), _history()
    first, *again = [freezer.freeze({"messages": list(history), "turn": n}) for n in range(5)]
    copies = [found.value["messages"] for found in again]
    assert all(copy is copies[1] for copy in copies[1:])
    assert all(copy == first.value["messages"] for copy in copies)
    assert {(f.truncated, f.cut_bytes) for f in again} == {(first.truncated, first.cut_bytes)}
    assert {f.weight for f in again} == {again[0].weight}
    assert {plain_text(f).replace(f'"turn":{n}', "") for n, f in enumerate([first, *again])} == {
        plain_text(first).replace('"turn":0', "")
    }


def plain_text(found: Any) -> str:
    return encode_content(found).text


def told(found: Any) -> tuple[Any, bool, int]:
    """Everything but the weight: copying a message anew counts the values inside it."""
    return found.value, found.truncated, found.cut_bytes


HISTORY_CHANGES: dict[str, Any] = {
    "content": lambda m: setattr(m[-4], "content", "edited"),
    "name": lambda m: setattr(m[-4], "name", "bob"),
    "a name that was none": lambda m: setattr(m[-3], "name", "bob"),
    "a call is added": lambda m: m[-3].tool_calls.append(
        {"name": "new", "args": {}, "id": "c2", "type": "tool_call"}
    ),
    "the calls are replaced": lambda m: setattr(m[-3], "tool_calls", [dict(CALL)]),
    "the same words of another speaker": lambda m: m.__setitem__(
        -4, SystemMessage(m[-4].content, name=m[-4].name)
    ),
    "an argument": lambda m: m[-2].tool_calls[0]["args"].update(q="edited"),
    "an argument of another type": lambda m: m[-2].tool_calls[0]["args"].update(q=True),
    "a call id": lambda m: setattr(m[-1], "tool_call_id", "c9"),
    "the first message": lambda m: setattr(m[0], "content", "edited"),
    "a message is replaced": lambda m: m.__setitem__(-4, HumanMessage("edited")),
    "the last is replaced": lambda m: m.__setitem__(-1, HumanMessage("edited")),
    "one more": lambda m: m.append(HumanMessage("more")),
    "one less": lambda m: m.pop(),
    "order": lambda m: m.insert(-1, m.pop(-3)),
    "content that is a list": lambda m: setattr(m[-4], "content", ["edited"]),
    "a stranger": lambda m: m.__setitem__(-2, "stranger"),
    "its fields": lambda m: object.__setattr__(m[-4], "__dict__", {"content": "e", "type": "ai"}),
}


@pytest.mark.parametrize("limit", [200, 1_000_000])
@pytest.mark.parametrize("change", HISTORY_CHANGES)
def test_a_change_in_a_history_that_comes_by_again_is_noticed(change: str, limit: int) -> None:
    freezer, history = Freezer(text_limit=limit), _history()
    before = [freezer.freeze({"messages": history}) for _ in range(4)]
    texts = [plain_text(found) for found in before]
    HISTORY_CHANGES[change](history)
    for _ in range(3):
        changed = freezer.freeze({"messages": history})
        fresh = Freezer(text_limit=limit).freeze({"messages": history})
        assert told(changed) == told(fresh)
        assert plain_text(changed) == plain_text(fresh)
    assert [plain_text(found) for found in before] == texts
    assert plain_text(changed) != texts[0]


def test_a_shorter_text_among_the_omitted_is_noticed() -> None:
    freezer = Freezer(text_limit=200)
    history = [HumanMessage("x" * 90) for _ in range(12)]
    before = [freezer.freeze(history) for _ in range(4)][-1]
    history[3].content = ""
    after = freezer.freeze(history)
    assert after.cut_bytes == before.cut_bytes - 90
    assert told(after) == told(Freezer(text_limit=200).freeze(history))


def test_another_budget_gives_another_copy() -> None:
    freezer, history = Freezer(text_limit=300), _history()
    for _ in range(4):
        freezer.freeze({"messages": history})
    for text in ("", "y" * 50, "y" * 250):
        state = {"text": text, "messages": history}
        assert told(freezer.freeze(state)) == told(Freezer(text_limit=300).freeze(state))


def test_what_is_kept_of_histories_is_bounded() -> None:
    freezer = Freezer()
    for _ in range(500):
        history = _history(8)
        for _ in range(3):
            encode_content(freezer.freeze({"messages": history}))
    assert len(freezer._messages._histories) <= 64
    assert len(content_module._encoded._lists) <= 32


def test_nothing_of_a_hostile_message_runs_when_its_history_comes_by_again() -> None:
    freezer, history = Freezer(), _history(8)
    for _ in range(4):
        freezer.freeze(history)

    class Bomb(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = __len__ = __bool__ = __eq__  # type: ignore[assignment]

    history[3].__dict__["content"] = Bomb("edited")
    history[1].__dict__["tool_calls"] = Bomb("x")
    assert freezer.freeze(history).value[3].content == "edited"
