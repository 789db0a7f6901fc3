"""Plain functions as models and agents: the tokens of an answer, tries, handoffs and pauses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from llmops_core import Interrupted, monitor_llm
from llmops_core.decorating.usage import usage_fields
from llmops_core.testing.fixtures import CapturedSpans, spans

__all__ = ["spans"]

OPENAI = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 3},
}
ANTHROPIC = {
    "input_tokens": 10,
    "output_tokens": 5,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 20,
}
GOOGLE = {
    "prompt_token_count": 10,
    "candidates_token_count": 5,
    "thoughts_token_count": 2,
    "cached_content_token_count": 4,
}


class Answer:
    """An object of a provider's client."""


def objects(value: Any) -> Any:
    """The same as a client's object has it."""
    if isinstance(value, dict):
        made = Answer()
        made.__dict__.update({name: objects(item) for name, item in value.items()})
        return made
    return value


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"usage": OPENAI}, (10, 5, 4, None, 2, 1, 3)),
        ({"usage": ANTHROPIC}, (130, 5, 100, 20, None, None, None)),
        ({"message": {"usage": ANTHROPIC}}, (130, 5, 100, 20, None, None, None)),
        ({"usage_metadata": GOOGLE}, (10, 7, 4, None, 2, None, None)),
        (
            {
                "response": {
                    "usage": {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}}
                }
            },
            (3, None, 1, None, None, None, None),
        ),
    ],
)
@pytest.mark.parametrize("form", [dict, objects])
def test_the_usage_of_each_provider_is_read(result: Any, told: tuple[Any, ...], form: Any) -> None:
    fields = usage_fields(form(result))
    names = (
        "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens",
        "reasoning_tokens", "audio_input_tokens", "audio_output_tokens",
    )  # fmt: skip
    assert tuple(fields.get(name) for name in names) == told
    assert fields["usage_source"] == "provider"


@dataclass
class Hostile:
    """Runs code of its own for every attribute that is asked for."""

    asked: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        raise RuntimeError(name)

    @property
    def usage(self) -> Any:
        raise RuntimeError("usage")


@pytest.mark.parametrize(
    "result",
    ["text", 3, None, [], {"usage": 5}, {"usage": {"prompt_tokens": "10"}}, {"usage": None}],
)
def test_what_tells_no_usage_has_none(result: Any) -> None:
    assert usage_fields(result) == {}


def test_no_code_of_a_result_is_called() -> None:
    hostile = Hostile()
    assert usage_fields(hostile) == {}
    assert not hostile.asked


def test_only_a_model_call_has_tokens(spans: CapturedSpans) -> None:
    @monitor_llm("ask", "tool", monitor=spans.monitor)
    def ask() -> Any:
        return {"usage": OPENAI}

    ask()
    assert spans.tree() == "tool ask ok\n"


def test_a_second_try_has_the_same_input_and_follows_a_failure(spans: CapturedSpans) -> None:
    script = [RuntimeError("a"), RuntimeError("b"), 1, 2, RuntimeError("c"), 3]

    @monitor_llm("ask", "tool", monitor=spans.monitor)
    def ask(what: str) -> Any:
        said = script.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    @monitor_llm("work", monitor=spans.monitor)
    def work() -> None:
        for what in ("x", "x", "x", "x", "y", "z"):
            try:
                ask(what)
            except RuntimeError:
                continue

    work()
    assert spans.tree() == (
        "workflow work ok\n"
        "  tool ask error RuntimeError\n"
        "  tool ask error RuntimeError attempt=2\n"
        "  tool ask ok attempt=3\n"
        "  tool ask ok\n"
        "  tool ask error RuntimeError\n"
        "  tool ask ok\n"
    )


def agent(spans: CapturedSpans, name: str, run: Any) -> Any:
    return monitor_llm(name, "agent", monitor=spans.monitor)(run)


def team(spans: CapturedSpans, run: Any) -> None:
    monitor_llm("team", "workflow", monitor=spans.monitor)(run)()


