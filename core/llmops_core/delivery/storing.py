"""Writes batches to the storage, in order, again and again until it takes them.

What does not fit into memory while the storage is behind stays in the journal and is read back from
there; what is not in the journal either is dropped and counted.

A range is sealed here and nowhere else: right before it is first written, and never changed from
then on. So a replay after a crash writes the very same batch, whatever was merged or dropped before.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any, Final

from llmops_core.batch import SpanBatch
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.isolation import is_ours
from llmops_core.delivery.lane import Lane
from llmops_core.delivery.outage import Outage
from llmops_core.delivery.pending import PendingRange
from llmops_core.errors import PermanentError
from llmops_core.failures import Failures
from llmops_core.journal.quarantine import Quarantine, QuarantineFull
from llmops_core.journal.writer import Journal
from llmops_core.protocols import Storage
from llmops_core.running import running_seconds

__all__ = ["STAGE", "StoreWorker"]

STAGE: Final = "storage"
FIRST_RETRY_SECONDS: Final = 0.2
#: Short enough that a fresh span is stored five seconds after an outage is over.
LAST_RETRY_SECONDS: Final = 4.0
#: A write, or a thread, that does not answer for so long is said to hang; it goes on.
SLOW_SECONDS: Final = 10.0
#: What is read back from the journal in one go, as it is in memory. It is there several times over
#: while it is converted and sent.
SPILLED_BYTES: Final = 4 * 1024 * 1024


class StoreWorker:
    """The way from finished spans to the storage. ``add`` and ``mark`` on the delivery thread."""

    def __init__(
        self,
        storage: Storage,
        lane: Lane,
        *,
        journal: Journal | None,
        quarantine: Quarantine | None = None,
        name: str = STAGE,
        writer_id: str,
        batch_spans: int,
        backlog_bytes: int,
        prepare: Callable[[SpanBatch], SpanBatch],
        stored: Callable[[SpanBatch, int], None],
        failures: Failures,
    ) -> None:
        self._storage = storage
        self._lane = lane
        self._journal = journal
        self._quarantine = quarantine
        self._outage = Outage(name)
        self._writer_id = writer_id
        self._batch_spans = batch_spans
        self._backlog_bytes = backlog_bytes
        self._prepare = prepare
        self._on_stored = stored
        self._failures = failures
        self._lock = Lock()
        self._items: deque[PendingRange | FlushMark] = deque()
        self._bytes = 0
        self._unjournaled: set[int] = set()
        self._ours = is_ours(storage)
        self._write_began: float | None = None
        self._told_slow = False
        self._running = False
        self._stopped = False
        self._turn = asyncio.Lock()
        self._last_work = time.monotonic()
        #: Spans handed over and not yet stored or dropped: in the journal, or in memory only.
        self.journaled = 0
        self.queued = 0
        self.stored = 0
        #: Refused for good by the storage, and kept beside the journal; by this monitor, and in all.
        self.quarantined = 0
        self.in_quarantine = 0 if quarantine is None else len(quarantine)
        self.retries = 0
        self.dropped: dict[str, int] = {}

    def count_in(self, batch: SpanBatch, *, journaled: bool) -> None:
        """Take note of spans that will come. Called on the intake thread, once journaled."""
        with self._lock:
            if journaled:
                self.journaled += len(batch)
            else:
                self.queued += len(batch)
                self._unjournaled.update(seq for seq in batch.seqs() if seq is not None)

    def add(self, batch: SpanBatch, size: int) -> None:
        """Queue a batch of *size* bytes, or leave it in the journal, or drop what is not there."""
        with self._lock:
            missing: set[int] = set()
            if self._unjournaled:
                missing = {seq for seq in batch.seqs() if seq in self._unjournaled}
                self._unjournaled -= missing
            journaled = len(batch) - len(missing)
            item = PendingRange(batch.first_seq, batch.last_seq, batch, size, journaled, missing)
            if self.failing:
                batch.forget_arrays()
            if self._bytes > 0 and self._bytes + size > self._backlog_bytes:
                self._spill(item)
            else:
                self._items.append(item)
                self._bytes += size
        self.watch()
        self._start()

    def mark(self, mark: FlushMark) -> None:
        """Queue a flush mark behind everything that was added."""
        with self._lock:
            self._items.append(mark)
        self.watch()
        self._start()

    def stop(self) -> None:
        """Stop trying: what is not stored stays in the journal."""
        self._stopped = True

    def idle_seconds(self) -> float:
        """Return how long nothing was waiting or written; 0 while something is."""
        if self._items or self._write_began is not None:
            return 0.0
        return time.monotonic() - self._last_work

    def unreachable(self, error: BaseException) -> None:
        """Take note that the storage could not be opened yet. Called before anything is written."""
        self._report("open", error, quiet=True)
        self._outage.failed(error)

    async def write_recovered(self, batch: SpanBatch) -> None:
        """Write a batch of a dead writer, in turn with the living one's. On the storage's lane."""
        try:
            await self._write(batch)
        except PermanentError:
            raise
        except Exception as error:
            self._outage.failed(error)
            raise

    def watch(self) -> None:
        """Count a write that takes too long, once. Called on any thread."""
        silent = self._lane.silent_seconds()
        with self._lock:
            began, now = self._write_began, running_seconds()
            slow = began is not None and now - began >= SLOW_SECONDS
            slow = slow or silent >= SLOW_SECONDS
            if self._told_slow or not slow:
                self._told_slow = slow
                return
            self._told_slow = True
        self._report("slow", TimeoutError(f"no answer in {SLOW_SECONDS:.0f} s"))

    def silent_seconds(self) -> float:
        """Return how long the storage's thread has been blocked, 0 if it is not, or not for long."""
        silent = self._lane.silent_seconds()
        return silent if silent >= SLOW_SECONDS else 0.0

    @property
    def failing(self) -> bool:
        """Whether the last write is to be tried again."""
        return self._outage.since is not None

    def state(self) -> dict[str, Any]:
        """Return how the storage does: ``ok``, ``failing`` (tried again) or ``hung``, and how long."""
        began, failing = self._write_began, self._outage.since
        silent = self._lane.silent_seconds()
        busy = running_seconds() - began if began is not None else 0.0
        if max(busy, silent) >= SLOW_SECONDS:
            state, seconds = "hung", max(busy, silent)
        elif failing is not None:
            state, seconds = "failing", time.monotonic() - failing
        else:
            state, seconds = "ok", 0.0
        return {
            "state": state,
            "seconds": round(seconds, 1),
            "retries": self.retries,
            "last_error": self._outage.last_error,
        }

    def _spill(self, item: PendingRange) -> None:
        """Keep of a range only what the journal holds: its place in the order."""
        if item.unjournaled:
            self._drop("storage_behind", len(item.unjournaled))
            self.queued -= len(item.unjournaled)
            item.dropped, item.unjournaled = item.unjournaled, set()
        if not item.journaled:
            return
        item.batch, item.size, item.spilled = None, 0, item.size
        tail = self._items[-1] if self._items else None
        if (
            isinstance(tail, PendingRange)
            and tail.batch is None
            and not tail.taken
            and tail.journaled + item.journaled <= self._batch_spans
            and tail.spilled + item.spilled <= SPILLED_BYTES
        ):
            # A long outage leaves few large ranges in memory and in the storage, not many small.
            tail.last = item.last
            tail.journaled += item.journaled
            tail.spilled += item.spilled
            tail.dropped |= item.dropped
        else:
            self._items.append(item)

    def _drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _start(self) -> None:
        with self._lock:
            if self._running or not self._items:
                return
            self._running = True
        self._lane.submit(self._drain())

    async def _drain(self) -> None:
        wait = 0.0
        try:
            while (item := self._take()) is not None:
                if isinstance(item, FlushMark):
                    item.done(STAGE)
                elif await self._store(item):
                    wait = 0.0
                else:
                    wait = min(max(wait * 2, FIRST_RETRY_SECONDS), LAST_RETRY_SECONDS)
                    await _sleep(wait)
        except BaseException:
            # The end of the loop comes here, and what somebody throws into its thread.
            with self._lock:
                self._running = False
            if not self._stopped:
                self._start()
            raise

    def _take(self) -> PendingRange | FlushMark | None:
        """Return what is next; a range stays in the queue until it is stored."""
        with self._lock:
            if self._stopped or not self._items:
                self._running = False
                return None
            item = self._items[0]
            if isinstance(item, FlushMark):
                self._items.popleft()
            else:
                item.taken = True
            return item

    async def _store(self, item: PendingRange) -> bool:
        """Try to store a range; return False if it is to be tried again."""
        where = "read_back"
        try:
            batch = item.batch or self._read_back(item)
            if len(batch):
                where = "seal"
                self._seal(item)
                where = "write"
                await self._write(batch)
        except BaseException as error:  # a plugin's, whatever it is: it must not end the storing
            if self._stopped and isinstance(error, asyncio.CancelledError | GeneratorExit):
                raise  # the lane ends; nothing failed
            if where != "write":
                self._report(where, error, who="journal")
                return False
            if isinstance(error, PermanentError):
                return self._refused(item, batch, error)
            self.retries += 1
            self._report(where, error, quiet=True)
            self._outage.failed(error)
            batch.forget_arrays()
            return False
        self._account_stored(item, batch)
        if item.batch is None:
            del batch
            _give_back()
        return True

    def _refused(self, item: PendingRange, batch: SpanBatch, error: PermanentError) -> bool:
        """Cut a batch that the storage refuses, or put its only span aside; False: try again."""
        try:
            if len(batch) > 1:
                self._cut(item, batch, error.place)
            else:
                self._put_aside(item, batch, error)
        except Exception as failed:
            self._report("quarantine", failed, who="journal")
            return False
        return True

    def _cut(self, item: PendingRange, batch: SpanBatch, place: int | None) -> None:
        """Put the parts of a batch in its place, each to be stored as a sealed range of its own."""
        parts = batch.parted(place)
        if self._journal is not None:
            # All at once: a replay cuts either as before, when nothing was stored, or as now.
            self._journal.seal_parts([(p.first_seq, p.last_seq) for p in parts])
        pieces = item.cut(batch, parts)
        with self._lock:
            self._items.popleft()
            self._items.extendleft(reversed(pieces))
            self._bytes += sum(p.size for p in pieces) - item.size
            # What could not be read back is in none of the parts.
            self.journaled += sum(p.journaled for p in pieces) - item.journaled
            self.queued += sum(len(p.unjournaled) for p in pieces) - len(item.unjournaled)
            if lost := item.lost(batch):
                self._drop("journal_damaged", lost)

    def _put_aside(self, item: PendingRange, batch: SpanBatch, error: PermanentError) -> None:
        """Keep a span beside the journal, and count it there; dropped where there is no journal."""
        reason = "refused" if self._quarantine is None else ""
        try:
            if self._quarantine is not None:
                self._quarantine.add(batch.rows[0], error)
        except QuarantineFull:
            reason = "quarantine_full"
        with self._lock:
            self._forget(item)
            if reason:
                self._drop(reason, 1)
            else:
                self.quarantined += 1
                self.in_quarantine += 1
        self._report("write", error)
        self._note_stored(batch)

    def _read_back(self, item: PendingRange) -> SpanBatch:
        found = [] if self._journal is None else self._journal.read_range(item.first, item.last)
        rows = [s for s in found if s.seq not in item.dropped]
        batch = SpanBatch(rows, writer_id=self._writer_id, first_seq=item.first, last_seq=item.last)
        try:
            return self._prepare(batch) if rows else batch
        except BaseException as error:  # unmeasured is better than not stored
            self._report("prepare", error)
            return batch

    def _seal(self, item: PendingRange) -> None:
        if self._journal is None or item.sealed:
            return
        try:
            self._journal.seal(item.first, item.last)
        except OSError as error:
            if item.journaled:
                raise  # unsealed, a replay might cut it otherwise and store its spans twice
            self._report("seal", error, who="journal")
        item.sealed = True

    async def _write(self, batch: SpanBatch) -> None:
        # One at a time: a recovery writes too, and a storage may await in the middle.
        async with self._turn:
            self._write_began = running_seconds()
            try:
                await self._storage.write(batch if self._ours else batch.copied())
                self._outage.over()
            finally:
                self.watch()
                self._write_began = None
                self._last_work = time.monotonic()

    def _account_stored(self, item: PendingRange, batch: SpanBatch) -> None:
        with self._lock:
            self._forget(item)
            self.stored += len(batch)
            if lost := item.lost(batch):
                self._drop("journal_damaged", lost)
        if not len(batch):
            return
        self._note_stored(batch)
        try:
            self._on_stored(batch, item.size or item.spilled)
        except BaseException as error:
            self._report("stored", error)

    def _forget(self, item: PendingRange) -> None:
        """Take the first range out of the queue and of what waits. With the lock held."""
        self._items.popleft()
        self._bytes -= item.size
        self.journaled -= item.journaled
        self.queued -= len(item.unjournaled)

    def _note_stored(self, batch: SpanBatch) -> None:
        try:
            if self._journal is not None:
                self._journal.mark_stored(batch.first_seq, batch.last_seq)
        except BaseException as error:
            self._report("mark_stored", error, who="journal")

    def _report(
        self, where: str, error: BaseException, *, who: str = STAGE, quiet: bool = False
    ) -> None:
        with contextlib.suppress(BaseException):  # a listener of failures must not end the storing
            self._failures.report(who, where, error, quiet=quiet)


def _give_back() -> None:
    """Return what Arrow keeps for its next batch to the system: catching up is soon over."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()


async def _sleep(seconds: float) -> None:
    # Whoever cancels a plugin's task may reach this one: then it is tried again at once.
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
