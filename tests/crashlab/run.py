"""Run every laboratory, or some, and print the whole table::

python tests/crashlab/run.py                 # all of it; long
python tests/crashlab/run.py --quick         # the subset that runs with the tests
python tests/crashlab/run.py --only exits --only disk
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from rows import Lab, Row, summary, table

#: Name → module beside this file that has a function ``lab(quick)``.
LABS: Final = {
    "disk": "disk",
    "exits": "exits",
    "faults": "faults",
    "forks": "forks",
    "kills": "kill",
    "notebooks": "notebooks",
    "outages": "outages",
}


def load(name: str) -> Lab:
    """Import one laboratory."""
    lab: Lab = importlib.import_module(LABS[name]).lab
    return lab


def short(name: str, rows: Sequence[Row]) -> str:
    """Return a laboratory's rows as the table that the pages quote, where it has one."""
    make = getattr(importlib.import_module(LABS[name]), "short_table", None)
    return f"\n{make(rows)}\n" if make else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit 1 if a cell failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=list(LABS), action="append")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for name in options.only or LABS:
        began = time.monotonic()
        for row in load(name)(options.quick):
            print(table([row]), flush=True)
            rows.append(row)
        print(short(name, [row for row in rows if row.lab == name]))
        print(f"-- {name}: {time.monotonic() - began:.0f} s", flush=True)
    print()
    print(summary(rows))
    return int(not all(row.passed for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
