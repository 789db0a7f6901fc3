"""Exports of OpenTelemetry spans become our spans, and are analysed like what we recorded."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_core import Span
from llmops_core.analysis.multi_agent import MultiAgent
from llmops_core.analysis.otel import spans_from_otel

T = 1_767_225_600_000_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


def typed(value: Any) -> dict[str, Any]:
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def otlp(*spans: tuple[str, str | None, str, int, int, dict[str, Any]]) -> dict[str, Any]:
    """Return spans as the OTLP/JSON file exporter writes them."""
    made = [
        {"traceId": TRACE, "spanId": f"{sid:0>16}", "parentSpanId": f"{up:0>16}" if up else "",
         "name": name, "startTimeUnixNano": str(T + start * 10**6),
         "endTimeUnixNano": str(T + end * 10**6), "status": {},
         "attributes": [{"key": k, "value": typed(v)} for k, v in attributes.items()]}
        for sid, up, name, start, end, attributes in spans
    ]  # fmt: skip
    return {"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}


GEN_AI = otlp(
    ("1", None, "run", 0, 100, {"session.id": "s1"}),
    ("2", "1", "invoke_agent triage", 1, 40,
     {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage",
      "gen_ai.input.messages": "about order #A-10423"}),
    ("3", "2", "chat m-1", 2, 30,
     {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1",
      "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 3}),
    ("4", "1", "invoke_agent billing", 41, 90,
     {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "billing",
      "gen_ai.input.messages": "about an order"}),
)  # fmt: skip


def test_an_export_of_the_semantic_conventions_is_analysed_like_our_own() -> None:
    spans = spans_from_otel(GEN_AI)
    assert [(s.kind, s.agent, s.session_id) for s in spans] == [
        ("workflow", None, "s1"), ("agent", "triage", None), ("llm", None, None),
        ("agent", "billing", None),
    ]  # fmt: skip
    assert (spans[2].model, spans[2].input_tokens, spans[2].output_tokens) == ("m-1", 12, 3)
    found = MultiAgent().add_spans(spans)
    assert [(h.source, h.target, h.session_id) for h in found.handoffs] == [
        ("triage", "billing", "s1")
    ]
    assert [lost.value for lost in found.drift[0].lost] == ["#A-10423"]


def test_an_export_of_openinference_is_read_with_its_messages() -> None:
    export = [
        {"name": "triage", "context": {"trace_id": "0x" + TRACE, "span_id": "0x00000000000000a1"},
         "parent_id": None, "start_time": "2026-01-01T00:00:00.000000Z",
         "end_time": "2026-01-01T00:00:01Z", "status": {"status_code": "ERROR"},
         "attributes": {"openinference.span.kind": "AGENT", "input.value": "hi"}},
        {"name": "m", "context": {"trace_id": "0x" + TRACE, "span_id": "0x00000000000000a2"},
         "parent_id": "0x00000000000000a1", "start_time": "2026-01-01T00:00:00.1Z",
         "end_time": "2026-01-01T00:00:00.2Z", "status": {"status_code": "OK"},
         "attributes": {"openinference.span.kind": "LLM", "llm.token_count.prompt": 7,
                        "llm.input_messages.0.message.role": "user",
                        "llm.input_messages.0.message.content": "order #A-10423"}},
    ]  # fmt: skip
    agent, model = spans_from_otel(export)
    assert (agent.kind, agent.agent, agent.outcome, agent.input) == (
        "agent",
        "triage",
        "error",
        "hi",
    )
    assert (agent.span_id, agent.duration_ms) == ("00000000000000a1", 1000.0)
    assert (model.parent_id, model.input_tokens) == ("00000000000000a1", 7)
    assert json.loads(model.input or "") == [{"role": "user", "content": "order #A-10423"}]


def test_spans_without_an_id_or_a_time_are_left_out_and_open_ones_are_incomplete() -> None:
    raw = {"traceId": TRACE, "spanId": "00000000000000a1", "startTimeUnixNano": T, "name": "x"}
    assert spans_from_otel([{**raw, "spanId": ""}, {**raw, "startTimeUnixNano": "soon"}]) == []
    (span,) = spans_from_otel([raw])
    assert (span.outcome, span.duration_ms, span.end_time) == ("incomplete", None, span.start_time)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["spans", "attributes", "spanId", "traceId", "name", "key", "value",
                             "startTimeUnixNano", "status", "context", "intValue"]),
            inner, max_size=5,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(_JSON)
@settings(max_examples=100, deadline=None)
def test_whatever_json_is_given_spans_come_out_and_no_error(export: Any) -> None:
    assert all(isinstance(span, Span) for span in spans_from_otel(export))
