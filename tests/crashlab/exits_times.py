"""How long an exit takes beside an unmonitored twin's, with a storage that works and one that does not.

The time is measured from outside, from right before the program leaves until its process is gone.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from exits import End, p95, recovered_ids, run
from rows import Row

__all__ = ["DEAD", "DEAD_MS", "HEALTHY_MS", "exit_times", "lab"]

#: What an exit may take more than the twin's, at the median.
HEALTHY_MS: Final = 150.0
DEAD_MS: Final = 2250.0
DEAD: Final = ("refuses", "blocks", "waits")


@dataclass(frozen=True)
class Packages:
    """What is installed beside ours, and what the program and its twin import themselves."""

    name: str
    hidden: str = ""
    imported: str = ""


#: Neither of them is needed by ours. pyarrow imports them where they are installed, and Python lets
#: go of every module at exit: in a program that uses them the twin pays for that too.
BASE: Final = Packages("", hidden="pandas,numpy")
USED: Final = Packages(", pandas in use", imported="pandas")
INSTALLED: Final = Packages(", pandas installed only")


def pair(python: str, mode: str, url: str, packages: Packages, number: int) -> tuple[End, End]:
    """Run the twin and the program, each first in turn."""
    environment = {"HIDDEN": packages.hidden, "IMPORTED": packages.imported}
    modes = ("TWIN", mode) if number % 2 == 0 else (mode, "TWIN")
    ends = {m: run(python, "return", m, url, environment=environment) for m in modes}
    return ends["TWIN"], ends[mode]


def exit_times(
    python: str,
    version: str,
    mode: str,
    repeats: int,
    limit_ms: float,
    packages: Packages = BASE,
) -> Row:
    """Compare the time to exit with the twin's: judged is the median of the pairs' differences.

    With a storage that is dead the fault must have been met, and the next start must store all.
    """
    pairs, problems = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            url = f"parquet:{folder}/{number}"
            twin, end = pair(python, mode, url, packages, number)
            pairs.append((twin, end))
            problems += problems_of(mode, twin, end, recovered_ids(url))
    wall = [end.took_ms - twin.took_ms for twin, end in pairs]
    cpu = statistics.median(end.cpu_ms - twin.cpu_ms for twin, end in pairs)
    median = statistics.median(wall)
    limit = f"limit {limit_ms:.0f}" if limit_ms < math.inf else "no limit"
    detail = (
        f"{repeats} exits take {median:.0f} ms more than the twin's at the median ({limit}), "
        f"{min(wall):.0f} at best, {p95(wall):.0f} at p95; {cpu:.0f} ms of processor time; load "
        f"{os.getloadavg()[0]:.1f}"
    )
    if mode != "MONITORED":
        detail += f"; {repeats} times met, {3 * repeats} spans stored by the next start"
    name = "healthy" if mode == "MONITORED" else mode
    text = f"{detail}; {'; '.join(problems[:3])}" if problems else detail
    passed = median <= limit_ms and not problems
    return Row("exits", f"time, storage {name}{packages.name}", version, passed, text)


def problems_of(mode: str, twin: End, end: End, ids: Sequence[str]) -> list[str]:
    """Say what was wrong with one exit, but for its time."""
    problems = []
    if (end.code, end.stdout) != (twin.code, twin.stdout):
        problems.append(f"code {end.code}, the twin {twin.code}: {end.stderr[-300:]}")
    if len(end.issued) != 3 or sorted(ids) != sorted(end.issued):
        problems.append(f"recorded {sorted(end.issued)}, after the next start {sorted(ids)}")
    if mode != "MONITORED" and not end.faults:
        problems.append("the fault did not happen: nothing was written to the dead storage")
    return problems


def lab(python: str, version: str, *, short: bool, whole: bool) -> Iterator[Row]:
    """Yield the rows of one interpreter; *whole* where pandas is installed and time may be taken."""
    repeats = 5 if short else 40
    yield exit_times(python, version, "MONITORED", repeats, HEALTHY_MS)
    if whole:
        yield exit_times(python, version, "MONITORED", repeats, HEALTHY_MS, USED)
        # No limit of ours: more than half of it is pandas, which the twin does not import.
        yield exit_times(python, version, "MONITORED", repeats // 2, math.inf, INSTALLED)
    for mode in DEAD[1:2] if short else DEAD:
        many = (40 if mode == "blocks" else 10) if whole else 5  # each takes two seconds
        yield exit_times(python, version, mode, 2 if short else many, DEAD_MS)
