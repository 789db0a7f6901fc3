"""A flush on its way through the stages, and what came of it."""

from __future__ import annotations

from threading import Condition

import msgspec

__all__ = ["FlushMark", "FlushReport"]


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
