"""The open runs of one handler: who is whose parent, and what a run was at its start.

Ends carry neither metadata nor, mostly, a name, and children of a run that is not stored belong to
that run's parent; so a handler must remember its open runs. A cancelled model, tool or retriever
never ends, so the table is bounded: past :data:`MAX_RUNS` the oldest run is forgotten.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_RUNS", "OpenRuns", "Run"]

MAX_RUNS: Final = 20_000


class Run:
    """One open run. ``kind`` None: it is not stored, and its children get its ``parent``."""

    __slots__ = (
        "facts",
        "given_parent",
        "interrupted",
        "kind",
        "model_known",
        "name",
        "parent",
        "streamed",
    )

    def __init__(
        self,
        kind: str | None,
        name: str,
        parent: int | None,
        given_parent: int | None,
        facts: int = 0,
    ) -> None:
        self.kind = kind
        self.name = name
        self.parent = parent
        self.given_parent = given_parent
        self.facts = facts
        self.interrupted = False
        self.model_known = False
        self.streamed = False


class OpenRuns:
    """Runs by id. Safe from any thread: each step is one atomic operation of a dict."""

    def __init__(self, limit: int = MAX_RUNS) -> None:
        self._runs: dict[int, Run] = {}
        self._limit = limit
        self.get = self._runs.get

    def __len__(self) -> int:
        return len(self._runs)

    def open(self, run_id: int, run: Run) -> None:
        """Remember a run; forget the oldest if there are too many."""
        runs = self._runs
        runs[run_id] = run
        while len(runs) > self._limit:
            try:
                runs.pop(next(iter(runs)), None)
            except (RuntimeError, StopIteration):  # another thread was here first
                return

    def close(self, run_id: int) -> Run | None:
        """Forget a run that ends, and return what was known of it."""
        return self._runs.pop(run_id, None)
