"""What every laboratory reports: one row for each cell of its matrix, printed as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Lab", "Row", "summary", "table"]


@dataclass(frozen=True)
class Row:
    """One cell: what was done, whether the program and the spans came out as they should."""

    lab: str
    #: What is shown, in a word or two: ``collector hangs``.
    scenario: str
    #: Where: ``langgraph async``, ``3.12 SIGTERM``.
    cell: str
    passed: bool
    #: Figures, or what went wrong.
    detail: str = ""


#: A laboratory: called with whether to run the short subset, yields its rows as they come.
Lab = Callable[[bool], Iterable[Row]]


def table(rows: Iterable[Row]) -> str:
    """Return the rows as text, one line each."""
    rows = list(rows)
    wide = [max((len(getattr(r, n)) for r in rows), default=0) for n in ("lab", "scenario", "cell")]
    return "\n".join(
        f"{'ok  ' if r.passed else 'FAIL'} {r.lab:{wide[0]}}  {r.scenario:{wide[1]}}  "
        f"{r.cell:{wide[2]}}  {r.detail}".rstrip()
        for r in rows
    )


def summary(rows: Iterable[Row]) -> str:
    """Return one line for each laboratory: cells, and how many of them passed."""
    counts: dict[str, list[int]] = {}
    for row in rows:
        count = counts.setdefault(row.lab, [0, 0])
        count[0] += 1
        count[1] += row.passed
    return "\n".join(f"{lab}: {passed} of {n} cells" for lab, (n, passed) in counts.items())
