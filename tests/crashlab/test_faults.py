"""Whatever a plugin does, the program is as its unmonitored twin; the short subset of the laboratory."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")

sys.path.insert(0, str(Path(__file__).parent))
NUMBERS = {5: "five"}
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_page_counts_the_matrix_as_it_is_and_names_what_is_a_limit() -> None:
    from faults_acts import FAULTS
    from faults_analysis import ANALYSES
    from faults_hosts import FRAMEWORKS, WAYS
    from faults_matrix import chosen
    from faults_parts import PARTS, pairs

    from llmops_core.delivery import isolation, storing
    from llmops_core.intake import room

    page = " ".join(PAGE.read_text().split())
    assert f"each of {len(PARTS)} parts" in page
    assert f"each of {len(FAULTS)} faults" in page
    raising = sum(fault.sort == "raises" for fault in FAULTS.values())
    assert raising == 8
    assert "eight ways to raise" in page
    can = sum(part.has_spans for part in PARTS.values())
    assert f"changed spans where it is given some, as {NUMBERS[can]} are" in page
    cells = len(list(pairs())) * len(FRAMEWORKS) * len(WAYS)
    analyses = len(ANALYSES) * (len(FAULTS) - 1)
    assert f"{analyses} of {analyses} cells" in page
    told = PAGE.read_text().partition("<!-- faults -->")[2].partition("<!-- /faults -->")[0]
    assert f"{cells:,} cells" in told
    assert f"| {len(chosen())} of {len(chosen())} cells |" in told
    limits = PAGE.read_text().partition("## Limits")[2]
    assert [f.name for f in FAULTS.values() if f.limit] == [
        "closes stdout", "changes directory and locale",
    ]  # fmt: skip
    assert "a closed stdout, another directory or locale" in " ".join(limits.split())
    assert (isolation.LATE_SECONDS, isolation.DEADLINE_SECONDS) == (0.5, 10)
    assert (storing.SLOW_SECONDS, room.STANDSTILL_SECONDS) == (10, 1)


def good(part: str, fault: str, needs: str = "", **more: Any) -> dict[str, Any]:
    """Return the record of a cell in which all went well: a program of two spans, called once."""
    from faults_cell import ACTS, TURNS
    from faults_matrix import _OF_THE_LAB
    from faults_parts import PARTS, must_count

    spans = [("graph", "workflow"), ("ask", "llm"), *(ACTS[needs] * TURNS)]
    ids = [str(number) for number in range(len(spans))]
    failed = must_count(PARTS[part], _fault(fault))
    return {
        "hits": 5, "seen": True, "doctor": True, "flushed": True, "open": 0, "close_seconds": 0.1,
        "stored": [[i, n, {"witnessed": "yes"}, k] for i, (n, k) in zip(ids, spans, strict=True)],
        "rows": ids, "exported": ids, "told": ids, "names": [n for n, _ in spans],
        "handed": [i for i, (_, kind) in zip(ids, spans, strict=True) if kind == "handoff"],
        "stats": {
            "cut_off": [], "failures": {_OF_THE_LAB: 7, **({failed: 5} if failed else {})},
            "events": {"received": 9, "consumed": 9, "dropped": {}},
            "spans": {"made": len(ids), "stored": len(ids), "journaled": 0},
        },
        **more,
    }  # fmt: skip


def _fault(name: str) -> Any:
    from faults_acts import FAULTS

    return FAULTS[name]


def problems(part: str, fault: str, record: dict[str, Any]) -> str:
    """Return what the matrix finds in a record."""
    from faults_cell import ACTS, TURNS
    from faults_matrix import _our_problems
    from faults_parts import PARTS

    beside = Counter(ACTS[PARTS[part].needs] * TURNS)
    tree = Counter([("graph", "workflow"), ("ask", "llm")]) + beside
    return "; ".join(_our_problems(PARTS[part], _fault(fault), record, tree))


def test_the_matrix_finds_nothing_in_a_cell_in_which_all_went_well() -> None:
    assert problems("collector", "raises Wrong", good("collector", "raises Wrong")) == ""
    asked = {"asked": ["StorageError"] * 7}
    record = good("storage query", "returns a wrong type", **asked)
    assert problems("storage query", "returns a wrong type", record) == ""
    record = good("hook handoff", "changes its spans", "handoff")
    assert problems("hook handoff", "changes its spans", record) == ""


def test_a_cell_whose_handler_recorded_less_does_not_pass() -> None:
    record = good("collector", "raises Wrong")
    for sink in ("stored", "rows", "exported", "told"):
        record[sink] = record[sink][:1]
    record["stats"]["spans"].update(made=1, stored=1)
    assert "missing: {('ask', 'llm'): 1}" in problems("collector", "raises Wrong", record)


def test_a_cell_in_which_our_own_code_failed_does_not_pass() -> None:
    record = good("collector", "raises Wrong")
    record["stats"]["failures"]["handler.on_chain_start: KeyError"] = 1
    assert "counted as well" in problems("collector", "raises Wrong", record)


@pytest.mark.parametrize(
    "part",
    ["collector", "tokenizer", "exporter", "exporter close", "storage write", "storage close",
     "hook spans_stored", "hook handoff", "hook plugin_failed", "hook monitor_started",
     "hook monitor_stopping"],
)  # fmt: skip
def test_a_cell_whose_fault_was_not_counted_under_its_own_name_does_not_pass(part: str) -> None:
    from faults_parts import PARTS, must_count

    record = good(part, "raises Wrong", PARTS[part].needs)
    assert problems(part, "raises Wrong", record) == ""
    failures = record["stats"]["failures"]
    failures["somebody.else: Wrong"] = failures.pop(must_count(PARTS[part], _fault("raises Wrong")))
    assert "was counted 0 times" in problems(part, "raises Wrong", record)


def test_a_cell_whose_query_answers_what_is_no_table_does_not_pass() -> None:
    record = good("storage query", "returns a wrong type", asked=["int"] * 7)
    assert "queries answered" in problems("storage query", "returns a wrong type", record)


def test_a_cell_in_which_a_listener_saw_a_handoff_that_another_changed_does_not_pass() -> None:
    record = good("hook handoff", "changes its spans", "handoff")
    record["names"].append("spoilt")
    assert "another sink saw" in problems("hook handoff", "changes its spans", record)


def test_a_cell_whose_exit_left_spans_nowhere_does_not_pass() -> None:
    ended = {"closed_at_exit": True, "asked": ["StorageError"] * 7}
    record = good("storage query", "hangs", **ended)
    spans, kept = record["stats"]["spans"], record["stored"].pop()
    record["told"] = record["told"][:1]
    spans.update(stored=1, journaled=1)
    assert problems("storage query", "hangs", record) == "", kept
    spans["journaled"] = 0
    assert "spans: " in problems("storage query", "hangs", record)


def test_objects_that_are_stored_as_something_else_than_their_type_are_found() -> None:
    from faults_objects import _MARKS, _unmarked

    assert _unmarked(json.dumps(_MARKS)) == []
    assert _unmarked(json.dumps({**_MARKS, "Lazy": "consumed"})) == ["Lazy"]


def test_events_that_were_lost_before_they_were_counted_are_found() -> None:
    from faults_overload import _loss_problems

    came = {
        "events": {"received": 20}, "calls": 20, "issued": 10, "foreign": 0, "doubled": 0,
        "flushed": True, "wrongly": 0, "refused": 0, "roots": [1, 1], "errors": [1, 1],
    }  # fmt: skip
    assert list(_loss_problems(came)) == []
    came["events"] = {"received": 19}
    assert list(_loss_problems(came)) == ["19 events received of 20"]
    came |= {"events": {"received": 20}, "foreign": 1}
    assert list(_loss_problems(came)) == ["1 spans are stored that nobody issued"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_program_is_as_its_twin_and_the_spans_are_all_accounted_for() -> None:
    import faults
    from faults_acts import FAULTS
    from faults_parts import PARTS

    rows = list(faults.lab(quick=True))
    print(faults.short_table(rows))
    scenarios = {row.scenario for row in rows}
    for part in PARTS:
        assert any(s.startswith(f"{part} ") for s in scenarios), part
    for fault in FAULTS:
        assert any(s.endswith(f" {fault}") for s in scenarios), fault
    assert [f"{r.scenario}, {r.cell}: {r.detail}" for r in rows if not r.passed] == []
