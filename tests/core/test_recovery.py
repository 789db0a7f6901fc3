"""What a dead writer had journaled is stored once, whoever recovers and however often."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops_core import Monitor
from llmops_core.batch import SpanBatch
from llmops_core.journal import recovery
from llmops_core.journal import writer as journal_module
from llmops_core.journal.format import segments
from llmops_core.journal.recovery import RecoveryReport, recover
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.span import Span
from llmops_core.storage.memory import MemoryStorage


def span(seq: int, *, outcome: str = "ok", run: int | None = None) -> Span:
    run = run or seq
    return Span(
        span_id=f"{run:016x}",
        trace_id=f"{run:032x}",
        kind="llm",
        name="m",
        outcome=outcome,
        start_time=seq,
        end_time=seq + 1,
        seq=seq,
        writer_id="w",
    )


class Store:
    """Keeps batches; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[SpanBatch] = []
        self.failures = failures

    async def write(self, batch: SpanBatch) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("no")
        self.batches.append(batch)

    @property
    def seqs(self) -> list[int | None]:
        return sorted(s.seq or 0 for b in self.batches for s in b.rows)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(b.first_seq, b.last_seq) for b in self.batches]


def died(root: Path, *, upto: int = 10) -> Journal:
    journal = Journal(root, new_writer_id(), max_bytes=2**30)
    for seq in range(1, upto + 1):
        journal.append([span(seq)])
    return journal


def run(root: Path, store: Store, batch_spans: int = 4) -> RecoveryReport:
    return asyncio.run(recover(root, store.write, batch_spans=batch_spans))


def test_journaled_spans_are_stored_and_the_journal_goes(tmp_path: Path) -> None:
    died(tmp_path).release()
    store = Store()
    report = run(tmp_path, store)
    assert store.seqs == list(range(1, 11))
    assert store.ranges == [(1, 4), (5, 8), (9, 10)]
    assert (report.writers, report.spans) == (1, 10)
    assert list(tmp_path.iterdir()) == []


def test_what_was_stored_is_not_stored_again(tmp_path: Path) -> None:
    journal = died(tmp_path)
    journal.seal(1, 6)
    journal.mark_stored(1, 6)
    journal.release()
    store = Store()
    report = run(tmp_path, store)
    assert store.seqs == [7, 8, 9, 10]
    assert report.already_stored == 6


def test_a_sealed_range_is_cut_as_its_writer_had_cut_it(tmp_path: Path) -> None:
    journal = died(tmp_path)
    journal.seal(1, 7)
    journal.release()
    store = Store()
    run(tmp_path, store)
    assert store.ranges == [(1, 7), (8, 10)]


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    journal = died(tmp_path)
    store = Store()
    report = run(tmp_path, store)
    assert (report.skipped_living, store.batches) == (1, [])
    journal.release()


def test_recovering_twice_stores_once(tmp_path: Path) -> None:
    died(tmp_path).release()
    store = Store()
    run(tmp_path, store)
    run(tmp_path, store)
    assert store.seqs == list(range(1, 11))


def test_two_recoverers_at_once_store_once(tmp_path: Path) -> None:
    for _ in range(5):
        died(tmp_path).release()
    stores = [Store(), Store()]

    async def slowly(store: Store, batch: SpanBatch) -> None:
        await asyncio.sleep(0)  # let the other one in between
        await store.write(batch)

    async def race() -> None:
        await asyncio.gather(
            *(recover(tmp_path, lambda b, s=s: slowly(s, b), batch_spans=2) for s in stores)
        )

    asyncio.run(race())
    assert sorted(stores[0].seqs + stores[1].seqs) == sorted([*range(1, 11)] * 5)


def test_a_recovery_that_fails_in_the_middle_is_continued_with_the_same_ranges(
    tmp_path: Path,
) -> None:
    died(tmp_path).release()

    class Dies(Store):
        async def write(self, batch: SpanBatch) -> None:
            if len(self.batches) == 1:
                raise OSError("disk full")
            await super().write(batch)

    first, second = Dies(), Store()
    report = run(tmp_path, first)
    assert len(report.failed) == 1, "the fault really happened"
    assert first.ranges == [(1, 4)]
    run(tmp_path, second, batch_spans=3)
    assert second.ranges == [(5, 8), (9, 10)], "sealed before the failure, so cut the same way"
    assert sorted(first.seqs + second.seqs) == list(range(1, 11))


def test_a_range_that_was_sealed_between_others_is_not_taken_by_a_new_one(tmp_path: Path) -> None:
    journal = died(tmp_path, upto=12)
    journal.seal(4, 6)
    journal.mark_stored(9, 9)
    journal.release()
    store = Store()
    run(tmp_path, store, batch_spans=5)
    assert store.ranges == [(1, 3), (4, 6), (7, 8), (10, 12)]


def test_what_was_open_is_numbered_on_in_batches(tmp_path: Path) -> None:
    journal = died(tmp_path, upto=3)
    journal.replace_open([span(0, outcome="incomplete", run=run) for run in range(100, 110)])
    journal.release()
    store = Store()
    assert run(tmp_path, store).incomplete == 10
    assert store.seqs == list(range(1, 14))
    assert len({s.span_id for b in store.batches for s in b.rows}) == 13


