"""Cells that are run again, interrupted, and lost with their kernel; a part of the laboratory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("ipykernel")

sys.path.insert(0, str(Path(__file__).parent))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.parametrize(
    "name", ["set-up cell run 20 times", "a cell is interrupted", "the kernel is restarted"]
)
def test_a_notebook_has_each_run_once_whatever_is_done_to_its_cells(name: str) -> None:
    import notebooks

    row = notebooks.row(name)
    print(row.detail)
    assert row.passed, row.detail
