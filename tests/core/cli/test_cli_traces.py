"""``llmops traces`` and ``llmops trace``: what is listed, found, escaped, and refused."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from inline_snapshot import snapshot

from llmops_core import Monitor, monitor_llm, monitoring_trace

Call = Callable[..., Any]
FIRST = "019ab3f2c10100000000000000000000"


def listed(llmops: Call, *args: str) -> list[str]:
    ran = llmops("traces", "--json", *args)
    assert ran.code == 0, ran.err
    return [row["trace_id"][11] for row in json.loads(ran.out)["traces"]]


def test_traces_are_listed_newest_first_and_the_unfinished_one_is_open(
    stored: str, llmops: Call, terminal: Call
) -> None:
    terminal(105)
    ran = llmops("traces")
    assert ran.code == 0
    assert "\n".join(line.rstrip() for line in ran.out.splitlines()) == snapshot("""\
trace         started (UTC)   name           outcome          time  spans  tokens in → out  session
019ab3f2c104  11-18 11:06:43  workflow desk  ◐ interrupted   10 ms      2                   session-waits
019ab3f2c103  11-18 11:06:42  llm m-2        ○ open              -      1         100 → 20  session-open
019ab3f2c102  11-18 11:06:41  chain \\x1b[2…  ✗ error         10 ms      1                   \\x1b[2J\\x1b]…
019ab3f2c101  11-18 11:06:40  workflow desk  ✓ ok           200 ms      2         100 → 20  session-first\
""")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_hides_whole_columns_and_names_them(
    stored: str, llmops: Call, terminal: Call, width: int
) -> None:
    terminal(width)
    ran = llmops("traces")
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= width
    assert "◐ interrupted" in ran.out
    assert "✗ error" in ran.out
    hidden = ran.err.partition("No room for: ")[2].partition(". Widen")[0]
    for column in ("trace", "started (UTC)", "name", "outcome", "time", "spans", "tokens in → out"):
        assert (column in lines[0]) != (column in hidden.split(", ")), column


def test_a_pipe_gets_every_column_and_nothing_cut(stored: str, llmops: Call) -> None:
    out = llmops("traces").out
    assert "session-first" in out
    assert FIRST in out
    assert "2026-11-18 11:06:40" in out
    assert "…" not in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--outcome", "cancelled"], "--outcome is the root's; for every span: llmops query --where"),
        (["--kind", "tool", "--outcome", "ok"], "--kind and --outcome are the root's"),
        (["--session", "nobody"], "No trace matches.\n"),
    ],
)  # fmt: skip
def test_where_none_matches_it_is_said_that_traces_exist(
    stored: str, llmops: Call, args: list[str], said: str
) -> None:
    ran = llmops("traces", *args)
    assert said in ran.out
    assert "llmops demo" not in ran.out


def test_the_help_says_that_outcome_and_kind_are_the_roots(llmops: Call) -> None:
    assert "--kind and --outcome are the root's" in " ".join(llmops("traces", "--help").out.split())


def test_every_filter_narrows_the_list(stored: str, llmops: Call) -> None:
    assert listed(llmops) == ["4", "3", "2", "1"]
    assert listed(llmops, "--session", "session-first") == ["1"]
    assert listed(llmops, "--kind", "workflow") == ["4", "1"]
    assert listed(llmops, "--outcome", "error") == ["2"]
    assert listed(llmops, "--outcome", "interrupted", "--kind", "workflow") == ["4"]
    assert listed(llmops, "--since", "2099-01-01") == []


def test_a_page_names_the_next_one_until_there_is_none(stored: str, llmops: Call) -> None:
    seen, page = [], []
    for _ in range(9):
        answer = json.loads(
            llmops("traces", "--json", "--kind", "workflow", "--limit", "1", *page).out
        )
        seen += [row["trace_id"][11] for row in answer["traces"]]
        if answer["next_page"] is None:
            break
        page = ["--page", answer["next_page"]]
    assert seen == ["4", "1"]


def test_totals_count_the_whole_trace(stored: str, llmops: Call) -> None:
    rows = json.loads(llmops("traces", "--json").out)["traces"]
    first = next(row for row in rows if row["trace_id"] == FIRST)
    assert (first["spans"], first["input_tokens"], first["output_tokens"]) == (2, 100, 20)
    assert first["start_time"] == "2026-11-18T11:06:40.000000+00:00"


def test_an_empty_storage_says_how_to_fill_it(url: str, llmops: Call) -> None:
    ran = llmops("traces")
    assert (ran.code, "llmops demo" in ran.err) == (2, True)


def test_a_trace_is_drawn_by_the_beginning_of_its_id(stored: str, llmops: Call) -> None:
    ran = llmops("trace", FIRST[:14], "--content")
    assert ran.code == 0
    assert ran.out == snapshot("""\
trace 019ab3f2c10100000000000000000000
2026-11-18 11:06:40 UTC · 200 ms · 2 spans · 1 model call · 100 → 20 tokens · session session-first

                 outcome    time  tokens in → out  0                                     200 ms
  workflow desk  ✓ ok     200 ms                   ────────────────────────────────────────────
  └─ llm m-1     ✓ ok     150 ms        100 →  20    ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸
        in  hi
        out ho
""")


def test_an_ambiguous_beginning_names_the_traces(stored: str, llmops: Call) -> None:
    ran = llmops("trace", FIRST[:10])
    assert (ran.code, ran.out) == (2, "")
    assert "4 traces start with '019ab3f2c1'" in ran.err
    assert FIRST in ran.err


@pytest.mark.parametrize(
    ("given", "said"),
    [("ffff", "no trace starts with 'ffff'"), ("not-an-id", "hexadecimal"), ("\x1b[2J", "\\x1b")],
)
def test_an_id_that_is_not_there_is_an_error_with_a_way_out(
    stored: str, llmops: Call, given: str, said: str
) -> None:
    ran = llmops("trace", given)
    assert ran.code == 2
    assert said in ran.err
    assert "llmops traces" in ran.err
    assert "\x1b" not in ran.err
    assert "Traceback" not in ran.err


def test_json_of_a_trace_holds_its_spans_and_ascii_only(stored: str, llmops: Call) -> None:
    ran = llmops("trace", "019ab3f2c10200000000000000000000", "--json")
    assert ran.out.isascii()
    assert "\x1b" not in ran.out
    (span,) = json.loads(ran.out)["spans"]
    assert span["name"].startswith("\x1b[2J")
    assert span["start_time"] == "2026-11-18T11:06:41.000000+00:00"


@pytest.mark.parametrize("command", [["traces"], ["trace", "019ab3f2c10200000000000000000000"],
                                     ["trace", "019ab3f2c10200000000000000000000", "--content"],
                                     ["query", "--columns", "all"]])  # fmt: skip
def test_hostile_text_reaches_no_terminal(stored: str, llmops: Call, command: list[str]) -> None:
    ran = llmops(*command)
    assert ran.code == 0
    for text in (ran.out, ran.err):
        assert all(c.isprintable() for c in text.replace("\n", ""))
    assert "\\x1b" in ran.out


@pytest.mark.parametrize("args", [["--kind", "nope"], ["--outcome", "fine"], ["--page", "%%%"]])
def test_a_wrong_option_says_what_is_expected(stored: str, llmops: Call, args: list[str]) -> None:
    ran = llmops("traces", *args)
    assert ran.code == 2
    assert "expected:" in ran.err
    assert "Traceback" not in ran.err


def test_colour_is_for_terminals_and_no_color_wins(
    stored: str, llmops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b" not in llmops("trace", FIRST).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[3" in llmops("trace", FIRST).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in llmops("trace", FIRST).out


def test_an_unknown_storage_is_refused_and_its_password_hidden(llmops: Call) -> None:
    ran = llmops("traces", "--storage", "nosuch://me:secret@host/db")
    assert ran.code == 2
    assert "nosuch" in ran.err
    assert "secret" not in ran.err


def test_a_trace_that_began_in_another_process_is_not_open(url: str, llmops: Call) -> None:
    with Monitor(url) as monitor:

        @monitor_llm("desk", monitor=monitor)
        def desk() -> None: ...

        header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        with monitoring_trace(traceparent=header):
            desk()
    (row,) = json.loads(llmops("traces", "--json").out)["traces"]
    assert (row["name"], row["outcome"], row["spans"]) == ("desk", "ok", 1)
    assert row["duration_ms"] is not None
    assert "attributes" not in row


def test_a_trace_that_began_in_another_process_is_found_by_kind_and_outcome(
    url: str, llmops: Call
) -> None:
    with Monitor(url) as monitor:

        @monitor_llm("tidy", "tool", monitor=monitor)
        def tidy() -> None: ...

        @monitor_llm("desk", "agent", monitor=monitor)
        def desk(*, works: bool) -> None:
            tidy()
            if not works:
                raise ValueError("no")

        for number, works in ((1, True), (2, False)):
            header = f"00-{number:032x}-b7ad6b7169203331-01"
            with monitoring_trace(traceparent=header), contextlib.suppress(ValueError):
                desk(works=works)

    def listed(*args: str) -> list[str]:
        rows = json.loads(llmops("traces", "--json", *args).out)["traces"]
        return [f"{row['name']} {row['outcome']} {row['spans']}" for row in rows]

    assert sorted(listed()) == ["desk error 2", "desk ok 2"]
    assert sorted(listed("--kind", "agent")) == ["desk error 2", "desk ok 2"]
    assert listed("--kind", "tool") == [], "below what began here"
    assert listed("--outcome", "error") == ["desk error 2"]
    assert listed("--kind", "agent", "--outcome", "ok") == ["desk ok 2"]
    assert listed("--outcome", "ok", "--session", "another") == []
