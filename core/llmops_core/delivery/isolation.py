"""Which code is ours, and a thread that several plugins share until one of them keeps it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import RLock
from typing import Any, Final, Generic, TypeVar

from llmops_core.delivery.lane import Lane, as_ordinary
from llmops_core.failures import Failures
from llmops_core.running import running_seconds
from llmops_core.worker import Worker

__all__ = [
    "CUT_OFF_AFTER",
    "DEADLINE_SECONDS",
    "LATE_SECONDS",
    "NoTurnError",
    "SharedLane",
    "Turn",
    "blocked_error",
    "is_ours",
]

T = TypeVar("T")

#: Failures in a row after which a plugin is switched off.
CUT_OFF_AFTER: Final = 5
#: A plugin that does not return for so long is switched off at once.
DEADLINE_SECONDS: Final = 10.0
#: After so long without an answer the others go on without it.
LATE_SECONDS: Final = 0.5
#: A thread that nobody's call has and that does not answer for so long is replaced.
BLOCKED_SECONDS: Final = 10.0


def is_ours(part: object) -> bool:
    """Whether a part comes with the core: its code is known to return, and to change nothing."""
    part = getattr(part, "opened_later", part)
    return type(part).__module__.partition(".")[0] == "llmops_core"


def blocked_error() -> TimeoutError:
    """Return what is told of a thread that something blocked which nobody had called."""
    return TimeoutError(f"blocked for {BLOCKED_SECONDS:g} s by what a plugin left behind")


class NoTurnError(Exception):
    """A call was given up before it began: another had the thread, or its plugin has not returned."""


class Turn(Generic[T]):
    """A call that has the thread, or waits for it."""

    def __init__(self, plugin: str, function: Callable[[], T]) -> None:
        self.plugin = plugin
        self.function = function
        self.done: Future[T] = Future()
        #: When it got the thread; 0 while it waits.
        self.began = 0.0

    def run(self) -> None:
        """Call the function; what it raises arrives in ``done``."""
        try:
            result = self.function()
        except BaseException as error:  # a plugin's sys.exit must not end the lane
            self.done.set_exception(as_ordinary(error))
        else:
            self.done.set_result(result)


class SharedLane:
    """A lane for the plugins of one sort. One that hangs keeps the thread; the others get a new one.

    ``late`` holds who has not returned, and since when. It is called again once it has returned.
    """

    def __init__(self, name: str, failures: Failures) -> None:
        self._name = name
        self._left_behind = failures.left_behind(name)
        self._lane = Lane(name, self._left_behind)
        self.late: dict[str, float] = {}
        self._lock = RLock()
        self._turns: deque[Turn[Any]] = deque()
        self._holder: Turn[Any] | None = None
        self._stopped = False

    @property
    def worker(self) -> Worker:
        """The thread that is in use now."""
        return self._lane.worker

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the lane."""
        return self._lane.submit(work)

    def call(self, plugin: str, function: Callable[[], T]) -> Turn[T]:
        """Let a plugin's function have the thread when its turn comes, on this lane or the next."""
        turn = Turn(plugin, function)
        with self._lock:
            if self._stopped:
                turn.done.cancel()
                return turn
            if plugin in self.late:  # one call at a time: it is still in its last one
                turn.done.set_exception(NoTurnError(plugin))
                return turn
            self._turns.append(turn)
            self._lane.submit(self._next(self._lane))
        return turn

    async def _next(self, lane: Lane) -> None:
        with self._lock:
            if lane is not self._lane or not self._turns:
                return
            self._holder = turn = self._turns.popleft()
            turn.began = running_seconds()
        turn.run()
        with self._lock:
            if self._holder is turn:
                self._holder = None

    def withdraw(self, turn: Turn[Any]) -> bool:
        """Give up a call that has not begun; say whether that was so."""
        with self._lock:
            if turn.began:
                return False
            with contextlib.suppress(ValueError):  # the lane was stopped meanwhile
                self._turns.remove(turn)
            return True

    def leave_after(self, seconds: float) -> None:
        """Leave the thread to a call that has had it for so long, if there is one."""
        with self._lock:
            holder = self._holder
            if holder is not None and running_seconds() - holder.began > seconds:
                self.leave(holder.plugin, holder)

    def leave_blocked(self) -> bool:
        """Leave a thread that nobody's call has and that does not answer; say whether that was so.

        A plugin may leave a task behind on its loop, and that may block. To be asked now and then
        while nothing that was called is running.
        """
        with self._lock:
            silent = self._lane.silent_seconds()
            if self._holder is not None or self._stopped or silent < BLOCKED_SECONDS:
                return False
            self._begin_anew()
            return True

    def leave(self, plugin: str, turn: Turn[Any] | None = None) -> None:
        """Leave the thread to a plugin that does not return; it may come back when *turn* is done.

        The calls of others that wait for their turn get it on the new thread.

        Raises ``RuntimeError`` where no thread can be started; then everything is as before, and the
        next look tries again.
        """
        with self._lock:
            if turn is not None and (turn.done.done() or turn is not self._holder):
                return  # it has just returned, or was left already
            if not self._stopped:  # nobody would end a new thread
                self._begin_anew()
            self._holder = None
            self.late[plugin] = running_seconds()
            if turn is not None:
                turn.done.add_done_callback(lambda _: self.late.pop(plugin, None))
            mine = [waiting for waiting in self._turns if waiting.plugin == plugin]
            for waiting in mine:
                self._turns.remove(waiting)
        for waiting in mine:  # one call at a time: it is still in its last one
            waiting.done.set_exception(NoTurnError(plugin))

    def _begin_anew(self) -> None:
        """Go on on a new thread, with the calls that wait. With the lock held."""
        left, self._lane = self._lane, Lane(self._name, self._left_behind)
        left.stop()
        for _ in self._turns:
            self._lane.submit(self._next(self._lane))

    def overdue(self) -> list[str]:
        """Return those that are late past the deadline."""
        now = running_seconds()
        left = DEADLINE_SECONDS - LATE_SECONDS
        return [name for name, since in list(self.late.items()) if now - since >= left]

    def stop(self) -> None:
        """End the thread. Does not wait."""
        with self._lock:
            self._stopped = True
            waiting, self._turns = list(self._turns), deque()
            self._lane.stop()
        for turn in waiting:  # nobody may wait for what will never run
            turn.done.cancel()
