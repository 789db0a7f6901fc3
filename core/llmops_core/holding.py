"""Where calls without a named monitor go: to the default monitor, and until it is open, into memory.

A decorated function may be called before :func:`~llmops_core.initialize_monitoring`, at import even.
Nothing of that is lost: its events wait in a bounded queue, and the monitor that opens takes them.
If none is opened for :data:`OPEN_AFTER_SECONDS`, the default monitor is, on a helper thread; if the
program ends before that, at exit.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from llmops_core.clock import SystemClock
from llmops_core.failures import Failures
from llmops_core.freeze.freezer import Freezer
from llmops_core.intake.queue import HostEvent, IntakeQueue
from llmops_core.intake.recorder import Recorder

__all__ = [
    "OPEN_AFTER_SECONDS",
    "HoldingQueue",
    "default_recorder",
    "hand_over_to",
    "hold",
    "waiting_queue",
]

OPEN_AFTER_SECONDS: Final = 5.0
MAX_EVENTS: Final = 50_000
MAX_BYTES: Final = 64 * 1024 * 1024


class HoldingQueue(IntakeQueue):
    """Keeps events until there is a monitor, then passes on whatever still arrives."""

    def __init__(self) -> None:
        super().__init__(MAX_EVENTS, MAX_BYTES, lambda: None)
        self.idle = False
        #: The queue of the monitor that took over.
        self.target: IntakeQueue | None = None
        self._begun = False

    def put(self, event: HostEvent) -> None:
        """Keep an event, or pass it on if a monitor was opened meanwhile."""
        with self._lock:
            if self.target is None:
                super().put(event)
                begin, self._begun = not self._begun, True
            else:
                begin = False
                self.target.put(event)
        if begin:
            _open_later(self)

    def hand_over(self, target: IntakeQueue) -> None:
        """Move everything to *target*, in order, and send what comes later there too."""
        with self._lock:
            if self.target is not None:
                return
            self._pass_on(target)
            self.target = target
            # What a finalizer or a signal handler of this thread put meanwhile.
            self._pass_on(target)

    def _pass_on(self, target: IntakeQueue) -> None:
        while events := self.take(len(self)):
            for event in events:
                target.put(event)
        while self.dropped:
            reason, count = self.dropped.popitem()
            target.count_dropped(reason, count)


class _Default:
    """The recorder of calls that name no monitor."""

    def __init__(self) -> None:
        self.queue = HoldingQueue()
        self.recorder = _recorder_of(self.queue)
        self.opener: Callable[[], object] | None = None


def _recorder_of(queue: HoldingQueue) -> Recorder:
    return Recorder(queue, Freezer(), SystemClock(), Failures())


_default: Final = _Default()
_lock = threading.RLock()


def default_recorder() -> Recorder:
    """Return the recorder of the monitor that is used where none is named. Cheap; never raises."""
    return _default.recorder


def waiting_queue() -> HoldingQueue | None:
    """Return the queue of what waits for a monitor; None if nothing does."""
    queue = _default.queue
    return queue if queue.target is None and len(queue) else None


def hand_over_to(recorder: Recorder) -> None:
    """Make *recorder* the default one, and give it what was kept."""
    with _lock:
        _default.queue.hand_over(recorder.queue)
        _default.recorder = recorder


def hold(opener: Callable[[], object]) -> None:
    """Set what opens the default monitor, if none is opened in time."""
    _default.opener = opener


def _open_later(queue: HoldingQueue) -> None:
    timer = threading.Timer(OPEN_AFTER_SECONDS, _open_default, (queue,))
    timer.name, timer.daemon = "llmops-open", True
    try:
        timer.start()
    except RuntimeError:  # the interpreter is ending; what is kept is written at exit
        return


def _open_default(queue: HoldingQueue) -> None:
    if queue is not waiting_queue():
        return
    try:
        if _default.opener is not None:
            _default.opener()
    except Exception as error:  # no storage can be opened: the events stay, bounded and counted
        _default.recorder.report("open_default", error)


def _after_fork_in_child() -> None:
    """What the parent keeps is the parent's to store."""
    global _lock
    _lock = threading.RLock()
    queue, _default.queue = _default.queue, HoldingQueue()
    if _default.recorder.queue is queue:
        _default.recorder = _recorder_of(_default.queue)


os.register_at_fork(after_in_child=_after_fork_in_child)
