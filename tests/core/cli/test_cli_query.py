"""``llmops query``: conditions typed as text become typed filters, answers become tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from inline_snapshot import snapshot

from llmops_core.cli.query import parse_condition, parse_seconds
from llmops_core.errors import QueryError
from llmops_core.query import Filter

Call = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("duration_ms > 100", Filter("duration_ms", ">", 100.0)),
        ("input_tokens>=1_000", Filter("input_tokens", ">=", 1000)),
        ("name == 'a = b'", Filter("name", "=", "a = b")),
        ("name != x", Filter("name", "!=", "x")),
        ("kind in llm, tool", Filter("kind", "in", ("llm", "tool"))),
        ('name NOT IN ("a, b", c)', Filter("name", "not in", ("a, b", "c"))),
        ("error_type is not null", Filter("error_type", "is not null")),
        ("parent_id IS NULL", Filter("parent_id", "is null")),
        ("input contains not in the list", Filter("input", "contains", "not in the list")),
        ("name starts with lookup", Filter("name", "starts with", "lookup")),
        ("input_truncated = true", Filter("input_truncated", "=", True)),
        ("attributes.langgraph.step = 3", Filter("attributes.langgraph.step", "=", "3")),
        ("measurements.score < 0.5", Filter("measurements.score", "<", 0.5)),
        ("start_time >= 1970-01-01T00:00:01", Filter("start_time", ">=", 1_000_000)),
        ("tags contains beta", Filter("tags", "contains", "beta")),
    ],
)
def test_a_condition_becomes_a_filter_of_the_columns_type(text: str, expected: Filter) -> None:
    assert parse_condition(text) == expected


@pytest.mark.parametrize(
    "text", ["", "duration_ms", "duration_ms > fast", "attempt = 1.5", "name is null x", "> 1"]
)
def test_a_condition_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        parse_condition(text)


def test_buckets_are_written_with_a_unit() -> None:
    assert (parse_seconds("1m"), parse_seconds("0.5h")) == (60, 1800)
    with pytest.raises(QueryError):
        parse_seconds("minute")


def test_rows_are_a_table_for_people(stored: str, llmops: Call) -> None:
    ran = llmops("query", "--where", "duration_ms > 100", "--columns", "name,duration_ms,outcome")
    assert (ran.code, ran.err) == (0, "")
    assert "\n".join(line.rstrip() for line in ran.out.splitlines()) == snapshot("""\
name  duration_ms  outcome
m-1        150.00  ok
desk       200.00  ok\
""")


def test_rows_are_objects_for_programs(stored: str, llmops: Call) -> None:
    ran = llmops(
        "query", "--json", "--where", "attributes.langgraph.step = 3",
        "--columns", "start_time,name,attributes,tags",
    )  # fmt: skip
    assert json.loads(ran.out) == [
        {
            "start_time": "2026-11-18T11:06:43.001000+00:00",
            "name": "approve",
            "attributes": {"langgraph.step": "3"},
            "tags": None,
        }
    ]


def test_groups_take_aggregates_and_an_order(stored: str, llmops: Call) -> None:
    ran = llmops(
        "query", "--json", "--group-by", "kind", "--agg", "count", "--agg", "sum:input_tokens",
        "--order", "-count,kind",
    )  # fmt: skip
    assert [(r["kind"], r["count"], r["sum_input_tokens"]) for r in json.loads(ran.out)] == [
        ("llm", 2, 200), ("workflow", 2, None), ("chain", 1, None), ("task", 1, None),
    ]  # fmt: skip


def test_a_bucket_alone_counts(stored: str, llmops: Call) -> None:
    rows = json.loads(llmops("query", "--json", "--bucket", "1h").out)
    assert [(r["bucket"], r["count"]) for r in rows] == [("2026-11-18T11:00:00.000000+00:00", 6)]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--where", "durration_ms > 1"], "did you mean 'duration_ms'?"),
        (["--agg", "median:duration_ms"], "unknown aggregate"),
        (["--since", "yesterday-ish"], "ISO"),
        (["--bucket", "soon"], "for example 1m"),
        (["--columns", "nope"], "unknown column"),
    ],
)
def test_a_mistake_is_told_in_three_parts(
    stored: str, llmops: Call, args: list[str], said: str
) -> None:
    ran = llmops("query", *args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_full_page_says_that_there_may_be_more(stored: str, llmops: Call) -> None:
    assert "--limit" in llmops("query", "--limit", "2").err
