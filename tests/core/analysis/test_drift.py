"""Drift over stored spans: what a source knew, and what of it the target received."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

from llmops_core import spans_to_arrow
from llmops_core.analysis.drift import Drift, drift_to_arrow
from llmops_core.analysis.multi_agent import MultiAgent


def _load_desk():
    spec = importlib.util.spec_from_file_location("desk", Path(__file__).with_name("desk.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Trace = _load_desk().Trace
ASKED = "Anna Berg (anna@example.org) was charged $42.50 twice for order #A-10423."


def drift(*traces: object) -> list[Drift]:
    spans = [span for trace in traces for span in trace.spans]
    random.Random(1).shuffle(spans)
    return MultiAgent().add_spans(spans).drift


def test_a_lost_order_number_is_found_from_stored_spans() -> None:
    trace = Trace()
    trace.agent("router", ASKED, "Please refund the customer.")
    trace.agent("billing", "Refund Anna Berg (anna@example.org), $42.50.", "Done.")
    (row,) = drift(trace)
    assert (row.source, row.target, row.n, row.drift) == ("router", "billing", 4, 0.25)
    assert [(lost.type, lost.value, lost.reacquired) for lost in row.lost] == [
        ("id", "#A-10423", False)
    ]
    assert row.altered == row.added == ()


def test_an_altered_quantity_is_found_from_stored_spans() -> None:
    trace = Trace()
    trace.agent("sales", "Anna Berg wants 12 boxes of paper to be sent home.", "12 boxes.")
    trace.agent("store", "Anna Berg wants 21 boxes of paper to be sent home.", "Sent.")
    (row,) = drift(trace)
    assert [(c.value, c.becomes) for c in row.altered] == [("12", "21")]
    assert row.lost == ()


def test_what_nobody_said_is_unsupported_and_what_a_tool_returned_is_not() -> None:
    trace = Trace()
    trace.agent("router", ASKED, "see below", tools={"find": "Their phone is 212-555-0147."})
    trace.agent("billing", ASKED + " Call 212-555-0147. See also order #B-20001.")
    (row,) = drift(trace)
    assert row.added == ("#B-20001",)


def test_what_a_branch_found_between_asking_and_receiving_is_supported() -> None:
    trace = Trace()
    trace.agent("billing", "refund Anna Berg", "it may be refunded")
    asked = trace.clock
    trace.agent("shipping", "where is it?", "found", tools={"find_orders": "order #A-0977"})
    trace.add(
        "handoff", "billing → approve", trace.root, 30, agent="billing", target_agent="approve",
        handoff_mechanism="command", handoff_confirmed=True, outcome="handed_off", start_time=asked,
        input="refund Anna Berg", output="refund Anna Berg, order #A-0977",
    )  # fmt: skip
    (row,) = [r for r in MultiAgent().add_spans(trace.spans).drift if r.target == "approve"]
    assert row.added == ()


def test_a_loss_that_is_fetched_again_is_harmful() -> None:
    trace = Trace()
    trace.agent("router", ASKED, "x")
    trace.agent("billing", "A customer was charged $42.50 twice.", tools={"find": "#A-10423: paid"})
    (row,) = drift(trace)
    harmful = {lost.value: lost.reacquired for lost in row.lost}
    assert harmful == {"Anna Berg": False, "anna@example.org": False, "#A-10423": True}


def test_a_loss_that_somebody_asks_for_is_harmful() -> None:
    trace = Trace()
    trace.agent("router", ASKED, "x")
    trace.agent("billing", "A customer was charged $42.50 twice.", "What is your e-mail address?")
    (row,) = drift(trace)
    assert {lost.value for lost in row.lost if lost.reacquired} == {"anna@example.org"}


def test_a_text_that_a_capture_limit_cut_makes_unknown_and_never_lost() -> None:
    trace = Trace()
    trace.agent("router", ASKED, "x")
    trace.agent("billing", "Anna Berg was", input_truncated=True)
    (row,) = drift(trace)
    assert row.lost == row.altered == ()
    assert set(row.unknown) == {"anna@example.org", "$42.50", "#A-10423"}
    assert row.drift == 0.0


def test_system_messages_and_names_of_agents_are_no_information_to_keep() -> None:
    trace = Trace()
    trace.agent("Billing Desk", "Ask Shipping Desk about order #A-10423.", "x")
    trace.agent("Shipping Desk", "Where is order #A-10423?")
    (row,) = drift(trace)
    assert row.drift == 0.0
    assert row.kept == ("#A-10423",)
    assert row.added == ()


def test_sessions_never_mix() -> None:
    """The same agents at the same times, and what one session lost, the other one has."""
    one, other = Trace(1), Trace(2)
    for trace, order in ((one, "#A-10001"), (other, "#B-20002")):
        trace.agent("router", f"about order {order} of Anna Berg", "x")
        trace.agent("billing", "about Anna Berg", "x", tools={"find": "none"})
    rows = drift(one, other)
    assert sorted((row.session_id, row.lost[0].value) for row in rows) == [
        ("session-1", "#A-10001"),
        ("session-2", "#B-20002"),
    ]
    assert not any(lost.reacquired for row in rows for lost in row.lost)


def test_without_content_there_is_no_drift_and_no_error() -> None:
    trace = Trace()
    trace.agent("router", ASKED, "x")
    trace.agent("billing", ASKED, "y")
    trace.spans = [span.replace(input=None, output=None) for span in trace.spans]
    found = MultiAgent().add_spans(trace.spans)
    assert found.drift == []
    assert len(found.handoffs) == 1


def test_a_recorded_handoff_is_enough_where_the_runs_have_no_content() -> None:
    trace = Trace()
    trace.add("agent", "a", trace.root, 20, agent="a")
    trace.clock += 30_000
    trace.handoff("a", "b", input="order #A-10423 for Anna Berg", output="for Anna Berg")
    trace.add("agent", "b", trace.root, 20, agent="b")
    (row,) = drift(trace)
    assert [lost.value for lost in row.lost] == ["#A-10423"]


def test_on_null_data_false_findings_stay_under_one_in_a_hundred() -> None:
    """Nothing is lost: the same facts in other words and another order, random names and numbers."""
    chance = random.Random(5)
    first, last = (
        ["Anna", "Omar", "Mei", "Lars", "Ruth"],
        ["Berg", "Reyes", "Tanaka", "Holm", "Adler"],
    )
    traces, facts = [], 0
    for number in range(1, 121):
        name = f"{chance.choice(first)} {chance.choice(last)}"
        order, money = f"#Q-{chance.randrange(10_000, 99_999)}", f"${chance.randrange(100, 999)}.50"
        mail, count = f"user{number}x{chance.randrange(99)}@example.org", chance.randrange(2, 60)
        trace = Trace(number)
        trace.agent("a", f"{name} <{mail}> ordered {count} boxes under {order} and paid {money}.")
        trace.agent("b", f"Order {order}: {count} boxes, {money} paid. Customer: {name}, {mail}")
        traces.append(trace)
        facts += 5
    rows = drift(*traces)
    wrong = sum(
        len(r.lost) + len(r.altered) + len(r.added) + len(r.swapped) + len(r.flipped) for r in rows
    )
    assert len(rows) == 120
    assert sum(row.n for row in rows) == facts
    assert wrong / facts < 0.01


def test_arrow_in_gives_the_same_as_spans_and_arrow_comes_out() -> None:
    trace = Trace()
    trace.agent("router", ASKED, "x")
    trace.agent("billing", "about Anna Berg", "y")
    rows = MultiAgent().add_arrow(spans_to_arrow(trace.spans)).drift
    assert rows == drift(trace)
    table = drift_to_arrow(rows)
    assert table.num_rows == 1
    assert table.schema == drift_to_arrow([]).schema
    assert table["lost"].to_pylist()[0][0]["value"] == "anna@example.org"
