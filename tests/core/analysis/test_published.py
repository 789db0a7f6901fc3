"""The published fronts: the names, methods and fields that users know, over the same analyses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from llmops_core import AgentDetector, ContextDriftDetector, HandoffAnalyzer, spans_to_arrow


def _load_desk():
    spec = importlib.util.spec_from_file_location("desk", Path(__file__).with_name("desk.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Trace = _load_desk().Trace
ASKED = "John Smith at john@example.com needs help with order #12345"


def events() -> list[Any]:
    trace = Trace()
    trace.agent("classifier", ASKED, "order help")
    trace.agent("knowledge_base", "order help", "no idea", outcome="error")
    return trace.spans


async def test_the_published_walk_through_runs_and_finds_the_published_example() -> None:
    detector = AgentDetector()
    agents = await detector.detect_agents(events(), auto_register=True)
    operations = await detector.detect_agent_operations(events())
    assert sorted((a.agent, a.role) for a in agents) == [
        ("classifier", "classifier"), ("knowledge_base", "retriever"),
    ]  # fmt: skip
    assert detector.agents == agents
    assert [operation.name for operation in operations] == ["classifier", "knowledge_base"]

    analyzer = HandoffAnalyzer()
    (handoff,) = await analyzer.analyze_handoffs(operations, events())
    assert (handoff.from_agent, handoff.to_agent, handoff.status) == (
        "classifier", "knowledge_base", "failed",
    )  # fmt: skip
    assert handoff.quality_score == pytest.approx(0.3), "it was fast, and nothing else"
    assert handoff.quality_level == "POOR"
    statistics = analyzer.calculate_handoff_statistics()
    assert statistics["avg_quality_score"] == pytest.approx(0.3)
    assert statistics["success_rate"] == 0.0

    drift = ContextDriftDetector()
    (analysis,) = await drift.detect_drift(operations, events())
    assert analysis.has_high_drift
    assert [(e.value, e.entity_type) for e in analysis.lost_entities] == [
        ("John Smith", "phrase"), ("john@example.com", "email"), ("#12345", "id"),
    ]  # fmt: skip
    assert drift.get_high_drift_handoffs(threshold=0.4) == [analysis]
    assert drift.get_high_drift_handoffs(threshold=1.0) == []


async def test_a_table_and_plain_records_give_the_same_as_spans() -> None:
    records = [
        {"span_id": s.span_id, "parent_span_id": s.parent_id, "session_id": s.session_id,
         "type": s.kind, "name": s.name, "start": s.start_time / 1e6, "end": s.end_time / 1e6,
         "status": s.outcome, "input": s.input, "output": s.output}
        for s in events()
    ]  # fmt: skip
    lost = []
    for given in (events(), spans_to_arrow(events()), records):
        (analysis,) = await ContextDriftDetector().detect_drift([], given)
        lost.append(analysis.lost_entities)
    assert lost[0] == lost[1] == lost[2] != ()


async def test_nothing_to_analyse_gives_nothing_and_no_average() -> None:
    analyzer = HandoffAnalyzer()
    assert await analyzer.analyze_handoffs([], []) == []
    assert analyzer.calculate_handoff_statistics()["avg_quality_score"] is None
    assert await AgentDetector().detect_agents([]) == []
    assert await ContextDriftDetector().detect_drift([]) == []
