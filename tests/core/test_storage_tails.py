"""Queries see what is journaled and not in a file yet, and each span once."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops_core import Span, SpanBatch
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.journal.format import encode_range, encode_spans, encode_stored
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.storage.parquet.files import RangeFile, list_files
from llmops_core.testing import full_span, make_batch, make_span
from llmops_core.testing.spans import START
from llmops_core.testing.store import Store

DAY = 86_400_000_000


@pytest.fixture
def storage(tmp_path: Path) -> ParquetStorage:
    return ParquetStorage(tmp_path / "data")


@pytest.fixture
def store(storage: ParquetStorage) -> Iterator[Store]:
    store = Store(storage)
    yield store
    store.close()


def journal(
    storage: ParquetStorage, data: bytes, writer: str = "writer1", segment: int = 1
) -> Path:
    path = storage.journal_root / writer / f"{segment:06d}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
    return path


def sealed(*spans: Span, writer: str = "writer1", first: int = 1) -> SpanBatch:
    return make_batch(spans, writer_id=writer, first_seq=first)


def test_a_journaled_span_is_found_before_any_file_exists(
    store: Store, storage: ParquetStorage
) -> None:
    journal(storage, encode_spans(sealed(full_span(1)).rows))
    assert [s.span_id for s in store.spans()] == [full_span(1).span_id]


def test_a_span_of_the_tail_equals_the_span_that_will_be_stored(
    store: Store, storage: ParquetStorage
) -> None:
    batch = sealed(make_span(1, input="two words", output="a\nb"), make_span(2))
    journal(storage, encode_spans(batch.rows))
    tail = store.spans()
    values = CapacityCollector().collect(batch)
    measured = [
        span.replace(**{name: column[at] for name, column in values.items()})
        for at, span in enumerate(batch.rows)
    ]
    assert tail == measured
    store.run(store.storage.write(batch.with_rows(measured)))
    assert store.spans() == tail


def test_a_span_in_both_is_found_once(store: Store, storage: ParquetStorage) -> None:
    spans = [make_span(1), make_span(2), make_span(3)]
    journal(storage, encode_spans(sealed(*spans).rows))
    store.write(*spans[:2])
    assert store.names(order=["start_time"]) == ["span-1", "span-2", "span-3"]


def test_a_range_that_is_stored_for_one_day_only_is_not_doubled_or_lost(
    store: Store, storage: ParquetStorage
) -> None:
    batch = sealed(make_span(1), make_span(2, end_time=START + DAY), make_span(3))
    journal(storage, encode_spans(batch.rows) + encode_range(1, 3))
    store.run(store.storage.write(batch))
    second_day = storage.folder / "2026-01-02" / "events_writer1_1-3.parquet"
    second_day.unlink()  # as a crash between the two renames leaves it
    fresh = Store(ParquetStorage(storage.folder))
    assert fresh.names(order=["start_time"]) == ["span-1", "span-2", "span-3"]
    fresh.close()


def test_the_same_numbers_of_another_writer_are_other_spans(
    store: Store, storage: ParquetStorage
) -> None:
    store.write(make_span(1))
    journal(storage, encode_spans(sealed(make_span(2), writer="other").rows), writer="other")
    assert store.names(order=["start_time"]) == ["span-1", "span-2"]


def test_a_long_lived_reader_sees_what_is_appended(store: Store, storage: ParquetStorage) -> None:
    for number in range(1, 30):
        segment = 1 + number // 10
        journal(
            storage, encode_spans(sealed(make_span(number), first=number).rows), segment=segment
        )
        assert len(store.names()) == number


def test_half_a_record_is_read_once_it_is_whole(store: Store, storage: ParquetStorage) -> None:
    data = encode_spans(sealed(make_span(1)).rows)
    journal(storage, data[:-7])
    assert store.names() == []
    journal(storage, data[-7:])
    assert store.names() == ["span-1"]


def test_damage_in_a_journal_costs_the_damaged_record_only(
    store: Store, storage: ParquetStorage
) -> None:
    records = [encode_spans(sealed(make_span(at), first=at).rows) for at in (1, 2, 3)]
    broken = bytearray(records[1])
    broken[20] ^= 0xFF
    journal(storage, records[0] + broken + records[2])
    assert store.names(order=["start_time"]) == ["span-1", "span-3"]


def test_a_span_moves_from_the_journal_to_a_file_without_a_gap(
    store: Store, storage: ParquetStorage
) -> None:
    batch = sealed(make_span(1), make_span(2))
    path = journal(storage, encode_spans(batch.rows))
    counts = [len(store.names())]
    store.run(store.storage.write(batch))
    counts.append(len(store.names()))
    journal(storage, encode_stored(1, 2))
    counts.append(len(store.names()))
    path.unlink()
    counts.append(len(store.names()))
    shutil.rmtree(storage.journal_root)
    counts.append(len(store.names()))
    assert counts == [2, 2, 2, 2, 2]


def test_a_journal_that_vanishes_while_it_is_listed_is_tolerated(
    store: Store, storage: ParquetStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal(storage, encode_spans(sealed(make_span(1)).rows))
    gone = storage.journal_root / "writer1" / "000002.log"
    real = [storage.journal_root / "writer1" / "000001.log"]
    monkeypatch.setattr("llmops_core.storage.parquet.tail.segments", lambda _: [*real, gone])
    assert store.names() == ["span-1"]


def test_a_deleted_file_does_not_bring_its_spans_back_from_the_journal(
    store: Store, storage: ParquetStorage
) -> None:
    batch = sealed(make_span(1), make_span(2))
    store.run(store.storage.write(batch))
    journal(storage, encode_spans(batch.rows) + encode_stored(1, 2))
    shutil.rmtree(storage.folder / "2026-01-01")
    assert store.names() == []


def test_a_journal_being_made_and_other_files_are_passed_over(
    store: Store, storage: ParquetStorage
) -> None:
    journal(storage, encode_spans(sealed(make_span(1)).rows), writer=".hidden")
    (storage.journal_root / "a-file").write_text("")
    assert store.names() == []


def test_a_stored_span_is_not_kept_in_memory(store: Store, storage: ParquetStorage) -> None:
    batch = sealed(*(make_span(at) for at in range(1, 100)))
    journal(storage, encode_spans(batch.rows))
    assert len(store.names()) == 99
    store.run(store.storage.write(batch))
    assert len(store.names()) == 99
    held = [s.spans for w in storage._tails._writers.values() for s in w._segments.values()]
    assert held == [[]]


def test_readers_beside_a_writer_never_miss_or_double_a_span(
    store: Store, storage: ParquetStorage
) -> None:
    """Journal, file, note, removal of the segment: at each moment every journaled span is found."""
    journaled = 0
    failures: list[str] = []
    done = threading.Event()

    def read(reader: ParquetStorage) -> None:
        own = Store(reader)
        while not done.is_set():
            least = journaled
            ids = own.query(columns=["span_id"])["span_id"].to_pylist()
            if len(ids) < least or len(ids) != len(set(ids)):
                failures.append(f"{len(ids)} spans, {len(set(ids))} different, {least} journaled")
        own.close()

    others = [ParquetStorage(storage.folder, read_only=True) for _ in range(2)]
    threads = [threading.Thread(target=read, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for number in range(40):
        first = number * 5 + 1
        spans = [make_span(first + at, end_time=START + (at % 2) * DAY + 9**6) for at in range(5)]
        batch = sealed(*spans, first=first)
        path = journal(
            storage, encode_spans(batch.rows) + encode_range(first, first + 4), segment=first
        )
        journaled += 5
        store.run(storage.write(batch))
        journal(storage, encode_stored(first, first + 4), segment=first)
        path.unlink()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.names()) == 200


@pytest.mark.parametrize("moment", ["before the files are listed", "after the files are listed"])
def test_a_span_that_moves_in_the_middle_of_a_query_is_found_once(
    store: Store, storage: ParquetStorage, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    batch = sealed(make_span(1), make_span(2))
    path = journal(storage, encode_spans(batch.rows))

    def move() -> None:
        asyncio.run(ParquetStorage(storage.folder).write(batch))
        path.unlink()

    def listing(folder: Path, since: int | None) -> list[RangeFile]:
        if moment.startswith("before"):
            move()
            return list_files(folder, since)
        found = list_files(folder, since)
        move()
        return found

    with monkeypatch.context() as patched:
        patched.setattr("llmops_core.storage.parquet.storage.list_files", listing)
        assert store.names(order=["start_time"]) == ["span-1", "span-2"]
    assert store.names(order=["start_time"]) == ["span-1", "span-2"]
