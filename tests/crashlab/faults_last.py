"""What a cell does last: after the exit handlers of everybody else, ours among them.

Exit handlers run in reverse order, so this is imported before anything of ``llmops_core`` is.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Final

__all__ = ["LAST"]

LAST: Final[list[Callable[[], None]]] = []


@atexit.register
def _run() -> None:
    for act in LAST:
        act()
