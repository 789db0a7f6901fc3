"""Whatever fails on the way to the storage: nothing is stored twice, and every number adds up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops_core import running
from llmops_core.batch import SpanBatch
from llmops_core.delivery import storing
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.lane import Lane
from llmops_core.delivery.storing import STAGE, StoreWorker
from llmops_core.failures import Failures
from llmops_core.journal.recovery import recover
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.span import Span

SIZE = 100


def span(seq: int) -> Span:
    return Span(
        span_id=f"{seq:016x}",
        trace_id=f"{seq:032x}",
        kind="llm",
        name="m",
        outcome="ok",
        start_time=seq,
        end_time=seq,
        seq=seq,
    )


class Store:
    """Keeps ranges by name and skips one that it has, as the Parquet storage does."""

    def __init__(self) -> None:
        self.ranges: dict[tuple[int, int], list[int]] = {}
        self.attempts = 0
        self.act: Callable[[SpanBatch], Any] = lambda batch: None

    async def write(self, batch: SpanBatch) -> None:
        self.attempts += 1
        self.act(batch)
        key = (batch.first_seq, batch.last_seq)
        self.ranges.setdefault(key, [s.seq or 0 for s in batch.rows])

    @property
    def seqs(self) -> list[int]:
        return sorted(seq for rows in self.ranges.values() for seq in rows)


class Bench:
    """A store worker with a journal, fed by hand."""

    def __init__(self, root: Path, *, backlog: int = 3 * SIZE, batch_spans: int = 20) -> None:
        self.root = root
        self.store = Store()
        self.lane = Lane("test")
        self.failures = Failures()
        self.journal = Journal(root, new_writer_id(), max_bytes=2**30)
        self.announced: list[int] = []
        self.prepare: Callable[[SpanBatch], SpanBatch] = lambda batch: batch
        self.worker = StoreWorker(
            self.store,  # type: ignore[arg-type]
            self.lane,
            journal=self.journal,
            writer_id=self.journal.writer_id,
            batch_spans=batch_spans,
            backlog_bytes=backlog,
            prepare=lambda batch: self.prepare(batch),
            stored=lambda batch, size: self.announced.append(len(batch)),
            failures=self.failures,
        )
        self.made = 0
        self.append = self.journal.append

    def make(self, count: int) -> list[Span]:
        """Make spans and journal them, as the intake does."""
        spans = [span(self.made + at) for at in range(1, count + 1)]
        try:
            self.append(spans)
            journaled = True
        except OSError:
            journaled = False
        self.made += count
        self.worker.count_in(SpanBatch(spans), journaled=journaled)
        return spans

    def add(self, spans: list[Span]) -> None:
        """Hand spans on as one batch, as the delivery does."""
        first, last = spans[0].seq or 0, spans[-1].seq or 0
        batch = SpanBatch(spans, writer_id=self.journal.writer_id, first_seq=first, last_seq=last)
        self.worker.add(batch, SIZE)

    def flush(self, seconds: float = 20) -> bool:
        mark = FlushMark({STAGE})
        self.worker.mark(mark)
        return not mark.wait(seconds)

    def check(self) -> None:
        worker = self.worker
        with worker._lock:
            told = worker.stored + worker.queued + worker.journaled + sum(worker.dropped.values())
            assert min(worker.queued, worker.journaled, *worker.dropped.values(), 0) == 0
        assert told == self.made

    def crash_and_recover(self) -> None:
        """Die without another word, and let the next start store what was left."""
        self.worker.stop()
        self.lane.stop()
        self.lane.worker.join(10)
        self.journal.release()
        self.store.act = lambda batch: None
        report = asyncio.run(recover(self.root, self.store.write, batch_spans=7))
        assert report.failed == []


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(storing, "FIRST_RETRY_SECONDS", 0.002)
    monkeypatch.setattr(storing, "LAST_RETRY_SECONDS", 0.02)
    made = Bench(tmp_path)
    yield made
    made.worker.stop()
    made.lane.stop()
    with contextlib.suppress(OSError):
        made.journal.release()


def fail(error: BaseException) -> Callable[..., Any]:
    def act(*_: Any) -> Any:
        raise error

    return act


def once(real: Callable[..., Any], error: BaseException) -> tuple[Callable[..., Any], list[int]]:
    """Return *real*, but failing the first time; and the times it was called."""
    calls: list[int] = []

    def act(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return real(*arguments)

    return act, calls


def test_what_was_left_in_the_journal_is_stored_in_order(bench: Bench) -> None:
    bench.store.act = fail(ConnectionError())
    for _ in range(20):
        bench.add(bench.make(5))
    bench.check()
    assert len(bench.worker._items) < 10, "what is left in the journal is few ranges"
    bench.store.act = lambda batch: None
    assert bench.flush()
    bench.check()
    assert list(bench.store.ranges) == sorted(bench.store.ranges)
    assert bench.store.seqs == list(range(1, 101))
    assert sum(bench.announced) == 100


def test_what_is_read_back_in_one_go_is_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "SPILLED_BYTES", 2 * SIZE)
    returned: list[int] = []
    monkeypatch.setattr(storing, "_give_back", lambda: returned.append(len(bench.store.ranges)))
    bench.store.act = fail(ConnectionError())
    for _ in range(20):
        bench.add(bench.make(5))
    bench.store.act = lambda batch: None
    assert bench.flush()
    bench.check()
    lengths = [last - first + 1 for first, last in bench.store.ranges]
    assert sum(lengths) == 100
    assert max(lengths) == 10, "two of those that were added"
    assert len(returned) >= lengths.count(10), "Arrow's memory goes back after each of them"


def test_a_crash_between_a_catch_up_and_its_note_stores_nothing_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.store.act = fail(ConnectionError())
    for _ in range(12):
        bench.add(bench.make(5))
    monkeypatch.setattr(bench.journal, "mark_stored", fail(OSError(28, "No space")))
    bench.store.act = lambda batch: None
    assert bench.flush()
    before = dict(bench.store.ranges)
    assert len(before) < 12, "ranges were merged"
    bench.crash_and_recover()
    assert bench.store.ranges == before


def test_an_unsealed_range_is_not_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seal, calls = once(bench.journal.seal, OSError(28, "No space left on device"))
    monkeypatch.setattr(bench.journal, "seal", seal)
    monkeypatch.setattr(bench.journal, "mark_stored", fail(OSError(28, "No space")))
    for _ in range(3):
        bench.add(bench.make(4))
    assert bench.flush()
    assert len(calls) == 4
    assert bench.failures.counts()["journal.seal: OSError"] == 1
    bench.crash_and_recover()
    assert bench.store.seqs == list(range(1, 13))


def test_a_range_that_is_tried_again_is_sealed_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = []
    seal = bench.journal.seal
    monkeypatch.setattr(bench.journal, "seal", lambda *r: (sealed.append(r), seal(*r)))
    bench.store.act, calls = once(lambda batch: None, ConnectionError())
    bench.add(bench.make(4))
    assert bench.flush()
    assert (len(calls), sealed) == (2, [(1, 4)])


def test_spans_in_memory_only_are_stored_although_nothing_can_be_sealed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.append = fail(OSError(28, "No space left on device"))
    monkeypatch.setattr(bench.journal, "seal", fail(OSError(28, "No space left on device")))
    bench.add(bench.make(4))
    assert bench.flush()
    bench.check()
    assert bench.store.seqs == [1, 2, 3, 4]


ERRORS = [OSError(24, "Too many open files"), SystemExit(), KeyboardInterrupt(), MemoryError()]
ERRORS += [asyncio.CancelledError(), RecursionError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", ["read_range", "seal", "mark_stored", "write"])
def test_one_error_anywhere_does_not_end_the_storing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    bench.store.act = fail(ConnectionError())
    for _ in range(8):
        bench.add(bench.make(4))
    if where == "write":
        bench.store.act, calls = once(lambda batch: None, error)
    else:
        act, calls = once(getattr(bench.journal, where), error)
        monkeypatch.setattr(bench.journal, where, act)
        bench.store.act = lambda batch: None
    assert bench.flush()
    assert len(calls) > 1, "the fault really happened"
    bench.check()
    assert bench.store.seqs == list(range(1, 33))
    bench.add(bench.make(4))
    assert bench.flush()
    assert len(bench.store.seqs) == 36


def test_a_task_that_is_cancelled_from_outside_goes_on(bench: Bench) -> None:
    cancelled = []

    def cancel(batch: SpanBatch) -> None:
        if not cancelled:
            task = asyncio.current_task()
            assert task is not None
            cancelled.append(task.cancel())
            raise ConnectionError

    bench.store.act = cancel
    bench.add(bench.make(4))
    assert bench.flush()
    assert cancelled == [True]
    assert bench.store.seqs == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [ValueError(), SystemExit()], ids=lambda e: type(e).__name__)
def test_who_measures_and_who_is_told_cannot_end_the_storing(
    bench: Bench, error: BaseException
) -> None:
    bench.prepare = fail(error)
    bench.worker._on_stored = fail(error)
    bench.failures.listen(fail(error))
    bench.store.act = fail(ConnectionError())
    for _ in range(8):
        bench.add(bench.make(4))
    bench.store.act = lambda batch: None
    assert bench.flush()
    bench.check()
    assert bench.store.seqs == list(range(1, 33))


def test_a_slow_write_is_counted_once_while_it_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "SLOW_SECONDS", 0.05)
    go, entered = threading.Event(), threading.Event()
    bench.store.act = lambda batch: (entered.set(), go.wait(20))
    running.look()  # as a watchdog does, which keeps the clock going
    bench.add(bench.make(1))
    assert entered.wait(10)
    threading.Event().wait(0.06)
    for _ in range(3):
        bench.add(bench.make(1))
    assert bench.failures.counts() == {"storage.slow: TimeoutError": 1}
    go.set()
    assert bench.flush()
    assert bench.failures.counts() == {"storage.slow: TimeoutError": 1}
    assert bench.store.seqs == [1, 2, 3, 4]


def test_what_is_dropped_of_a_range_is_not_stored_later(bench: Bench) -> None:
    append, bench.store.act = bench.append, fail(ConnectionError())
    for _ in range(3):
        bench.add(bench.make(5))
    journaled = bench.make(3)
    bench.append = lambda spans: (append(spans), fail(OSError(5, "too late"))())
    bench.add(journaled + bench.make(2))
    bench.append = append
    bench.add(bench.make(5))
    bench.check()
    assert bench.worker.dropped == {"storage_behind": 2}
    bench.store.act = lambda batch: None
    assert bench.flush()
    bench.check()
    assert bench.store.seqs == [q for q in range(1, 26) if q not in (19, 20)]


def test_a_journal_that_lost_its_segments_costs_them_and_no_more(bench: Bench) -> None:
    bench.store.act = fail(ConnectionError())
    for _ in range(8):
        bench.add(bench.make(5))
    for path in bench.journal.folder.glob("*.log"):
        path.write_bytes(b"")
    bench.store.act = lambda batch: None
    assert bench.flush()
    bench.check()
    assert bench.worker.dropped == {"journal_damaged": 25}
    assert (bench.worker.journaled, bench.worker.queued) == (0, 0)


class Faults:
    """Makes functions fail at random, before or after they have worked, until it is over."""

    def __init__(self, rng: random.Random) -> None:
        self.over = False
        self._rng = rng
        self._lock = threading.Lock()

    def of(self, real: Callable[..., Any], *, late: bool = True) -> Callable[..., Any]:
        rate = self._rng.choice([0.0, 0.2, 0.6])

        def act(*arguments: Any) -> Any:
            with self._lock:
                first, second = (not self.over and self._rng.random() < rate for _ in range(2))
            if first:
                raise OSError(28, "No space left on device")
            result = real(*arguments)
            if late and second:
                raise OSError(5, "it was done, and says that it was not")
            return result

        return act


@pytest.mark.parametrize("seed", range(40))
def test_the_ledger_balances_and_nothing_is_stored_twice_whatever_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    faults, journaled = Faults(rng), set[int]()

    def append(spans: list[Span]) -> int:
        size = Journal.append(bench.journal, spans)
        journaled.update(s.seq or 0 for s in spans)
        return size

    bench.append = faults.of(append, late=False)
    for name in ("seal", "mark_stored"):
        monkeypatch.setattr(bench.journal, name, faults.of(getattr(bench.journal, name)))
    bench.store.act = faults.of(lambda batch: None)
    bench.worker._backlog_bytes = rng.choice([SIZE, 5 * SIZE, 50 * SIZE])
    rows: list[Span] = []
    for _ in range(60):
        rows += bench.make(rng.randint(1, 6))
        while len(rows) > 8 or (rows and rng.random() < 0.2):
            count = rng.randint(1, len(rows))
            bench.add(rows[:count])
            rows = rows[count:]
        if rng.random() < 0.1:
            bench.flush(0.001)
        bench.check()
    if rng.random() < 0.5:
        faults.over = True
        if rows:
            bench.add(rows)
        assert bench.flush()
        bench.check()
        worker = bench.worker
        assert (worker.queued, worker.journaled) == (0, 0)
        assert worker.stored == len(bench.store.seqs)
    bench.crash_and_recover()
    assert journaled <= set(bench.store.seqs), "what was journaled is stored"
    assert len(bench.store.seqs) == len(set(bench.store.seqs)), f"seed {seed}"
