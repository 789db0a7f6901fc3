"""A query that makes no sense is refused when it is described, with what to do instead."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from llmops_core import Order, QueryError, SpanQuery
from llmops_core.query import micros, run_query
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.spans import START


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"equal": {"sesion_id": "x"}}, "did you mean 'session_id'"),
        ({"equal": {"step": "1"}}, "type int"),
        ({"equal": {"step": True}}, "type int"),
        ({"where": [("name", "like", "x")]}, "unknown operator 'like'"),
        ({"where": ["name"]}, "column, operator, value"),
        ({"where": [("attributes", "=", "x")]}, "attributes.KEY"),
        ({"where": [("tags", "=", "x")]}, "'contains' and a text"),
        ({"where": [("step", "contains", "1")]}, "a text column"),
        ({"where": [("name", "in", "abc")]}, "a list of values"),
        ({"columns": "name"}, r"columns=\['name'\]"),
        ({"order": ["tags"]}, "a scalar column"),
        ({"limit": 0}, "from 1 to"),
        ({"aggregates": ["median:step"]}, "unknown aggregate"),
        ({"aggregates": ["sum:name"]}, "a column of numbers"),
        ({"aggregates": ["sum:start_time"]}, "a column of numbers"),
        ({"aggregates": ["count:step"]}, "no column"),
        ({"aggregates": ["p95"]}, "p95 needs a column.*write p95:duration_ms"),
        ({"group_by": ["name"], "columns": ["name"]}, "^columns beside .*rows or groups"),
        ({"group_by": ["name"], "after": ["x"]}, "^after beside .*rows or groups"),
        ({"group_by": ["name"], "order": ["step"]}, "order by 'step'"),
        ({"after": ["x"]}, "2 values"),
        ({"after": ["x", "y"]}, "type int"),
        ({"since": "yesterday"}, "since='yesterday'.*a moment in time"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(QueryError, match=f"(?i){message}"):
        SpanQuery.build(**arguments)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (START, START),
        ("2026-01-01T00:00", START),
        ("2026-01-01T01:00+01:00", START),
        (dt.datetime(2026, 1, 1), START),
        (dt.datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC), START + 1),
        ("15m", -900_000_000),
        ("1.5h", -5_400_000_000),
        (None, None),
    ],
)
def test_a_moment_is_written_in_many_ways(moment: Any, expected: int | None) -> None:
    assert micros(moment, now=0.0) == expected


def test_an_order_always_ends_with_the_span_id() -> None:
    assert SpanQuery().effective_order == (Order("start_time", True), Order("span_id", True))
    query = SpanQuery.build(order=["duration_ms"])
    assert query.effective_order == (Order("duration_ms"), Order("span_id"))
    assert SpanQuery.build(order=["-span_id"]).effective_order == (Order("span_id", True),)


def test_the_last_page_has_no_next_one() -> None:
    table = make_batch([make_span(at) for at in range(1, 5)]).arrow
    query = SpanQuery.build(limit=3)
    following = query.next_page(run_query(table, query))
    assert following is not None
    assert following.after == (START + 2_000, f"{2:016x}")
    assert following.next_page(run_query(table, following)) is None
    assert SpanQuery().next_page(table) is None


def test_a_page_boundary_outside_of_the_calendar_is_a_number() -> None:
    table = make_batch([make_span(1, start_time=2**61, end_time=2**61)]).arrow
    following = SpanQuery.build(limit=1).next_page(table)
    assert following is not None
    assert following.after == (2**61, f"{1:016x}")