def handoffs(spans: CapturedSpans) -> list[tuple[Any, ...]]:
    found = [s for s in spans() if s.kind == "handoff"]
    found.sort(key=lambda span: span.start_time)
    return [(s.agent, s.target_agent, s.handoff_mechanism, s.handoff_confirmed) for s in found]


@pytest.mark.parametrize(
    ("said", "given", "hands_over"),
    [
        ("done", "done", True),
        ("a whole answer of some words", "Edit this: a whole answer of some words. Thanks", True),
        ({"text": "short"}, ["short"], True),
        ("no", "do not say no", False),  # by chance
        ("one thing", "another thing", False),
        (4, 4, False),
        ("", "", False),
    ],
)
def test_an_agent_hands_over_what_the_next_one_is_given(
    said: Any, given: Any, hands_over: bool, spans: CapturedSpans
) -> None:
    first, second = agent(spans, "a", lambda: said), agent(spans, "b", lambda text: text)
    team(spans, lambda: (first(), second(given)))
    assert handoffs(spans) == ([("a", "b", "context", True)] if hands_over else [])


def test_agents_at_the_same_time_hand_nothing_over(spans: CapturedSpans) -> None:
    async def say(text: str) -> str:
        await asyncio.sleep(0)
        return text

    first, second = agent(spans, "a", say), agent(spans, "b", say)

    async def both() -> None:
        await asyncio.gather(first("the same text"), second("the same text"))

    asyncio.run(monitor_llm("team", "workflow", monitor=spans.monitor)(both)())
    assert handoffs(spans) == []


def test_a_transfer_is_confirmed_by_its_target(spans: CapturedSpans) -> None:
    @monitor_llm("transfer", "handoff", monitor=spans.monitor)
    def transfer(target_agent: str) -> str:
        return target_agent

    first = agent(spans, "a", lambda: transfer("b"))
    second = agent(spans, "b", lambda: "done")
    team(spans, lambda: (first(), second()))
    assert spans.tree() == (
        "workflow team ok\n"
        "  agent a ok\n"
        "    tool transfer [a] ok\n"
        "  handoff a → b [a] -> b by transfer handed_off\n"
        "  agent b ok\n"
    )


def test_a_transfer_that_calls_its_target_itself_is_one_handoff(spans: CapturedSpans) -> None:
    second = agent(spans, "b", lambda: "done")
    to_b = monitor_llm(
        "to_b", "handoff", custom_attributes={"target_agent": "b"}, monitor=spans.monitor
    )(second.__call__)
    first = agent(spans, "a", lambda: to_b())
    team(spans, first)
    assert handoffs(spans) == [("a", "b", "transfer", True)]


def test_a_transfer_that_raises_moves_nobody(spans: CapturedSpans) -> None:
    @monitor_llm("to_b", "handoff", custom_attributes={"target_agent": "b"}, monitor=spans.monitor)
    def to_b() -> None:
        raise PermissionError("not to b")

    def run() -> None:
        with pytest.raises(PermissionError):
            to_b()

    team(spans, agent(spans, "a", run))
    assert handoffs(spans) == []


def test_a_pause_has_its_question_as_the_output(spans: CapturedSpans) -> None:
    @monitor_llm("draft", "task", monitor=spans.monitor)
    def draft() -> None:
        raise Interrupted({"question": "fine?"})

    with pytest.raises(Interrupted):
        monitor_llm("review", monitor=spans.monitor)(draft)()
    assert [(s.outcome, s.output, s.error_type) for s in spans()] == [
        ("interrupted", '{"question":"fine?"}', None)
    ] * 2


def test_a_stream_whose_reader_left_is_abandoned_though_the_loop_cancels_its_end(
    spans: CapturedSpans,
) -> None:
    @monitor_llm("inner", monitor=spans.monitor)
    async def inner() -> Any:
        yield 1
        yield 2

    async def main() -> None:
        stream = inner()
        await anext(stream)
        with pytest.raises(asyncio.CancelledError):
            await stream.athrow(asyncio.CancelledError())

    asyncio.run(main())
    assert spans.tree() == "workflow inner abandoned streamed\n"