def test_a_large_journal_is_recovered_within_the_memory_of_a_few_ranges(tmp_path: Path) -> None:
    journal = Journal(tmp_path, new_writer_id(), max_bytes=2**30)
    for first in range(1, 20_001, 100):
        journal.append([span(q).replace(input="x" * 2_000) for q in range(first, first + 100)])
    journal.release()
    assert journal.size > 40_000_000
    stored = 0

    async def write(batch: SpanBatch) -> None:
        nonlocal stored
        stored += len(batch)

    tracemalloc.start()
    try:
        report = asyncio.run(recover(tmp_path, write, batch_spans=1_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (report.spans, stored) == (20_000, 20_000)
    assert peak < 20_000_000, "a segment, or a few ranges"


def test_a_long_recovery_lets_others_on_its_thread_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "STEP_SECONDS", 0.0)  # a fast machine is done before
    journal = Journal(tmp_path, new_writer_id(), max_bytes=2**30)
    for first in range(1, 30_001, 50):
        journal.append([span(q).replace(input="x" * 500) for q in range(first, first + 50)])
    journal.release()
    began_writing = False
    turns = [0, 0]

    async def write(batch: SpanBatch) -> None:  # as a storage that never awaits
        nonlocal began_writing
        began_writing = True

    async def others() -> None:
        while True:
            turns[began_writing] += 1
            await asyncio.sleep(0)

    async def main() -> RecoveryReport:
        living = asyncio.create_task(others())
        try:
            return await recover(tmp_path, write, batch_spans=1_000)
        finally:
            living.cancel()

    assert asyncio.run(main()).spans == 30_000
    assert turns[0] > 3, "while it looks what lies where"
    assert turns[1] > 20, "and between the ranges that it stores"


def test_what_was_open_becomes_incomplete_once(tmp_path: Path) -> None:
    journal = died(tmp_path, upto=3)
    opened = [span(0, outcome="incomplete", run=100), span(0, outcome="incomplete", run=2)]
    journal.replace_open(opened)
    journal.release()
    store = Store(failures=1)
    assert run(tmp_path, store).incomplete == 1
    run(tmp_path, store)
    rows = {s.span_id: s for b in store.batches for s in b.rows}
    assert rows[f"{100:016x}"].outcome == "incomplete"
    assert rows[f"{100:016x}"].seq == 4
    assert rows[f"{2:016x}"].outcome == "ok", "it finished after the file was written"
    assert store.seqs == [1, 2, 3, 4]


class Killed(BaseException):
    """Stands for a kill -9: nothing after it runs."""


@pytest.mark.parametrize("steps", range(12))
def test_a_recovery_killed_while_it_removes_the_journal_stores_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 100)
    journal = died(tmp_path, upto=4)
    journal.replace_open([span(0, outcome="incomplete", run=100)])
    (journal.folder / ".open.tmp").touch()
    journal.release()
    assert len(segments(journal.folder)) == 4
    store, left = Store(), steps
    unlink, rmdir = Path.unlink, Path.rmdir

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def step(path: Path, *arguments: object, **named: object) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            real(path, *arguments, **named)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", counted(unlink))
        patched.setattr(Path, "rmdir", counted(rmdir))
        with contextlib.suppress(Killed):
            run(tmp_path, store)
    assert journal.folder.exists() == (steps < 11), "the fault really happened"
    assert run(tmp_path, store).failed == []
    assert store.seqs == [1, 2, 3, 4, 5]
    assert not journal.folder.exists()


def test_a_torn_tail_is_cut_and_counted(tmp_path: Path) -> None:
    journal = died(tmp_path)
    journal.release()
    path = segments(journal.folder)[-1]
    path.write_bytes(path.read_bytes()[:-5])
    store = Store()
    report = run(tmp_path, store)
    assert store.seqs == list(range(1, 10))
    assert report.torn_bytes > 0
    assert report.damaged_records == 0


def test_damage_in_the_middle_costs_its_record_and_is_kept_aside(tmp_path: Path) -> None:
    journal = died(tmp_path)
    journal.release()
    path = segments(journal.folder)[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    store = Store()
    report = run(tmp_path, store)
    assert report.damaged_records == 1
    assert len(store.seqs) == 9
    kept = tmp_path / ".corrupt" / f"{journal.folder.name}-{path.name}"
    assert kept.read_bytes() == bytes(data)


def test_one_bad_journal_does_not_stop_the_others(tmp_path: Path) -> None:
    first = died(tmp_path)
    first.release()
    (first.folder / "000000.log").mkdir()  # unreadable as a file
    died(tmp_path).release()
    store = Store()
    report = run(tmp_path, store)
    assert len(report.failed) == 1
    assert store.seqs == list(range(1, 11))


@pytest.mark.parametrize("name", ["nothing", "a_file"])
def test_a_root_that_is_no_folder_is_nothing_to_recover(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("x")
    assert run(tmp_path / name, Store()).writers == 0


def test_a_monitor_that_closes_at_once_has_recovered_a_small_journal(tmp_path: Path) -> None:
    died(tmp_path / ".journal").release()
    with Monitor(f"parquet:{tmp_path}") as monitor:
        pass
    assert monitor._pipeline is not None
    assert monitor._pipeline.recovered is not None
    assert monitor._pipeline.recovered.spans == 10
    assert monitor.stats()["failures"] == {}


def test_a_monitor_that_closes_leaves_a_long_recovery_to_the_next_and_says_nothing(
    tmp_path: Path,
) -> None:
    for _ in range(3):
        died(tmp_path).release()

    class Slow(MemoryStorage):
        volatile = False
        journal_root = tmp_path
        closed = False

        async def write(self, batch: SpanBatch) -> None:
            assert not self.closed, "nothing is written to a closed storage"
            await super().write(batch)
            await asyncio.sleep(0.4)

        async def close(self) -> None:
            self.closed = True

    storage = Slow()
    with Monitor(storage, batch_size=2) as monitor:
        pass
    assert monitor.stats()["failures"] == {}
    store = Store()
    run(tmp_path, store)
    assert store.batches, "there was more to do"
    assert len(store.seqs) < 30, "and some of it was done"
