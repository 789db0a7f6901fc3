"""The delivery thread: finished spans to collectors, exporters and the storage.

It waits for nobody: collectors have a deadline, exporters and the storage have queues and threads of
their own. A failing storage never stops the journal, which lies before this stage.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from llmops_core.batch import SpanBatch
from llmops_core.delivery.collecting import Collecting
from llmops_core.delivery.exporting import ExportWorker
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.storing import StoreWorker
from llmops_core.failures import Failures
from llmops_core.worker import Worker

__all__ = ["WATCH_SECONDS", "Delivery"]

#: How long a span waits before exporters get it, and how many are sent at once.
EXPORT_SECONDS: Final = 0.5
EXPORT_SPANS: Final = 500
#: What a span takes in memory beyond its bytes in the journal: lists, numbers and short texts are
#: objects here. 320 bytes measured with few columns, 500 with many.
SPAN_BYTES: Final = 400
#: How often the thread looks whether a plugin hangs.
WATCH_SECONDS: Final = 0.5

_Item = tuple[SpanBatch, int] | FlushMark


class Delivery:
    """Cuts what the intake hands over into batches, by size and by age."""

    def __init__(
        self,
        *,
        collecting: Collecting,
        exporters: Sequence[ExportWorker],
        store: StoreWorker,
        batch_spans: int,
        batch_seconds: float,
        failures: Failures,
        watch: Sequence[Callable[[], None]] = (),
    ) -> None:
        #: While collectors are waited for the others' deadlines go on.
        self._watch_others = (store.watch, *(e.watch for e in exporters), *watch)
        self._watch = (collecting.watch, *self._watch_others)
        self._collecting = collecting
        self._exporters = exporters
        self._store = store
        self._batch_spans = batch_spans
        self._batch_seconds = batch_seconds
        self._failures = failures
        # Without exporters nobody reads a span before its batch is whole: measure it then, once.
        self._chunk_spans = min(EXPORT_SPANS, batch_spans) if exporters else batch_spans
        self._chunk_seconds = min(EXPORT_SECONDS, batch_seconds) if exporters else batch_seconds
        self._inbox: deque[_Item] = deque()
        self._wake = threading.Event()
        self._chunk = _Pile()
        self._measured = _Pile()
        self._taken_to = 0
        self.worker = Worker("delivery", self._step, self._interrupted)

    def start(self) -> None:
        """Start the thread."""
        self.worker.start()

    def hand_over(self, batch: SpanBatch, size: int) -> None:
        """Take finished spans of *size* bytes. Called on the intake thread; never waits."""
        self._inbox.append((batch, size))
        self._wake.set()

    def mark(self, mark: FlushMark) -> None:
        """Take a flush mark behind everything that was handed over."""
        self._inbox.append(mark)
        self._wake.set()

    def _step(self) -> bool:
        self._wake.wait(self._next_due())
        self._wake.clear()
        closing = False
        # Under a load that never pauses it stops all the same: to look whether a plugin hangs.
        until = time.monotonic() + WATCH_SECONDS
        while self._inbox and time.monotonic() < until:
            # Taken out when it is dealt with: whatever happens meanwhile, it is not lost.
            item = self._inbox[0]
            if isinstance(item, FlushMark):
                closing = self._pass_on(item) or closing
            else:
                self._take(*item)
            self._inbox.popleft()
        if self._inbox:
            self._wake.set()
        self._guard("age", self._cut_by_age)
        for watch in self._watch:
            self._guard("watch", watch)
        return closing

    def _interrupted(self, error: BaseException) -> None:
        self._failures.report("delivery", "run", error)
        self._wake.set()

    def _guard(self, where: str, step: object) -> None:
        try:
            step()  # type: ignore[operator]
        except Exception as error:  # a defect of ours must not end the thread
            self._failures.report("delivery", where, error)

    def _moves(self) -> None:
        self.worker.moves()
        for watch in self._watch_others:
            self._guard("watch", watch)

    def _next_due(self) -> float:
        now = time.monotonic()
        due = [WATCH_SECONDS]
        if self._chunk.count:
            due.append(self._chunk.since + self._chunk_seconds - now)
        if self._measured.count:
            due.append(self._measured.since + self._batch_seconds - now)
        return max(0.0, min(due))

    def _take(self, batch: SpanBatch, size: int) -> None:
        if batch.last_seq <= self._taken_to:
            return  # interrupted right after it was taken: twice would be stored twice
        self._taken_to = batch.last_seq
        self._chunk.add(batch, size, time.monotonic())
        if self._chunk.count >= self._chunk_spans:
            self._guard("chunk", self._cut_chunk)

    def _pass_on(self, mark: FlushMark) -> bool:
        self._guard("chunk", self._cut_chunk)
        self._guard("batch", self._hand_on_all)
        self._store.mark(mark)
        for exporter in self._exporters:
            exporter.offer(mark)
        return mark.closing

    def _cut_by_age(self) -> None:
        now = time.monotonic()
        if self._chunk.count and now - self._chunk.since >= self._chunk_seconds:
            self._cut_chunk()
        if self._measured.count and now - self._measured.since >= self._batch_seconds:
            self._hand_on_all()

    def _cut_chunk(self) -> None:
        """Measure what came in, give it to the exporters, and add it to what will be stored."""
        while self._chunk.count:
            taken, size = self._chunk.first(self._chunk_spans)
            # The long step comes first: one that is interrupted in it begins it anew.
            batch = self._collecting.collect(taken, self._moves)
            self._chunk.drop(len(taken), size)
            self._measured.add(batch, size, self._chunk.since)
            for exporter in self._exporters:
                exporter.offer(batch)
            while self._measured.count >= self._batch_spans:
                self._hand_on()

    def _hand_on_all(self) -> None:
        while self._measured.count:
            self._hand_on()

    def _hand_on(self) -> None:
        batch, size = self._measured.first(self._batch_spans)
        self._measured.drop(len(batch), size)
        self._measured.since = time.monotonic()
        self._store.add(batch, size + SPAN_BYTES * len(batch))


class _Pile:
    """Batches that follow each other, on their way to becoming one of another size."""

    def __init__(self) -> None:
        self.count = 0
        self.since = 0.0
        self._size = 0
        self._batches: list[SpanBatch] = []

    def add(self, batch: SpanBatch, size: int, since: float) -> None:
        if not self.count:
            self.since = since
        self._batches.append(batch)
        self.count += len(batch)
        self._size += size

    def first(self, limit: int) -> tuple[SpanBatch, int]:
        """Return the first *limit* spans, or all, as one batch, and their share of the bytes."""
        if len(self._batches) > 1:
            self._batches = [SpanBatch.joined(self._batches)]
        batch = self._batches[0].cut(0, limit)
        return batch, self._size * len(batch) // self.count

    def drop(self, count: int, size: int) -> None:
        """Remove what :meth:`first` returned."""
        [whole] = self._batches
        self._batches = [whole.cut(count, len(whole))] if count < self.count else []
        self.count -= count
        self._size -= size
