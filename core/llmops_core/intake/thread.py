"""The intake thread: host events to finished spans to the journal, then on to the delivery.

It runs no plugin code and no network: a plugin that sleeps cannot make the journal late.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from llmops_core.batch import SpanBatch
from llmops_core.delivery.flushing import FlushMark
from llmops_core.failures import Failures
from llmops_core.intake.drafts import Draft
from llmops_core.intake.finish import Finisher
from llmops_core.intake.ordering import Ordering
from llmops_core.intake.queue import CONTROL, HostEvent, IntakeQueue
from llmops_core.intake.tracer import Tracer
from llmops_core.intake.wakeup import WakeUp
from llmops_core.journal.writer import Journal
from llmops_core.span import Span
from llmops_core.worker import Worker

__all__ = ["INTAKE_STAGE", "Intake"]

INTAKE_STAGE: Final = "intake"
#: Events that are taken at once, and the pause after which the thread looks again: waking it for
#: each event would make the host fight for the interpreter at each of its own steps.
DRAIN_EVENTS: Final = 512
LINGER_SECONDS: Final = 0.01
HOUSEKEEPING_SECONDS: Final = 1.0
#: How often the thread looks while events wait for earlier ones.
HELD_SECONDS: Final = 0.1
OPEN_FILE_SECONDS: Final = 2.0
#: The file of open spans may take one twentieth of the thread's time.
OPEN_FILE_SHARE: Final = 20
_encode: Final = msgspec.msgpack.Encoder().encode
#: Events, and spans, after which the interpreter is offered to the host's thread.
YIELD_EVENTS: Final = 64
FINISH_SPANS: Final = 128


class Counts(Protocol):
    """Takes note of spans that will come: the way to the storage."""

    def count_in(self, batch: SpanBatch, *, journaled: bool) -> None:
        """Count them, once journaled. Called on the intake thread; never waits."""


class Takes(Protocol):
    """Takes finished spans and flush marks: the delivery."""

    def hand_over(self, batch: SpanBatch, size: int) -> None:
        """Take spans of *size* bytes. Called on the intake thread; never waits."""

    def mark(self, mark: FlushMark) -> None:
        """Take a flush mark behind everything that was handed over."""


class Intake:
    """Owns the tracer and the journal's appends. Everything here runs on one thread."""

    def __init__(
        self,
        queue: IntakeQueue,
        tracer: Tracer,
        finisher: Finisher,
        delivery: Takes,
        store: Counts,
        *,
        journal: Journal | None,
        writer_id: str,
        failures: Failures,
        housekeeping: Callable[[], object] = lambda: None,
    ) -> None:
        self.queue = queue
        self.tracer = tracer
        self._ordering = Ordering(tracer.feed)
        self.finisher = finisher
        self._delivery = delivery
        self._store = store
        self._journal = journal
        self._writer_id = writer_id
        self._failures = failures
        self._also = housekeeping
        self._wake = WakeUp()
        self._written_version = -1
        self._seq = 0
        self._next_sweep = 0.0
        self._next_open_file = 0.0
        self.consumed = 0
        self.in_hand = 0
        self.journaled_bytes = 0
        self.unjournaled = 0
        self.dropped: dict[str, int] = {}
        #: Called now and then: the monitor says beside its journal how it does.
        self.say_state: Callable[[], None] = lambda: None
        # What a step has in hand, so that one that is interrupted can be resumed.
        self._events: list[HostEvent] = []
        self._next = 0
        self._drafts: list[Draft] = []
        self._batch: SpanBatch | None = None
        self._counted = False
        self.worker = Worker("intake", self._step, self._interrupted)

    def start(self) -> None:
        """Start the thread."""
        self.worker.start()

    def wake(self) -> None:
        """Wake the thread if it waits. Called on any thread; never waits."""
        self._wake.set()

    def run_out(self, deadline: float) -> None:
        """Consume what waits and close every run, on the calling thread. Instead of the thread.

        For an exiting process that starts no thread any more. What is left at the deadline is
        dropped and counted: an exit may not take longer.
        """
        self.queue.closed = True
        while time.monotonic() < deadline and (events := self.queue.take(DRAIN_EVENTS)):
            if self._consume(events):
                return
        self.queue.drop_rest("exit")
        self._control(FlushMark(set(), closing=True))

    def _step(self) -> bool:
        queue = self.queue
        if self._drafts or self._batch is not None:
            self._resume()
        events = self._events[self._next :] or queue.take(DRAIN_EVENTS)
        if not events:
            self._wait()
        else:
            queue.idle = False
            if self._consume(events):
                return True
            if len(events) < DRAIN_EVENTS:
                queue.urgent.wait(LINGER_SECONDS)
        self._housekeeping()
        return False

    def _wait(self) -> None:
        queue = self.queue
        queue.idle = True
        if not len(queue):
            held = len(self._ordering)
            self._wake.wait(HELD_SECONDS if held else HOUSEKEEPING_SECONDS)
        queue.idle = False

    def _interrupted(self, error: BaseException) -> None:
        """Take note of what ended a step: a defect of ours, or an exception sent from outside."""
        self._failures.report("intake", "run", error)

    def _resume(self) -> None:
        """Go on with the spans that an interrupted step had in hand: each comes through once."""
        if self._drafts:
            if self._drafts is not self.tracer.finished:
                self.tracer.finished[:0] = self._drafts
            self._drafts = []
        batch, self._batch = self._batch, None
        if batch is None:
            return
        if not self._counted:
            first, last = batch.first_seq, batch.last_seq
            journaled = self._journal.read_range(first, last) if self._journal else []
            if not journaled:
                self._journal_and_hand_over(batch)
                return
            self._store.count_in(batch, journaled=True)
        self._delivery.hand_over(batch, len(_encode(batch.records())))  # twice is noticed there

    def _consume(self, events: list[HostEvent]) -> bool:
        """Take events through the tracer into the journal; True if the monitor closes."""
        self.in_hand = len(events)
        self._next, self._events = 0, events
        for number, event in enumerate(events):
            self._next = number + 1  # one that is interrupted is not fed twice
            if event[0] == CONTROL:
                self.in_hand = 0
                if self._control(event[5]["control"]):
                    return True
                self.in_hand = len(events) - number - 1
                continue
            self.consumed += 1
            self.in_hand -= 1
            try:
                if type(event[7]) is bool:
                    self.tracer.feed(event)
                else:
                    self._ordering.hold(event)
            except Exception as error:  # a defect of ours costs one event
                self._failures.report("tracer", "feed", error)
            if number % YIELD_EVENTS == YIELD_EVENTS - 1:
                time.sleep(0)
        self._events = []
        self._write_out()
        return False

    def _control(self, mark: FlushMark) -> bool:
        self._release(None)
        self._settle(closing=mark.closing)
        if mark.closing:
            self.tracer.close_all()
        else:
            self.tracer.sweep()
        self._write_out()
        if mark.closing and self._journal is not None:
            self._replace_open(self._journal)
        mark.done(INTAKE_STAGE)
        self._delivery.mark(mark)
        return mark.closing

    def _write_out(self) -> None:
        """Finish what the tracer gave, journal it, and hand it over."""
        self._drafts = self.tracer.finished
        if not self._drafts:
            return
        self.tracer.finished = []
        while self._drafts:
            columns = self.finisher.finish_all(
                self._drafts[:FINISH_SPANS],
                self._writer_id,
                self._seq + 1,
                self._failed_to_finish,
            )
            batch = SpanBatch.of_columns(columns, writer_id=self._writer_id) if columns else None
            if batch is not None:
                self._seq = batch.last_seq
            self._counted, self._batch, self._drafts = False, batch, self._drafts[FINISH_SPANS:]
            if batch is not None:
                self._journal_and_hand_over(batch)
            self._batch = None
            if self._drafts:
                self.worker.moves()
                time.sleep(0)

    def _failed_to_finish(self, error: Exception) -> None:
        self._failures.report("intake", "finish", error)
        self._drop("invalid", 1)

    def _journal_and_hand_over(self, batch: SpanBatch) -> None:
        try:
            size = self._append(batch)
        except Exception as error:  # one of them cannot be encoded: it costs itself
            self._failures.report("intake", "encode", error)
            rows = [span for span in batch.rows if self._can_be_encoded(span)]
            if not rows:
                return
            first, last = rows[0].seq or 0, rows[-1].seq or 0
            batch = SpanBatch(rows, writer_id=self._writer_id, first_seq=first, last_seq=last)
            size = self._append(batch)
        journaled = size > 0
        if not journaled:
            self.unjournaled += len(batch)
            size = len(_encode(batch.records()))
        self._store.count_in(batch, journaled=journaled)
        self._counted = True
        self._delivery.hand_over(batch, size)

    def _append(self, batch: SpanBatch) -> int:
        """Journal spans as one record; return its size, or 0 if they stay in memory only."""
        if self._journal is None or self._journal.full:
            _encode(batch.records())  # raises where the journal would
            return 0
        try:
            size = self._journal.append_records(batch.records(), batch.first_seq, batch.last_seq)
        except OSError as error:
            self._failures.report("journal", "append", error)
            return 0
        self.journaled_bytes += size
        return size

    def _can_be_encoded(self, span: Span) -> bool:
        try:
            _encode(span)
        except Exception:
            self._drop("invalid", 1)
            return False
        return True

    def _release(self, now_ns: int | None) -> None:
        """Tell what has waited for earlier events, all of it without *now_ns*."""
        self._ordering.release(now_ns, self._teller_failed)

    def _settle(self, *, closing: bool) -> None:
        """Tell what waits for events that do not come."""
        self._ordering.settle(self.tracer.clock, self._teller_failed, closing=closing)

    def _teller_failed(self, error: BaseException) -> None:
        self._failures.report("handler", "teller", error)

    def _drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _housekeeping(self) -> None:
        now = time.monotonic()
        if len(self._ordering):
            self._release(self.tracer.clock.monotonic_ns())
            self._write_out()
        if now >= self._next_sweep:
            self._next_sweep = now + HOUSEKEEPING_SECONDS
            self._also()
            try:
                self._settle(closing=False)
                self.tracer.sweep()
                self._write_out()
            except Exception as error:  # a defect of ours must not end the thread
                self._failures.report("tracer", "sweep", error)
        if self._journal is not None and now >= self._next_open_file:
            self._replace_open(self._journal)
            self.say_state()
            # Of 50,000 open spans a copy takes seconds: then it is made less often.
            spent = time.monotonic() - now
            self._next_open_file = now + max(OPEN_FILE_SECONDS, spent * OPEN_FILE_SHARE)

    def _replace_open(self, journal: Journal) -> None:
        try:
            self._keep_place(journal)
            if self._written_version == self.tracer.version:
                journal.reap()
                return
            drafts = self.tracer.open_drafts()
            spans = [self.finisher.finish(d, self._writer_id, 0) for d in drafts]
            journal.replace_open(spans)
            self._written_version = self.tracer.version
        except Exception as error:  # the file is a help, not a duty
            self._failures.report("journal", "replace_open", error)
        failed, journal.not_rotated = journal.not_rotated, None
        if failed is not None:
            self._failures.report("journal", "rotate", failed)

    def _keep_place(self, journal: Journal) -> None:
        try:
            if not journal.keep_place():
                return
            self._written_version = -1
            error: OSError = FileNotFoundError("its folder was gone, and was made again")
        except OSError as failed:
            error = failed
        self._failures.report("journal", "place", error)
