"""A thread of ours that goes on whatever happens to it, and somebody who looks after all of them.

A worker that is thrown out of its work, by a defect or by an exception that somebody sends it, begins
anew on the same thread. One whose thread is gone all the same gets a new one within a second or two.
One that is stuck cannot be helped from outside: Python ends no thread, and two of one kind would write
everything twice; it is told.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from llmops_core import running

__all__ = ["Watchdog", "Worker"]

#: How often the watchdog looks, and how many looks a worker may stand still.
WATCH_SECONDS: Final = 1.0
STUCK_LOOKS: Final = 10
#: The pause after work that failed: a defect that repeats must not take a whole core.
PAUSE_SECONDS: Final = 0.02


class Worker:
    """A daemon thread that calls *work* again and again, until that returns True.

    *failed* is told what work was thrown out with, on the worker's thread.
    """

    def __init__(
        self, name: str, work: Callable[[], bool], failed: Callable[[BaseException], None]
    ) -> None:
        self.name = name
        self.restarts = 0
        self.done = False
        #: Grows with each piece of work; None for one that waits inside of its work.
        self.beat: int | None = 0
        self._work = work
        self._failed = failed
        self._thread: threading.Thread | None = None
        self._reviving = threading.Lock()
        #: Not alive yet, but not gone either: the watchdog may look just then.
        self._starting = False

    def start(self) -> None:
        """Start the thread. Raises ``RuntimeError`` where none can be started."""
        self._starting = True
        try:
            # Known before it runs: whoever is interrupted while it starts must not start a second.
            self._thread = threading.Thread(
                target=self._run, name=f"llmops-{self.name}", daemon=True
            )
            self._thread.start()
        finally:
            self._starting = False

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def moves(self) -> None:
        """Say that a long piece of work goes on. Called on the worker's thread, in the middle of it."""
        if self.beat is not None:
            self.beat += 1

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, at most *timeout* seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def revive(self) -> bool:
        """Start a new thread if this one is gone before its time; say whether that was so."""
        if self.done or self._starting or self._thread is None or self._thread.is_alive():
            return False
        if not self._reviving.acquire(blocking=False):
            return False  # somebody else is at it
        try:
            self.start()
        except RuntimeError:  # no thread can be started now; the next look tries again
            return False
        finally:
            self._reviving.release()
        self.restarts += 1
        return True

    def _run(self) -> None:
        me = threading.current_thread()
        # Two loops: a second exception, while the first one is dealt with, comes out of the inner.
        while not self.done and self._thread is me:  # there is one thread at a time
            with contextlib.suppress(BaseException):
                self._go_on(me)

    def _go_on(self, me: threading.Thread) -> None:
        while not self.done and self._thread is me:
            try:
                self.done = self._work()
                self.moves()
            except BaseException as error:  # SystemExit too: whoever sent it did not mean us
                self.restarts += 1
                self._failed(error)
                time.sleep(PAUSE_SECONDS)


class Watchdog:
    """Looks once a second whether all workers are there. *workers* names them anew at each look.

    It is a worker itself; the intake thread and every flush see to it that it lives.
    """

    def __init__(
        self,
        workers: Callable[[], Iterable[Worker]],
        report: Callable[[str, str, BaseException], None],
    ) -> None:
        self._workers = workers
        self._report = report
        self._stop = threading.Event()
        self._still: dict[str, tuple[int | None, int]] = {}
        self._restarts: dict[str, int] = {}
        self.worker = Worker("watch", self._look_and_wait, lambda e: report("watch", "look", e))

    def start(self) -> None:
        """Start the thread."""
        self.worker.start()

    def stop(self) -> None:
        """End the thread. Does not wait."""
        self.worker.done = True
        self._stop.set()

    def look(self) -> None:
        """Give a new thread to each worker that lost its own; note who stands still.

        Called in time with the clock, by the watchdog's own thread alone: it counts.
        """
        self.revive()
        for worker in self._workers():
            self._watch(worker)

    def revive(self) -> None:
        """Give a new thread to each worker that lost its own. As often as anybody likes."""
        running.look()
        self.worker.revive()
        for worker in self._workers():
            if worker.revive():
                self._report(worker.name, "stopped", RuntimeError("its thread was gone"))

    def stats(self) -> dict[str, Any]:
        """Return for each worker whether it lives, how often it began anew, and if it is stuck."""
        return {
            worker.name: {
                "alive": worker.is_alive(),
                "restarts": worker.restarts,
                "stuck": self._still.get(worker.name, (None, 0))[1] >= STUCK_LOOKS,
            }
            for worker in (self.worker, *self._workers())
        }

    def _look_and_wait(self) -> bool:
        self.look()
        return self._stop.wait(WATCH_SECONDS)

    def _watch(self, worker: Worker) -> None:
        # Looks are counted, not seconds: a process that was stopped and goes on is not stuck.
        beat, looks = self._still.get(worker.name, (None, 0))
        looks = looks + 1 if worker.beat is not None and worker.beat == beat else 0
        self._still[worker.name] = (worker.beat, looks)
        if looks == STUCK_LOOKS:
            self._report(
                worker.name, "stuck", TimeoutError(f"no step in {STUCK_LOOKS * WATCH_SECONDS} s")
            )
