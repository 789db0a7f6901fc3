"""The moving parts of one monitor in one process, put together: queue, intake, delivery, sinks.

A forked child gets a new one: threads, locks, the journal and the queue of its parent are not its.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, Final

from llmops_core.batch import SpanBatch
from llmops_core.clock import Clock
from llmops_core.config import Settings
from llmops_core.delivery.collecting import Collecting
from llmops_core.delivery.compacting import IdleCompaction
from llmops_core.delivery.exporting import ExportWorker
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.lane import Lane
from llmops_core.delivery.notifying import Notifier
from llmops_core.delivery.opening import OpenedLater
from llmops_core.delivery.storing import STAGE, StoreWorker
from llmops_core.delivery.thread import WATCH_SECONDS, Delivery
from llmops_core.errors import RetryableError, StorageError
from llmops_core.failures import Failures
from llmops_core.intake.queue import IntakeQueue
from llmops_core.intake.thread import INTAKE_STAGE, Intake
from llmops_core.intake.tracer import Tracer
from llmops_core.journal.quarantine import Quarantine
from llmops_core.journal.recovery import RecoveryReport, recover
from llmops_core.journal.state import encode_state, trouble_of
from llmops_core.journal.writer import new_writer_id
from llmops_core.ledgers import stats_of
from llmops_core.materials import (
    batching_of,
    journal_root_of,
    make_finisher,
    new_queue,
    open_journal,
)
from llmops_core.protocols import Collector, Exporter, Storage
from llmops_core.query import SpanQuery
from llmops_core.worker import Watchdog, Worker

__all__ = ["OPEN_SECONDS", "Pipeline"]

#: How long a storage may take to open.
OPEN_SECONDS: Final = 30.0
#: How long closing waits for a recovery that is under way.
RECOVERY_SECONDS: Final = 0.5
#: How long a recovery that failed waits before it tries again, at first and at most.
FIRST_AGAIN_SECONDS: Final = 2.0
LAST_AGAIN_SECONDS: Final = 60.0


class Pipeline:
    """Queue → intake → journal → delivery → storage and exporters. Opened once, closed once."""

    def __init__(
        self,
        *,
        storage: Storage,
        storage_name: str,
        collectors: Mapping[str, Collector],
        find_collector: Callable[[str], object | None],
        exporters: Mapping[str, Exporter],
        settings: Settings,
        clock: Clock,
        failures: Failures,
        notifier: Notifier,
        queue: IntakeQueue | None = None,
        open_later: bool = False,
        breakers: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.storage = OpenedLater(storage) if open_later else storage
        self.settings = settings
        self.failures = failures
        self.writer_id = new_writer_id()
        self.recovered: RecoveryReport | None = None
        self._recovery: Future[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self.notifier = notifier
        self._breakers = breakers
        self._clock = clock
        self.batch_spans, self.batch_seconds = batching_of(storage, settings)
        # What is open when a later step fails is closed again: a failed set-up leaves nothing.
        with contextlib.ExitStack() as undo:
            self.lane = Lane("storage", failures.left_behind("storage"))
            undo.callback(self.lane.stop)
            unreachable = None if open_later else self._open_storage(storage_name)
            undo.callback(self._close_storage, 1.0)
            self.journal_root = journal_root_of(storage, storage_name)
            self.journal = open_journal(self.journal_root, self.writer_id, settings, failures)
            undo.callback(self._close_journal, remove=True)
            self.collecting = Collecting(collectors, failures, find_collector)
            undo.callback(self.collecting.close)
            self.exporters = [ExportWorker(n, e, failures) for n, e in exporters.items()]
            self.store = self._make_store(storage_name)
            if unreachable is not None:
                self.store.unreachable(unreachable)
            self.compaction = IdleCompaction(storage, self.store, settings.compact, failures)
            self.delivery = self._make_delivery()
            self.watchdog = Watchdog(self._workers, failures.report)
            self._make_intake(queue or new_queue(settings))
            self._undo = undo.pop_all()

    def start(self) -> None:
        """Start the threads. Where one cannot be started, close everything again, and raise."""
        with self._undo:
            self.delivery.start()
            self._undo.callback(self.delivery.mark, FlushMark(set(), closing=True))
            self.watchdog.start()
            self._undo.callback(self.watchdog.stop)
            self.intake.start()
            self._undo.pop_all()
        if self.journal is not None:
            self._recovery = self.lane.submit(self._recover(self.journal.folder.parent))
        if self.compaction.wanted:
            self.lane.submit(self.compaction.run())

    def discard(self) -> None:
        """Close again what was opened and never started."""
        self._undo.close()

    def _open_storage(self, name: str) -> RetryableError | None:
        """Open the storage; where it cannot be reached yet, leave that to its first use."""
        opening = self.lane.run(self.storage.open)
        try:
            opening.result(OPEN_SECONDS)
        except RetryableError as error:
            # An outage is no mistake of whoever sets up: the program starts, its spans wait.
            if getattr(self.storage, "volatile", False):
                raise
            self.storage = OpenedLater(self.storage)
            return error
        except TimeoutError:
            if opening.done():
                raise  # its own
            raise StorageError(
                f"storage {name!r} did not open within {OPEN_SECONDS:.0f} s",
                "expected it to answer",
                "check that it can be reached",
            ) from None
        except CancelledError:
            raise StorageError(
                f"storage {name!r} cancelled its own opening", "expected open() to return or raise"
            ) from None
        return None

    def _make_store(self, name: str) -> StoreWorker:
        root = self.journal_root
        return StoreWorker(
            self.storage,
            self.lane,
            name=name,
            journal=self.journal,
            quarantine=None if root is None else Quarantine(root),
            writer_id=self.writer_id,
            batch_spans=self.batch_spans,
            backlog_bytes=self.settings.backlog_bytes,
            prepare=self.collecting.collect,
            stored=self.notifier.stored,
            failures=self.failures,
        )

    def _make_delivery(self) -> Delivery:
        return Delivery(
            collecting=self.collecting,
            exporters=self.exporters,
            store=self.store,
            batch_spans=self.batch_spans,
            batch_seconds=self.batch_seconds,
            failures=self.failures,
            watch=(self.notifier.watch,),
        )

    def _make_intake(self, queue: IntakeQueue) -> None:
        self.tracer = Tracer(self.settings, self._clock)
        self.finisher = make_finisher(self.settings, self.failures)
        self.queue = queue
        self.intake = Intake(
            queue,
            self.tracer,
            self.finisher,
            self.delivery,
            self.store,
            journal=self.journal,
            writer_id=self.writer_id,
            failures=self.failures,
            housekeeping=self.watchdog.worker.revive,
        )
        queue.wake = self.intake.wake
        self._said: dict[str, Any] = {}
        self.intake.say_state = self.say_state

    def say_state(self) -> None:
        """Write beside the journal what is wrong, where that has changed. On the intake thread."""
        if self.journal is None:
            return
        try:
            breakers = {} if self._breakers is None else {"breakers": self._breakers()}
            trouble = trouble_of({**self.stats(), **breakers})
            if trouble != self._said:
                who = {"pid": os.getpid(), "time": self._clock.wall_ns() // 1000}
                self.journal.replace_state(encode_state({**who, **trouble}))
                self._said = trouble
        except Exception as error:  # the file is a help, not a duty
            self.failures.report("journal", "say_state", error)

    def _workers(self) -> list[Worker]:
        workers = [self.intake.worker, self.delivery.worker, self.lane.worker]
        workers += self.collecting.workers + [e.worker for e in self.exporters]
        return workers + self.notifier.workers

    def query(self, query: SpanQuery) -> Future[Any]:
        """Ask the storage, on its thread; raise at once where that hangs."""
        silent = self.store.silent_seconds()
        if silent:
            raise StorageError(
                f"the storage has not answered for {silent:.0f} s", "expected it to", "see stats()"
            )
        return self.lane.run(self.storage.query, query)

    def flush(self, timeout: float) -> tuple[str, ...]:
        """Send a mark through; return the stages that had not answered by the deadline."""
        self.watchdog.revive()
        mark = FlushMark(self._stages())
        self.queue.put_control(mark)
        return mark.wait(timeout)

    def close(self, timeout: float) -> tuple[str, ...]:
        """Close intake first, sinks last; return the stages that had not answered by the deadline."""
        deadline = time.monotonic() + timeout
        self.compaction.stop()
        mark = FlushMark(self._stages(), closing=True)
        self.watchdog.revive()
        self.queue.closed = True
        self.queue.put_control(mark)
        try:
            waiting = self._wait_watching(mark, deadline)
        finally:
            self.watchdog.stop()
        self._end_recovery(min(RECOVERY_SECONDS, _left(deadline)))
        self.store.stop()
        late = self._close_sinks(waiting, deadline)
        self.collecting.close()
        self.notifier.close(_left(deadline))
        if INTAKE_STAGE not in waiting:
            stored = self.store.journaled == 0 and self.store.queued == 0
            self._close_journal(remove=stored and STAGE not in waiting)
        self.lane.stop()
        self.lane.join(_left(deadline))
        return tuple(sorted({*waiting, *late}))

    def _wait_watching(self, mark: FlushMark, deadline: float) -> tuple[str, ...]:
        """Wait for the closing mark, and do what the delivery thread no longer does once it passed it."""
        while waiting := mark.wait(max(0.0, min(WATCH_SECONDS, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                break
            if self.delivery.worker.done:
                for exporter in self.exporters:
                    exporter.watch()
        return waiting

    def _close_sinks(self, waiting: tuple[str, ...], deadline: float) -> list[str]:
        """Close the sinks beside each other, by one deadline; return those that did not make it."""
        closing = [e.start_closing() for e in self.exporters if e.name not in waiting]
        if STAGE not in waiting:
            self._close_storage(_left(deadline))
        late = [name for name, closed in closing if not closed(_left(deadline))]
        for exporter in self.exporters:
            exporter.stop()
        return late

    def abandon(self) -> None:
        """Let go of what belongs to the parent process. Called in a forked child."""
        self.queue.closed = True
        if self.journal is not None:
            self.journal.release()

    def stats(self) -> dict[str, Any]:
        """Return both ledgers and the state of each part."""
        return stats_of(self)

    def _stages(self) -> set[str]:
        return {INTAKE_STAGE, STAGE, *(e.name for e in self.exporters)}

    def _end_recovery(self, timeout: float) -> None:
        """Give a short recovery the time to end; a long one goes on with the next start."""
        with contextlib.suppress(Exception, CancelledError):
            if self._recovery is not None:
                self._recovery.result(timeout)
        task = self._recovering
        if task is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.lane.loop.call_soon_threadsafe(task.cancel)

    async def _recover(self, root: Path) -> None:
        self._recovering = asyncio.current_task()
        try:
            await self._recover_all(root)
        finally:
            self._recovering = None
        if self.recovered is not None and self.recovered.failed:
            # Not awaited: who closes waits for one round, not for the storage to come back.
            self.lane.submit(self._recover_again(root))

    async def _recover_again(self, root: Path) -> None:
        """Try to store what is left of dead writers until their journals are gone.

        A try that finds one locked has not failed; but whoever holds it can fail as well.
        """
        self._recovering = asyncio.current_task()
        wait, left = FIRST_AGAIN_SECONDS, self._unrecovered(root)
        try:
            while left:
                await asyncio.sleep(wait)
                wait = min(2 * wait, LAST_AGAIN_SECONDS)
                await self._recover_all(root)
                left = {path for path in left | self._unrecovered(root) if path.exists()}
        finally:
            self._recovering = None

    def _unrecovered(self, root: Path) -> set[Path]:
        failed = [] if self.recovered is None else self.recovered.failed
        return {root / text.partition(":")[0] for text in failed}

    async def _recover_all(self, root: Path) -> None:
        async def write(batch: SpanBatch) -> None:
            await self.store.write_recovered(self.collecting.collect(batch))

        self.recovered = await recover(root, write, batch_spans=self.batch_spans)
        told = self.store.failing  # an outage has a line of its own
        for failed in self.recovered.failed:
            self.failures.report("recovery", "replay", RuntimeError(failed), quiet=told)

    def _close_storage(self, timeout: float) -> None:
        try:
            self.lane.run(self.storage.close).result(timeout)
        except (Exception, CancelledError) as error:  # a plugin's; everything is stored by now
            self.failures.report("storage", "close", error)

    def _close_journal(self, *, remove: bool) -> None:
        try:
            if self.journal is not None:
                self.journal.close(remove=remove)
        except OSError as error:
            self.failures.report("journal", "close", error)


def _left(deadline: float) -> float:
    """Return the seconds until a deadline, a moment at least: what is ready gets its turn."""
    return max(0.05, deadline - time.monotonic())
