"""Whatever a plugin does, the program is as its unmonitored twin; the short subset of the laboratory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("langgraph")

sys.path.insert(0, str(Path(__file__).parent))
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_page_counts_the_matrix_as_it_is_and_names_what_is_a_limit() -> None:
    from faults_acts import FAULTS
    from faults_hosts import FRAMEWORKS, WAYS
    from faults_parts import PARTS

    from llmops_core.delivery import isolation, storing
    from llmops_core.intake import room

    page = " ".join(PAGE.read_text().split())
    assert f"each of {len(PARTS)} parts" in page
    assert f"each of {len(FAULTS)} faults" in page
    raising = sum(fault.sort == "raises" for fault in FAULTS.values())
    assert raising == 8
    assert "eight ways to raise" in page
    cells = len(PARTS) * len(FAULTS) * len(FRAMEWORKS) * len(WAYS)
    told = PAGE.read_text().partition("<!-- faults -->")[2].partition("<!-- /faults -->")[0]
    assert f"{cells:,} cells" in told
    limits = PAGE.read_text().partition("## Limits")[2]
    assert [f.name for f in FAULTS.values() if f.limit] == [
        "closes stdout", "changes directory and locale",
    ]  # fmt: skip
    assert "a closed stdout, another directory or locale" in " ".join(limits.split())
    assert (isolation.LATE_SECONDS, isolation.DEADLINE_SECONDS) == (0.5, 10)
    assert (storing.SLOW_SECONDS, room.STANDSTILL_SECONDS) == (10, 1)


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
