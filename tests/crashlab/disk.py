"""The folder and the disk: full, gone, damaged, or shared by many, while something is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

import disk_damage
import disk_faults
import disk_race
import disk_syscalls
from rows import Row

PARTS: Final = {
    "race": disk_race.rows,
    "system calls": disk_syscalls.rows,
    "faults": disk_faults.rows,
    "damage": disk_damage.rows,
}


def lab(quick: bool) -> Iterator[Row]:
    """Yield the rows of every part."""
    for part in PARTS.values():
        yield from part(quick)
