"""Faults of plugins, hostile objects, wrong set-ups and overload: does the program notice, is it told?

Run it with ``python tests/crashlab/run.py --only faults``. A new part is registered in
``faults_parts.py``, a new fault in ``faults_acts.py``, a new framework or way to call it in
``faults_hosts.py``; the matrix has its rows by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from faults_acts import FAULTS
from faults_analysis import analyses
from faults_hosts import installed
from faults_hung import hung
from faults_matrix import matrix
from faults_objects import objects
from faults_overload import overload
from faults_parts import PARTS
from faults_setup import setup
from rows import Row

__all__ = ["lab", "short_table"]


def lab(quick: bool) -> Iterator[Row]:
    """Yield the rows of every section."""
    # The other sections are programs of LangGraph's.
    others = (analyses, hung, objects, setup, overload) if "langgraph" in installed() else ()
    for section in (matrix, *others):
        yield from section(quick)


def short_table(rows: Iterable[Row]) -> str:
    """Return the matrix with a line for each part, and each other row as it is."""
    cells: dict[str, list[Row]] = {name: [] for name in PARTS}
    others = []
    for row in rows:
        part = next((p for p in _longest(PARTS) if row.scenario.startswith(f"{p} ")), None)
        fault = row.scenario[len(part) + 1 :] if part else ""
        if part and fault in FAULTS:
            cells[part].append(row)
        else:
            others.append(f"| {row.scenario}, {row.cell} | {row.detail} |")
    lines = ["| part | cells | passed | of them with a limit |", "|---|---|---|---|"]
    for part, found in cells.items():
        passed, limits = sum(r.passed for r in found), sum("LIMIT" in r.detail for r in found)
        lines.append(f"| {part} | {len(found)} | {passed} | {limits} |")
    return "\n".join([*lines, "", "| what | figures |", "|---|---|", *others])


def _longest(names: Iterable[str]) -> list[str]:
    return sorted(names, key=len, reverse=True)
