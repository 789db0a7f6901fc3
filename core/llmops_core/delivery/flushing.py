"""A flush on its way through the stages, and what came of it."""

from __future__ import annotations

from threading import Condition
from typing import Any

import msgspec

__all__ = ["FlushMark", "FlushReport", "report_of"]


class FlushReport(msgspec.Struct, frozen=True):
    """What a flush or a close achieved by its deadline.

    ``complete``: everything that was recorded before the call is stored and exported. Otherwise
    ``waiting`` names the stages that had not answered; ``queued`` events and spans are in memory
    only, ``journaled`` spans are safe on disk and are stored later, also by the next start.
    ``dropped`` is by reason, since the monitor was opened.
    """

    complete: bool
    waiting: tuple[str, ...]
    queued: int
    journaled: int
    dropped: dict[str, int]


def report_of(stats: dict[str, Any], waiting: tuple[str, ...], *, closed: bool) -> FlushReport:
    """Return the report of a monitor's ledgers, and of the stages that had not answered."""
    events, spans = stats["events"], stats["spans"]
    dropped = dict(spans["dropped"])
    for reason, count in events["dropped"].items():
        dropped[reason] = dropped.get(reason, 0) + count
    queued, journaled = events["queued"] + spans["queued"], spans["journaled"]
    left = closed and (queued or journaled)
    return FlushReport(
        complete=not waiting and not left,
        waiting=waiting,
        queued=queued,
        journaled=journaled,
        dropped=dropped,
    )


class FlushMark:
    """Travels behind the data. Each stage at the end of a way says when it has passed."""

    def __init__(self, stages: set[str], *, closing: bool = False) -> None:
        self.closing = closing
        self._waiting = set(stages)
        self._changed = Condition()

    def done(self, stage: str) -> None:
        """Say that everything before the mark is done with at a stage. Called on its thread."""
        with self._changed:
            self._waiting.discard(stage)
            self._changed.notify_all()

    def wait(self, timeout: float) -> tuple[str, ...]:
        """Wait until every stage has passed, at most *timeout* seconds; return who has not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout)
            return tuple(sorted(self._waiting))
