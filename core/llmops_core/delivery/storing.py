"""Writes sealed batches to the storage, in order, again and again until it takes them.

What does not fit into memory while the storage is behind stays in the journal and is read back from
there; without a journal it is dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final

from llmops_core.batch import SpanBatch
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.lane import Lane
from llmops_core.failures import Failures
from llmops_core.journal.writer import Journal
from llmops_core.protocols import Storage
from llmops_core.span import Span

__all__ = ["STAGE", "StoreWorker"]

STAGE: Final = "storage"
FIRST_RETRY_SECONDS: Final = 0.2
LAST_RETRY_SECONDS: Final = 30.0


class StoreWorker:
    """The way from finished spans to the storage. ``add`` and ``mark`` on the delivery thread."""

    def __init__(
        self,
        storage: Storage,
        lane: Lane,
        *,
        journal: Journal | None,
        writer_id: str,
        batch_spans: int,
        backlog_bytes: int,
        prepare: Callable[[SpanBatch], SpanBatch],
        stored: Callable[[SpanBatch], None],
        failures: Failures,
    ) -> None:
        self._storage = storage
        self._lane = lane
        self._journal = journal
        self._writer_id = writer_id
        self._batch_spans = batch_spans
        self._backlog_bytes = backlog_bytes
        self._prepare = prepare
        self._on_stored = stored
        self._failures = failures
        self._lock = Lock()
        self._items: deque[tuple[SpanBatch, int] | FlushMark] = deque()
        self._bytes = 0
        self._spilled_from: int | None = None
        self._spilled_to = 0
        self._unjournaled: set[int] = set()
        self._running = False
        self._stopped = False
        #: Spans handed over and not yet stored or dropped: in the journal, or in memory only.
        self.journaled = 0
        self.queued = 0
        self.stored = 0
        self.retries = 0
        self.dropped: dict[str, int] = {}

    def count_in(self, spans: list[Span], *, journaled: bool) -> None:
        """Take note of spans that will come. Called on the intake thread, once journaled."""
        with self._lock:
            if journaled:
                self.journaled += len(spans)
            else:
                self.queued += len(spans)
                if self._journal is not None:
                    self._unjournaled.update(s.seq for s in spans if s.seq is not None)

    def add(self, batch: SpanBatch, size: int) -> None:
        """Queue a sealed batch of *size* bytes, or leave it in the journal, or drop it."""
        with self._lock:
            over = self._bytes > 0 and self._bytes + size > self._backlog_bytes
            if (over or self._spilled_from is not None) and self._all_journaled(batch):
                if self._spilled_from is None:
                    self._spilled_from = batch.first_seq
                self._spilled_to = batch.last_seq
            elif over or self._spilled_from is not None:
                # Neither the disk nor memory holds it, or it would overtake what the disk holds.
                self._account_dropped(batch, "storage_behind")
            else:
                self._items.append((batch, size))
                self._bytes += size
        self._start()

    def mark(self, mark: FlushMark) -> None:
        """Queue a flush mark behind everything that was added."""
        with self._lock:
            self._items.append(mark)
        self._start()

    def stop(self) -> None:
        """Stop trying: what is not stored stays in the journal."""
        self._stopped = True

    def _start(self) -> None:
        with self._lock:
            if self._running:
                return
            self._running = True
        self._lane.submit(self._drain())

    def _all_journaled(self, batch: SpanBatch) -> bool:
        if self._journal is None:
            return False
        return not self._unjournaled or not any(s.seq in self._unjournaled for s in batch.rows)

    async def _drain(self) -> None:
        while not self._stopped:
            with self._lock:
                head = self._items[0] if self._items else None
                if head is None and self._spilled_from is None:
                    self._running = False
                    return
                spilled = self._spilled_from is not None and not isinstance(head, tuple)
                if not spilled:
                    self._items.popleft()
            if spilled and self._journal is not None:
                await self._catch_up(self._journal)
            elif isinstance(head, FlushMark):
                head.done(STAGE)
            elif head is not None:
                batch, size = head
                await self._write(batch, journaled=None)
                with self._lock:
                    self._bytes -= size
        self._running = False

    async def _catch_up(self, journal: Journal) -> None:
        """Store one batch of what was left in the journal."""
        with self._lock:
            first, last = self._spilled_from or 1, self._spilled_to
        rows = [s for s in journal.read_from(first, self._batch_spans) if (s.seq or 0) <= last]
        if not rows:
            with self._lock:  # the journal lost them: a segment was damaged or deleted by hand
                self._account_lost()
            return
        top = rows[-1].seq or last
        batch = SpanBatch(rows, writer_id=self._writer_id, first_seq=first, last_seq=top)
        self._seal(first, top)
        await self._write(self._prepare(batch), journaled=len(batch))
        with self._lock:
            self._spilled_from = top + 1 if top < self._spilled_to else None

    def _seal(self, first: int, last: int) -> None:
        try:
            if self._journal is not None:
                self._journal.seal(first, last)
        except OSError as error:
            self._failures.report("journal", "seal", error)

    async def _write(self, batch: SpanBatch, journaled: int | None) -> None:
        wait = FIRST_RETRY_SECONDS
        while not self._stopped:
            try:
                await self._storage.write(batch)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.retries += 1
                self._failures.report("storage", "write", error)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait = min(wait * 2, LAST_RETRY_SECONDS)
                continue
            self._account_stored(batch, journaled)
            self._on_stored(batch)
            return

    def _account_stored(self, batch: SpanBatch, journaled: int | None) -> None:
        with self._lock:
            self.stored += len(batch)
            self._leave(batch, journaled)
        try:
            if self._journal is not None:
                self._journal.mark_stored(batch.first_seq, batch.last_seq)
        except OSError as error:
            self._failures.report("journal", "mark_stored", error)

    def _leave(self, batch: SpanBatch, journaled: int | None) -> None:
        if journaled is None:
            if self._journal is None:
                journaled = 0
            elif self._unjournaled:
                seqs = {s.seq for s in batch.rows if s.seq is not None}
                journaled = len(batch) - len(seqs & self._unjournaled)
                self._unjournaled -= seqs
            else:
                journaled = len(batch)
        self.journaled -= journaled
        self.queued -= len(batch) - journaled

    def _account_dropped(self, batch: SpanBatch, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + len(batch)
        self._leave(batch, None)

    def _account_lost(self) -> None:
        lost = self.journaled - sum(len(i[0]) for i in self._items if isinstance(i, tuple))
        self.dropped["journal_damaged"] = self.dropped.get("journal_damaged", 0) + lost
        self.journaled -= lost
        self._spilled_from = None
