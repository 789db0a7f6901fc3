"""One worker for each exporter: its own thread, its own bounded queue, its own deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from threading import Lock
from typing import Any, Final

from llmops_core.batch import SpanBatch
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.isolation import CUT_OFF_AFTER, is_ours
from llmops_core.delivery.lane import Lane
from llmops_core.failures import Failures
from llmops_core.protocols import Exporter
from llmops_core.running import running_seconds
from llmops_core.worker import Worker

__all__ = ["ExportWorker"]

#: A call that takes longer is cancelled, and has failed.
DEADLINE_SECONDS: Final = 10.0
#: One that is cancelled and does not end, as it blocks its thread, is its exporter's last.
CANCEL_SECONDS: Final = 0.5
MAX_QUEUED_SPANS: Final = 20_000


class _Call:
    """A call of ``export``: when it began, and what ends it."""

    __slots__ = ("began", "looked", "timeout", "waited")

    def __init__(self, began: float, timeout: asyncio.Timeout) -> None:
        self.began = began
        self.timeout = timeout
        #: Since it was cancelled: the last look, and for how long it was seen to go on.
        self.looked: float | None = None
        self.waited = 0.0


class ExportWorker:
    """Feeds one exporter. ``offer`` is called on the delivery thread and never waits."""

    def __init__(self, name: str, exporter: Exporter, failures: Failures) -> None:
        self.name = name
        self.exported = 0
        self.failed = 0
        self.dropped = 0
        self.cut_off = False
        self._exporter = exporter
        self._ours = is_ours(exporter)
        self._failures = failures
        self._items: deque[SpanBatch | FlushMark] = deque()
        self._queued = 0
        self._lock = Lock()
        self._in_a_row = 0
        self._call: _Call | None = None
        self._running = False
        self._lane = Lane(f"exporter-{name}", failures.left_behind(name))

    @property
    def worker(self) -> Worker:
        """The thread to look after."""
        return self._lane.worker

    @property
    def queued(self) -> int:
        """Spans that wait for this exporter."""
        return self._queued

    def stats(self) -> dict[str, Any]:
        """Return this exporter's own ledger."""
        return {
            "exported": self.exported,
            "failed": self.failed,
            "dropped": self.dropped,
            "queued": self._queued,
            "cut_off": self.cut_off,
        }

    def offer(self, item: SpanBatch | FlushMark) -> None:
        """Queue a batch or a flush mark; a batch beyond the bound is dropped and counted."""
        with self._lock:
            if isinstance(item, SpanBatch):
                if self.cut_off or self._queued + len(item) > MAX_QUEUED_SPANS:
                    self.dropped += len(item)
                    return
                self._queued += len(item)
            elif self.cut_off:
                item.done(self.name)
                return
            self._items.append(item)
        self._start()

    def watch(self) -> None:
        """Cancel a call past its deadline; cut off an exporter that goes on all the same.

        Called now and then on the delivery thread.
        """
        call, now = self._call, running_seconds()
        if call is None or now - call.began < DEADLINE_SECONDS:
            return
        if call.looked is None:
            call.looked = now
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._lane.loop.call_soon_threadsafe(self._cancel, call)
            return
        # In parts: after a stop of the process it has had no time to end yet, whatever the clock says.
        call.waited += min(now - call.looked, CANCEL_SECONDS / 2)
        call.looked = now
        if call.waited >= CANCEL_SECONDS:
            self._cut_off("export", TimeoutError(f"no answer in {DEADLINE_SECONDS:g} s"))

    def _cancel(self, call: _Call) -> None:
        if self._call is call:
            call.timeout.reschedule(self._lane.loop.time())

    def start_closing(self) -> tuple[str, Callable[[float], bool]]:
        """Start to close the exporter; return its name, and how to wait for it to be closed."""
        closing = None if self.cut_off else self._lane.run(self._exporter.close)

        def closed(timeout: float) -> bool:
            try:
                if closing is not None:
                    closing.result(timeout)
            except (Exception, CancelledError) as error:
                self._failures.report(self.name, "close", error)
                return not isinstance(error, TimeoutError)
            return True

        return self.name, closed

    def stop(self) -> None:
        """End the exporter's thread."""
        self._lane.stop()

    def _start(self) -> None:
        with self._lock:
            if self._running or not self._items:
                return
            self._running = True
        self._lane.submit(self._drain())

    async def _drain(self) -> None:
        try:
            while (item := self._take()) is not None:
                if isinstance(item, FlushMark):
                    item.done(self.name)
                else:
                    await self._export(item)
        except BaseException:
            # The end of the loop comes here, and what somebody throws into its thread.
            with self._lock:
                self._running = False
            self._start()
            raise

    def _take(self) -> SpanBatch | FlushMark | None:
        with self._lock:
            if not self._items or self.cut_off:
                self._running = False
                return None
            return self._items.popleft()

    async def _export(self, batch: SpanBatch) -> None:
        try:
            # Not wait_for: before 3.12 it makes a task, and a SystemExit that leaves a task also
            # leaves the loop. No deadline yet: the loop's clock goes on while the process is stopped.
            async with asyncio.timeout(None) as timeout:
                self._call = _Call(running_seconds(), timeout)
                await self._exporter.export(batch if self._ours else batch.copied())
        except BaseException as error:  # a plugin's sys.exit must not end the lane
            if self._leave(batch):
                self.failed += len(batch)
                self._failed(error)
        else:
            if self._leave(batch):
                self._in_a_row = 0
                self.exported += len(batch)

    def _leave(self, batch: SpanBatch) -> bool:
        """Take a batch out of the queue's count; False if it was counted as dropped meanwhile."""
        self._call = None
        with self._lock:
            if self.cut_off:
                return False
            self._queued -= len(batch)
            return True

    def _failed(self, error: BaseException) -> None:
        self._failures.report(self.name, "export", error)
        self._in_a_row += 1
        if self._in_a_row >= CUT_OFF_AFTER:
            self._cut_off("export", error, report=False)

    def _cut_off(self, where: str, error: BaseException, *, report: bool = True) -> None:
        if report:
            self._failures.report(self.name, where, error)
        with self._lock:
            if self.cut_off:
                return
            self.cut_off = True
            marks = [i for i in self._items if isinstance(i, FlushMark)]
            self.dropped += self._queued
            self._queued = 0
            self._items.clear()
        for mark in marks:
            mark.done(self.name)
