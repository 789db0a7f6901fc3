"""Whatever a plugin does, the program is as its unmonitored twin; the short subset of the laboratory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("langgraph")

sys.path.insert(0, str(Path(__file__).parent))


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
