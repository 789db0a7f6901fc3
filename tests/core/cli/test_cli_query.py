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
        ("attributes.langgraph.node = a", Filter("attributes.langgraph.node", "=", "a")),
        ("error_message contains >>> 1", Filter("error_message", "contains", ">>> 1")),
        ("name = '>x'", Filter("name", "=", ">x")),
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
        "query", "--json", "--where", "attributes.langgraph.node = approve",
        "--columns", "start_time,name,attributes,tags",
    )  # fmt: skip
    assert json.loads(ran.out) == [
        {
            "start_time": "2026-11-18T11:06:43.001000+00:00",
            "name": "approve",
            "attributes": {"langgraph.node": "approve"},
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
        (["--since", "yesterday-ish"], "--since 'yesterday-ish' is no moment in time"),
        (["--until", "bogus"], "--until 'bogus' is no moment in time"),
        (["--where", "start_time > bogus"], "condition 'start_time > bogus'"),
        (["--where", "duration_ms >>> 1"], "operator '>>>' in the condition"),
        (["--where", "name like x"], "operator 'like' in the condition"),
        (["--agg", "p95"], "p95 needs a column"),
        (["--agg", "p95"], "write p95:duration_ms"),
        (["--agg", "count,error_rate"], "repeat the option: --agg count --agg error_rate"),
        (["--group-by", "kind", "--columns", "name"], "error: --columns beside --group-by\n"),
        (["--agg", "count", "--columns", "name"], "error: --columns beside --agg\n"),
        (["--bucket", "1h", "--page", "WzFd"], "error: --page beside --bucket\n"),
        (["--page", "%%%"], "the cursor that the page before named"),
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


def test_a_full_page_names_the_next_one_until_there_is_none(stored: str, llmops: Call) -> None:
    seen, page = [], []
    for _ in range(9):
        ran = llmops("query", "--json", "--columns", "span_id", "--limit", "4", *page)
        seen += [row["span_id"] for row in json.loads(ran.out)]
        if "--page" not in ran.err:
            break
        assert ran.err.startswith("4 rows; there may be more: add --page ")
        page = ["--page", ran.err.split()[-1]]
    assert sorted(seen) == ["f1", "f2", "o2", "s1", "w1", "w2"]


def test_one_row_is_one_row_and_groups_have_no_pages(stored: str, llmops: Call) -> None:
    assert llmops("query", "--limit", "1").err.startswith("1 row; there may be more: add --page ")
    groups = llmops("query", "--limit", "2", "--group-by", "kind")
    assert groups.err == "2 rows; there may be more: raise --limit\n"


def test_an_empty_answer_says_so(stored: str, llmops: Call) -> None:
    assert llmops("query", "--where", "name = nobody").out == "No span matches.\n"
    assert json.loads(llmops("query", "--json", "--where", "name = nobody").out) == []


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_hides_whole_columns_and_names_them(
    stored: str, llmops: Call, terminal: Call, width: int
) -> None:
    terminal(width)
    ran = llmops("query")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= width
    assert {"kind", "name", "outcome"} <= set(lines[0].split())
    assert {"workflow", "interrupted"} <= set(ran.out.split())
    hidden = ran.err.partition("No room for: ")[2].partition(". Widen")[0].split(", ")
    for column in ("agent", "duration_ms", "input_tokens", "output_tokens", "trace_id"):
        assert (column in lines[0].split()) != (column in hidden), column


def test_a_terminal_of_eighty_columns_keeps_time_and_a_short_trace_id(
    stored: str, llmops: Call, terminal: Call
) -> None:
    terminal(80)
    ran = llmops("query", "--where", "name in desk, m-1")
    assert "\n".join(line.rstrip() for line in ran.out.splitlines()) == snapshot("""\
start_time UTC  kind      name  agent  outcome      duration_ms  trace_id
11-18 11:06:43  workflow  desk         interrupted        10.00  019ab3f2c104
11-18 11:06:40  llm       m-1          ok                150.00  019ab3f2c101
11-18 11:06:40  workflow  desk         ok                200.00  019ab3f2c101\
""")
    assert ran.err == (
        "No room for: input_tokens, output_tokens. "
        "Widen the terminal, or name fewer with --columns, or add --json.\n"
    )


def test_every_column_at_once_is_told_by_number(stored: str, llmops: Call, terminal: Call) -> None:
    terminal(80)
    err = llmops("query", "--columns", "all").err
    assert " more. Widen the terminal, or name fewer with --columns" in err
    assert len(err) < 300


def test_a_pipe_gets_whole_ids_and_whole_texts(stored: str, llmops: Call) -> None:
    ran = llmops("query")
    assert ran.err == ""
    assert "019ab3f2c10100000000000000000000" in ran.out
    assert "2026-11-18T11:06:40.000000+00:00" in ran.out
    assert "…" not in ran.out
