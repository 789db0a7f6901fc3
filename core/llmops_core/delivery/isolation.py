"""Which code is ours, and a thread that several plugins share until one of them keeps it."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from llmops_core.delivery.lane import Lane
from llmops_core.failures import Failures
from llmops_core.worker import Worker

__all__ = ["CUT_OFF_AFTER", "DEADLINE_SECONDS", "LATE_SECONDS", "SharedLane", "is_ours"]

T = TypeVar("T")

#: Failures in a row after which a plugin is switched off.
CUT_OFF_AFTER: Final = 5
#: A plugin that does not return for so long is switched off at once.
DEADLINE_SECONDS: Final = 10.0
#: After so long without an answer the others go on without it.
LATE_SECONDS: Final = 0.5


def is_ours(part: object) -> bool:
    """Whether a part comes with the core: its code is known to return, and to change nothing."""
    part = getattr(part, "opened_later", part)
    return type(part).__module__.partition(".")[0] == "llmops_core"


class SharedLane:
    """A lane for the plugins of one sort. One that hangs keeps the thread; the others get a new one.

    ``late`` holds who has not returned, and since when. It is called again once it has returned.
    """

    def __init__(self, name: str, failures: Failures) -> None:
        self._name = name
        self._left_behind = failures.left_behind(name)
        self._lane = Lane(name, self._left_behind)
        self.late: dict[str, float] = {}

    @property
    def worker(self) -> Worker:
        """The thread that is in use now."""
        return self._lane.worker

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the lane."""
        return self._lane.submit(work)

    def leave(self, plugin: str, call: Future[Any] | None = None) -> None:
        """Leave the thread to a plugin that does not return; it may come back when *call* is done.

        Raises ``RuntimeError`` where no thread can be started; then everything is as before, and the
        next look tries again.
        """
        left, self._lane = self._lane, Lane(self._name, self._left_behind)
        self.late[plugin] = time.monotonic()
        if call is not None:
            call.add_done_callback(lambda _: self.late.pop(plugin, None))
        left.stop()

    def overdue(self) -> list[str]:
        """Return those that are late past the deadline."""
        now = time.monotonic()
        left = DEADLINE_SECONDS - LATE_SECONDS
        return [name for name, since in list(self.late.items()) if now - since >= left]

    def stop(self) -> None:
        """End the thread. Does not wait."""
        self._lane.stop()
