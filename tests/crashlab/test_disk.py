"""The short subset of the laboratory of files and disks: every row of it must pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["race", "system calls", "faults", "damage"])
def test_nothing_is_lost_doubled_or_unreadable_whatever_happens_to_files_and_disk(
    part: str,
) -> None:
    import disk

    rows = list(disk.PARTS[part](True))
    for row in rows:
        print(row)
    assert rows
    assert [row for row in rows if not row.passed] == []
