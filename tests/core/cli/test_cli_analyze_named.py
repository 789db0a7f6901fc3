"""``llmops analyze NAME`` runs the analyzer that a plugin registers, and says what is wrong with one."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from llmops_core import Registry, hookimpl
from llmops_core.plugins import PluginHost


class Kinds:
    """How many spans of each kind, of at least as many as its argument says."""

    def __init__(self, argument: str) -> None:
        self.least = int(argument or 1)

    def analyze(self, spans: pa.Table) -> pa.Table:
        counts = pc.value_counts(spans["kind"].cast(pa.string())).to_pylist()
        kept = {c["values"]: c["counts"] for c in counts if c["counts"] >= self.least}
        return pa.table({"kind": pa.array(list(kept), pa.string()),
                         "spans": pa.array(list(kept.values()), pa.int64())})  # fmt: skip


class Broken:
    """Leaves the program, or returns no table."""

    def __init__(self, argument: str) -> None:
        self.leaves = argument == "exit"

    def analyze(self, spans: pa.Table) -> Any:
        if self.leaves:
            raise SystemExit(0)
        return [1, 2]


class Plugin:
    name = "kinds"

    @hookimpl
    def llmops_register(self, registry: Registry) -> None:
        registry.analyzer("kinds", Kinds)
        registry.analyzer("nothing", lambda argument: object())
        registry.analyzer("broken", Broken)


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmops_core.plugins.PluginHost", lambda: PluginHost([Plugin()]))


def test_its_table_is_printed_and_is_json_for_programs(llmops: Any, stored: str) -> None:
    ran = llmops("analyze", "kinds", "--storage", stored)
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["kind", "spans"]
    assert ["workflow", "2"] in lines
    rows = json.loads(llmops("analyze", "kinds:2", "--json", "--storage", stored).out)
    assert {row["kind"]: row["spans"] for row in rows}["llm"] == 2
    assert all(row["spans"] >= 2 for row in rows)


def test_it_is_given_the_spans_that_are_asked_for(llmops: Any, stored: str) -> None:
    def counted(*options: str) -> int:
        out = llmops("analyze", "kinds", "--json", "--storage", stored, *options).out
        return sum(row["spans"] for row in json.loads(out))

    assert counted("--session", "session-first") == 2
    assert counted("--since", "2100-01-01") == 0
    ran = llmops("analyze", "kinds", "--json", "--limit", "3", "--storage", stored)
    assert sum(row["spans"] for row in json.loads(ran.out)) == 3
    assert "3 spans were read; there may be more: raise --limit" in ran.err


def test_nothing_found_is_said(llmops: Any, stored: str) -> None:
    ran = llmops("analyze", "kinds:1000", "--storage", stored)
    assert (ran.code, ran.out.strip()) == (0, "The analyzer found nothing.")


@pytest.mark.parametrize(
    ("name", "said"),
    [("knds", "did you mean 'kinds'"), ("handofs", "unknown analyzer 'handofs'"),
     ("nothing", "object without analyze"), ("agents:2", "analyzer agents:2"),
     ("named", "unknown analyzer 'named'")],
)  # fmt: skip
def test_what_is_no_analyzer_is_an_error_with_a_hint(
    llmops: Any, stored: str, name: str, said: str
) -> None:
    ran = llmops("analyze", name, "--storage", stored)
    assert ran.code == 2
    assert said in ran.err


def test_the_commands_are_still_commands_and_options_stay_options(llmops: Any, stored: str) -> None:
    assert (
        "No agents here." in llmops("analyze", "agents", "--session", "x", "--storage", stored).out
    )
    ran = llmops("analyze", "--nonsense")
    assert ran.code == 2
    assert "No such option" in ran.err + ran.out


@pytest.mark.parametrize(("argument", "error"), [("exit", "SystemExit"), ("list", "TypeError")])
def test_one_that_fails_ends_the_command_with_its_name(
    llmops: Any, stored: str, argument: str, error: str
) -> None:
    ran = llmops("analyze", f"broken:{argument}", "--storage", stored)
    assert (ran.code, ran.out) == (2, "")
    assert f"analyzer 'broken:{argument}' failed with {error}" in ran.err
