"""Whatever a plugin does, a crew is as its unmonitored twin; a few cells of the laboratory's matrix."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("crewai")

sys.path.append(str(Path(__file__).parents[2] / "crashlab"))

#: Each sort of fault once, each way to call a crew, and each sink.
CELLS = (
    ("collector", "raises CancelledError", "async"),
    ("exporter", "hangs", "thread"),
    ("storage write", "raises SystemExit", "sync"),
    ("hook spans_stored", "changes its spans", "stream"),
    ("collector", "returns a wrong type", "sync"),
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_crew_is_as_its_twin_and_its_spans_are_all_accounted_for() -> None:
    import faults_matrix

    cells = [
        {"part": part, "fault": fault, "framework": "crewai", "way": way}
        for part, fault, way in CELLS
    ]
    rows = list(faults_matrix.run_cells(cells))
    ways = {way for _, _, way in CELLS}  # each of which has a row in which everybody is healthy
    assert len(rows) == len(CELLS) + len(ways)
    assert [f"{r.scenario}, {r.cell}: {r.detail}" for r in rows if not r.passed] == []
