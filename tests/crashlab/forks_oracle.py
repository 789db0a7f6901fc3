"""What the laboratory of forks knows from outside: which spans were recorded, and by which process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from exits import recovered_ids, stored_ids
from forks_worker import SPANS
from rows import Row

__all__ = ["HERE", "environment", "judged", "told"]

HERE: Final = Path(__file__).parent


def environment(oracle: Path, **more: str) -> dict[str, str]:
    """Return the environment of a program that tells *oracle* what it records."""
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "ORACLE": str(oracle), "PYTHONPATH": path, **more}


def told(oracle: Path) -> tuple[set[str], set[str]]:
    """Return the ids of the spans that were recorded, and of the processes that did."""
    text = oracle.read_text() if oracle.exists() else ""
    lines = [line.split() for line in text.splitlines() if line[0] == "i"]
    return {span for words in lines for span in words[2:]}, {words[1] for words in lines}


def left_behind(url: str) -> list[str]:
    """Return the journals that are still there."""
    return sorted(p.name for p in Path(url.partition(":")[2], ".journal").iterdir())


def judged(
    scenario: str,
    cell: str,
    url: str,
    oracle: Path,
    detail: str = "",
    *,
    tasks: int,
    processes: int = 1,
    unanswered: int = 0,
    at_exit: bool = False,
) -> Row:
    """Compare by id what is stored with what was recorded, right away and after a recovery.

    At least so many *tasks* were done by so many *processes*; of the *unanswered* requests nobody
    knows whether they were begun. *at_exit*: nothing may be left to the next start.
    """
    issued, pids = told(oracle)
    stale, at_once = left_behind(url), set(stored_ids(url))
    ids = recovered_ids(url)
    stored = set(ids)
    lost, doubled, strange = issued - stored, len(ids) - len(stored), stored - issued
    text = (
        f"{len(stored & issued)} of {len(issued)} spans, {doubled} doubled, {len(stale)} journals "
        f"left, {len(pids)} processes"
    )
    problems = [f"lost {sorted(lost)[:3]}"] if lost else []
    if len(issued) < SPANS * tasks or len(pids) < processes:
        problems.append(f"expected {SPANS * tasks} spans by {processes} processes")
    if len(strange) > SPANS * unanswered:
        problems.append(f"{len(strange)} that nobody recorded")
    if left_behind(url):
        problems.append(f"after the next start there are {left_behind(url)}")
    if at_exit and (stale or issued - at_once):
        problems.append(f"{len(issued - at_once)} not stored at exit")
    whole = not problems and not doubled
    return Row("forks", scenario, cell, whole, "; ".join([f"{text}{detail}", *problems]))
