"""Agents and edges: what is counted over many traces, how sure it is, and what was repaired."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_core import Span
from llmops_core.analysis.agents import agents_to_arrow
from llmops_core.analysis.edges import edges_to_arrow, efficiency, level, quality
from llmops_core.analysis.measures import MINIMUM, mean, quantile, share
from llmops_core.analysis.multi_agent import MultiAgent


def _load_desk():
    spec = importlib.util.spec_from_file_location("desk", Path(__file__).with_name("desk.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Trace = _load_desk().Trace


def trace_of(number: int, *names: str, fails: str = "") -> list[Span]:
    trace = Trace(number)
    for at, name in enumerate(names):
        if at:
            trace.handoff(names[at - 1], name)
        trace.agent(name, "hello", "ho", outcome="error" if name == fails else "ok",
                    tools={"search_docs": "x"} if name == "helper" else None)  # fmt: skip
    return trace.spans


def analysed(traces: int = 20, fails_every: int = 4) -> MultiAgent:
    total = MultiAgent()
    for number in range(1, traces + 1):
        fails = "helper" if number % fails_every == 0 else ""
        total.add_spans(trace_of(number, "Triage", "helper", "writer", fails=fails))
    return total


def test_agents_have_roles_counts_success_latency_tokens_and_collaborators() -> None:
    rows = {row.agent: row for row in analysed().agents()}
    helper = rows["helper"]
    assert {name: row.role for name, row in rows.items()} == {
        "Triage": "router", "helper": "retriever", "writer": "generator",
    }  # fmt: skip
    assert (helper.invocations, helper.partitions, helper.tokens) == (20, 20, 20 * 120)
    assert (helper.success.value, helper.success.n) == (0.75, 20)
    assert helper.latency_p50_ms.value == pytest.approx(20)
    assert set(helper.collaborators) == {"Triage", "writer"}
    assert helper.tools == ("search_docs",)


def test_who_works_with_a_step_that_is_no_agent_reads_its_name_as_it_is_written() -> None:
    trace = Trace(1)
    trace.agent("billing", "hello", "ho")
    trace.handoff("billing", "approve_refund")
    total = MultiAgent()
    total.add_spans(trace.spans)
    assert [row.collaborators for row in total.agents()] == [("approve_refund",)]


def test_edges_have_success_quality_and_level() -> None:
    rows = {(row.source, row.target): row for row in analysed().edges()}
    edge = rows["Triage", "helper"]
    assert (edge.handoffs, edge.failed, edge.dropped) == (20, 5, 0)
    assert edge.success.value == 0.75
    # Fifteen traces are perfect; in five the target failed, and half of the chain with it.
    assert edge.quality.value == pytest.approx((15 * 1.0 + 5 * (0.3 + 0.3 * 0.5)) / 20)
    assert edge.level == "GOOD"


def test_a_part_at_a_time_gives_the_same_as_all_at_once() -> None:
    spans = [s for n in range(1, 9) for s in trace_of(n, "a", "b", "c", fails="b" if n % 2 else "")]
    random.Random(4).shuffle(spans)
    whole = MultiAgent()
    whole.add_spans(spans)
    parts = MultiAgent()
    for number in range(1, 9):
        parts.add_spans([s for s in spans if s.trace_id == f"{number:032x}"])
    assert whole.agents() == parts.agents()
    assert whole.edges() == parts.edges()
    assert whole.quality == parts.quality


def test_too_few_observations_have_no_value() -> None:
    rows = analysed(traces=MINIMUM - 1).agents()
    assert all(row.success == (None, None, None, MINIMUM - 1) for row in rows)
    assert all(edge.level is None for edge in analysed(traces=MINIMUM - 1).edges())


def test_a_dropped_handoff_is_failed_and_one_that_waits_for_a_human_is_pending() -> None:
    dropped, waits = Trace(1), Trace(2)
    for trace in (dropped, waits):
        trace.agent("a", "hello")
        trace.handoff("a", "b", confirmed=False)
    waits.spans[0] = waits.spans[0].replace(outcome="interrupted")
    total = MultiAgent()
    found = total.add_spans(dropped.spans + waits.spans)
    assert [(h.session_id, h.target, h.status, h.confirmed) for h in found.handoffs] == [
        ("session-1", "b", "failed", False),
        ("session-2", "b", "pending", False),
    ]
    (edge,) = total.edges()
    assert (edge.handoffs, edge.dropped) == (1, 1)


def test_a_failed_run_and_its_next_attempt_are_failed_and_retried_though_one_was_recorded() -> None:
    trace = Trace()
    trace.agent("a", "hello")
    trace.handoff("a", "b")
    trace.agent("b", "hello", outcome="error")
    trace.agent("b", "hello")
    again = max(at for at, span in enumerate(trace.spans) if span.kind == "agent")
    trace.spans[again] = trace.spans[again].replace(attempt=2)
    found = MultiAgent().add_spans(trace.spans)
    assert [(h.source, h.target, h.status) for h in found.handoffs] == [
        ("a", "b", "failed"), ("a", "b", "retried"),
    ]  # fmt: skip


def test_agents_that_send_work_back_and_forth_are_a_loop_and_bounce() -> None:
    total = MultiAgent()
    found = total.add_spans(trace_of(1, *("a", "b") * 4))
    assert [(loop.agents, loop.turns) for loop in found.loops] == [(("a", "b"), 7)]
    edges = {(e.source, e.target): e for e in total.edges()}
    assert edges["b", "a"].bounced.n == 3
    assert edges["a", "b"].loops == 1


def test_several_outputs_that_one_run_is_given_are_one_turn_of_a_loop() -> None:
    trace = Trace()
    for turn in range(5):
        source, target = "ab"[(turn - 1) % 2], "ab"[turn % 2]
        for _ in range((turn + 1) // 2):
            trace.handoff(source, target)
        trace.agent(target, "again", "once more")
    found = MultiAgent().add_spans(trace.spans)
    assert len(found.handoffs) == 6
    assert [(loop.agents, loop.turns) for loop in found.loops] == [(("a", "b"), 4)]


def test_what_was_repaired_is_counted_and_lowers_the_score() -> None:
    clean = trace_of(1, "billing_agent", "writer")
    total = MultiAgent()
    total.add_spans(clean)
    assert total.quality.score == 1.0
    dirty = [*clean, *clean[:2]]
    dirty[1] = dirty[1].replace(parent_id="00000000deadbeef")
    other = MultiAgent()
    other.add_spans(dirty)
    assert (other.quality.duplicates, other.quality.orphans, other.quality.reattached) == (2, 1, 1)
    assert 0 < other.quality.score < 1


@pytest.mark.parametrize(
    ("score", "name"),
    [(1.0, "EXCELLENT"), (0.91, "EXCELLENT"), (0.9, "GOOD"), (0.7, "GOOD"), (0.69, "ACCEPTABLE"),
     (0.5, "ACCEPTABLE"), (0.49, "POOR"), (0.3, "POOR"), (0.29, "FAILED"), (0.0, "FAILED")],
)  # fmt: skip
def test_levels_are_the_published_ones(score: float, name: str) -> None:
    assert level(score) == name


def test_quality_is_the_published_forty_thirty_thirty() -> None:
    assert quality(1, 0, 0) == pytest.approx(0.4)
    assert quality(0, 1, 0) == pytest.approx(0.3)
    assert quality(0, 0, 1) == pytest.approx(0.3)


def test_efficiency_is_relative_to_the_edge_itself() -> None:
    assert efficiency(10, middle=10, spread=2) == 1.0
    assert efficiency(5, middle=10, spread=2) == 1.0
    assert efficiency(16, middle=10, spread=2) == pytest.approx(0.5)
    assert efficiency(1000, middle=10, spread=2) == 0.0
    assert efficiency(None, middle=10, spread=2) == 0.0


@given(st.integers(MINIMUM, 500), st.data())
def test_a_share_lies_in_its_interval_and_the_interval_in_zero_to_one(n: int, data) -> None:
    found = share(data.draw(st.integers(0, n)), n)
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.lists(st.floats(0, 1e6), min_size=MINIMUM, max_size=60))
def test_a_quantile_and_a_mean_lie_in_their_intervals(values: list[float]) -> None:
    for found in (quantile(values, 0.5), quantile(values, 0.95), mean(values)):
        assert found.low <= found.value <= found.high
    assert min(values) <= quantile(values, 0.95).value <= max(values)


def test_wilson_intervals_are_those_of_the_books() -> None:
    found = share(8, 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.490, 0.943)


def test_rows_become_tables_with_the_same_columns_also_when_empty() -> None:
    total = analysed()
    assert agents_to_arrow(total.agents()).schema == agents_to_arrow([]).schema
    table = edges_to_arrow(total.edges())
    assert table.schema == edges_to_arrow([]).schema
    assert table["success"].to_pylist()[0]["n"] == 20
