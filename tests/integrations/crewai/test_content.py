"""What goes into the spans: content, tokens, handoffs, errors, pauses."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("crewai")

from crewai_kit import ScriptedLLM, Search, act, agent, call, crew, final, task
from crewai_scenarios import SCENARIOS

from llmops_core.analysis.waiting import waiting
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.translate import usage_fields


def recorded(spans, name):
    with CrewListener(spans.monitor):
        SCENARIOS[name]()
    return spans()


def only(stored, **wanted):
    found = [s for s in stored if all(getattr(s, k) == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


# ---- messages and results ----


def test_messages_have_the_form_that_they_have_in_every_framework(spans):
    worker = agent("a", call("search", query="x"), "found", native=True, tools=[Search()])
    with CrewListener(spans.monitor):
        crew(task("t", worker)).kickoff(inputs={"topic": "cats"})
    first, second = sorted((s for s in spans() if s.kind == "llm"), key=lambda s: s.start_time)
    messages = json.loads(first.input)
    assert [set(m) for m in messages] == [
        {"role", "content", "name", "tool_calls", "tool_call_id"}
    ] * len(messages)
    assert messages[0]["role"] == "system"
    asked = {"id": "call-1", "name": "search", "args": {"query": "x"}}
    assert json.loads(first.output)["tool_calls"] == [asked]
    assert json.loads(second.output)["content"] == "found"
    again = [m for m in json.loads(second.input) if m["tool_calls"]]
    assert [m["tool_calls"] for m in again] == [[asked]]
    assert json.loads(first.attributes["crewai.tools"]) == ["search"]
    tool = only(spans(), kind="tool")
    assert json.loads(tool.input) == {"query": "x"}
    assert tool.output == "notes about x"
    root = only(spans(), kind="workflow")
    assert json.loads(root.input) == {"topic": "cats"}
    assert root.output == "found"
    assert root.framework == "crewai"


def test_arguments_and_names_of_tools_are_the_same_in_react_and_native_calls(spans):
    react = agent("a", act("search", query="x"), final("found"), tools=[Search()])
    with CrewListener(spans.monitor):
        crew(task("t", react)).kickoff()
    tool = only(spans(), kind="tool")
    assert (tool.name, json.loads(tool.input)) == ("search", {"query": "x"})


def test_times_are_the_events_own(spans):
    slow = agent("a", seconds=0.2)
    with CrewListener(spans.monitor):
        crew(task("t", slow)).kickoff()
    model = only(spans(), kind="llm")
    assert 200 <= model.duration_ms < 5_000
    for span in spans():
        assert span.end_time - span.start_time == pytest.approx(span.duration_ms * 1000, abs=2)


# ---- tokens ----

SOURCES = {
    "openai": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "cached_prompt_tokens": 60,
            "reasoning_tokens": 8,
        },
        (100, 20, 60, None, 8),
    ),
    "openai, raw": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 60},
            "completion_tokens_details": {"reasoning_tokens": 8},
        },
        (100, 20, 60, None, 8),
    ),
    "anthropic, raw: cached tokens are beside the others": (
        {
            "input_tokens": 10,
            "output_tokens": 20,
            "cache_read_input_tokens": 80,
            "cache_creation_input_tokens": 10,
        },
        (100, 20, 80, 10, None),
    ),
    "anthropic, as CrewAI folds it": (
        {"input_tokens": 100, "output_tokens": 20, "cached_prompt_tokens": 80},
        (100, 20, 80, None, None),
    ),
    "gemini": (
        {"prompt_token_count": 100, "candidates_token_count": 20},
        (100, 20, None, None, None),
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_usage_is_split_once_by_each_providers_convention(source):
    usage, counts = SOURCES[source]
    fields = usage_fields(usage)
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    assert tuple(fields.get(n) for n in (*names, "reasoning_tokens")) == counts
    assert fields["usage_source"] == "provider"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "many"}, {"prompt_tokens": True}, 7])
def test_missing_usage_is_visible_and_never_zero(usage):
    assert usage_fields(usage) == {"usage_source": "missing"}


def test_the_tokens_of_the_model_calls_sum_to_what_crewai_counted(spans):
    with CrewListener(spans.monitor):
        result = SCENARIOS["hierarchical"]()
    stored = spans()
    counted = [s for s in stored if s.input_tokens is not None]
    assert {s.kind for s in counted} == {"llm"}
    assert sum(s.input_tokens for s in counted) == result.token_usage.prompt_tokens
    assert sum(s.output_tokens for s in counted) == result.token_usage.completion_tokens
    root = only(stored, kind="workflow")
    assert root.measurements == {"crewai.total_tokens": float(result.token_usage.total_tokens)}


def test_a_model_class_that_emits_nothing_is_noticed_and_said(spans, caplog):
    mute = agent("a", final("done"), silent=True)
    with CrewListener(spans.monitor):
        crew(task("t", mute)).kickoff()
        crew(task("t", agent("b"))).kickoff()
    first, second = sorted((s for s in spans() if s.kind == "agent"), key=lambda s: s.name)
    assert first.attributes["crewai.silent_model"].endswith("ScriptedLLM")
    assert "crewai.silent_model" not in (second.attributes or {})
    assert sum(spans.monitor.stats()["failures"].values()) == 1
    assert "ScriptedLLM: its calls are not on the event bus; emit llm_call_started" in caplog.text


# ---- handoffs ----


def test_a_sequential_handoff_says_what_was_given_and_what_arrived(spans):
    stored = recorded(spans, "sequential")
    handoff = only(stored, kind="handoff", agent="writer")
    assert handoff.target_agent == "editor"
    assert handoff.handoff_confirmed is True
    assert handoff.input == "writer is done"
    assert handoff.output == "cats are nice\n\n----------\n\nwriter is done"
    before, after = only(stored, name="write"), only(stored, name="edit")
    assert (handoff.start_time, handoff.end_time) == (before.end_time, after.start_time)


def test_a_delegation_says_its_task_and_its_context(spans):
    stored = recorded(spans, "hierarchical")
    handoff = only(stored, handoff_mechanism="manager")
    assert json.loads(handoff.input) == {"task": "find cats", "context": "the user likes cats"}
    assert handoff.output == "the user likes cats"
    question = only(stored, handoff_mechanism="question")
    assert json.loads(question.input) == {"question": "nice?", "context": "cats"}
    target = only(stored, kind="agent", name="writer")
    assert question.end_time == target.start_time


def test_a_task_without_another_ones_words_in_its_context_is_no_handoff(spans):
    a, b = agent("a"), agent("b")
    first = task("first", a)
    with CrewListener(spans.monitor):
        crew(first, task("second", b, context=[])).kickoff()
        crew(task("one", a), task("two", a)).kickoff()
    assert [s for s in spans() if s.kind == "handoff"] == []


# ---- errors ----


def test_one_failing_model_call_is_one_error_that_others_carry(spans):
    stored = recorded(spans, "llm_error")
    failed = {s.kind: s for s in stored}
    assert {s.error_message for s in stored} == {"overloaded"}
    assert "crewai.error_from" not in (failed["llm"].attributes or {})
    for kind in ("agent", "task", "workflow"):
        assert failed[kind].attributes["crewai.error_from"] == "llm scripted-1"


def test_what_a_guardrail_refuses_says_why(spans):
    stored = recorded(spans, "guardrail_retry")
    refused = only(stored, kind="guardrail", outcome="error")
    assert (refused.error_message, refused.attempt) == ("too long", 1)
    passed = only(stored, kind="guardrail", outcome="ok")
    assert (passed.output, passed.attempt) == ("two", 2)


def test_error_rates_leave_out_what_was_tried_again(spans):
    recorded(spans, "llm_error_retried")
    rates = spans.monitor.query(
        kind="agent", group_by=["name"], aggregates=["error_rate"]
    ).to_pylist()
    assert [row["error_rate"] for row in rates] == [0.0]


# ---- humans ----


def test_what_a_flow_asks_a_human_is_a_span_that_says_how_long_it_waited(spans):
    asked = only(recorded(spans, "human_input_in_a_flow"), name="human input")
    assert (asked.input, asked.output) == ("Who are you?", "Bob")
    assert asked.waited_ms is not None
    assert asked.waited_ms == pytest.approx(asked.duration_ms, abs=1)


def test_a_flow_that_pauses_waits_until_it_is_resumed(spans, tmp_path):
    from crewai.flow.async_feedback.types import HumanFeedbackPending
    from crewai.flow.flow import Flow, listen, start
    from crewai.flow.human_feedback import human_feedback
    from crewai.flow.persistence import SQLiteFlowPersistence

    class Later:
        def request_feedback(self, context, flow):
            raise HumanFeedbackPending(context=context)

    class Review(Flow):
        @start()
        @human_feedback(message="Is this fine?", provider=Later())
        def draft(self):
            return "a draft"

        @listen(draft)
        def publish(self, result):
            return f"published: {result.feedback}"

    kept = SQLiteFlowPersistence(str(tmp_path / "flows.db"))
    with CrewListener(spans.monitor):
        paused = Review(persistence=kept).kickoff()
        flow_id = paused.context.flow_id
        first = spans()
        result = Review.from_pending(flow_id, kept).resume("very fine")
    assert result == "published: very fine"
    assert {s.name: s.outcome for s in first} == {
        "Review": "interrupted",
        "draft": "interrupted",
    }
    (asked,) = waiting(first, now=0)
    assert [q.value for q in asked.asked] == ["Is this fine?"]
    assert asked.thread_id == flow_id
    assert not asked.answered
    (done,) = waiting(spans(), now=0)
    assert done.answered
    assert done.answer == "very fine"
    assert len({s.trace_id for s in spans()}) == 2


def test_the_content_of_a_crew_is_bounded_and_holds_no_live_object(spans):
    worker = agent("a", final("x" * 100_000))
    with CrewListener(spans.monitor):
        crew(task("t", worker)).kickoff()
    for span in spans():
        assert len(span.input or "") + len(span.output or "") < 40_000
        assert "object at 0x" not in (span.input or "") + (span.output or "")
    assert only(spans(), kind="task").output_truncated


def test_a_flow_method_that_calls_a_model_itself_is_an_agent(spans):
    from crewai.flow.flow import Flow, start

    model = ScriptedLLM(replies=["hi"])

    class Desk(Flow):
        @start()
        def greet(self):
            return model.call("hello")

    with CrewListener(spans.monitor):
        Desk().kickoff()
    assert spans.tree() == (
        "workflow Desk ok\n  agent greet ok\n    llm scripted-1 [greet] ok 12+3 tokens\n"
    )
