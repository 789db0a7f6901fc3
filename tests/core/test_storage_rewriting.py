"""Deleting and replacing in a Parquet folder: beside journals, replays, compactions and crashes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops_core import RetryableError, SpanBatch, SpanQuery
from llmops_core.journal.recovery import recover
from llmops_core.journal.writer import Journal
from llmops_core.storage.parquet import ParquetStorage, rewriting
from llmops_core.storage.parquet.compaction import Compactor
from llmops_core.storage.parquet.lock import CompactorLock, writing
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(ParquetStorage(tmp_path / "data"))
    yield store
    store.close()


def folder_of(store: Store) -> Path:
    assert isinstance(store.storage, ParquetStorage)
    return store.storage.folder


def journaled(store: Store, count: int = 4) -> tuple[Journal, SpanBatch]:
    """Return the journal of a living writer, with spans that are in no file yet."""
    assert isinstance(store.storage, ParquetStorage)
    journal = Journal(store.storage.journal_root, "w1", max_bytes=2**30)
    batch = make_batch([make_span(at) for at in range(1, count + 1)], writer_id="w1")
    journal.append(batch.rows)
    return journal, batch


def test_a_span_in_a_journal_is_deleted_and_no_way_of_storing_it_brings_it_back(
    store: Store,
) -> None:
    journal, batch = journaled(store)
    assert store.delete(equal={"name": "span-2"}) == 1
    left = [batch.rows[0], *batch.rows[2:]]
    assert store.spans() == left
    store.run(store.storage.write(batch))  # its writer stores the range
    assert store.spans() == left
    store.run(store.storage.write(batch))
    Compactor(folder_of(store), today=True, grace_seconds=0).run()
    assert store.spans() == left
    journal.release()  # its writer dies before it has noted that
    store.run(recover(journal.folder.parent, store.storage.write))
    assert store.spans() == left
    assert store.delete() == 3
    assert store.spans() == []


def test_a_span_in_a_journal_is_replaced_and_its_range_does_not_double_it(store: Store) -> None:
    journal, batch = journaled(store)
    priced = batch.rows[1].replace(cost_usd=0.5)
    assert store.replace(priced) == 1
    expected = [batch.rows[0], priced, *batch.rows[2:]]
    assert store.spans() == expected
    journal.release()
    store.run(recover(journal.folder.parent, store.storage.write))
    assert store.spans() == expected
    assert store.replace(priced.replace(cost_usd=0.75)) == 1
    assert [s.cost_usd for s in store.spans()] == [None, 0.75, None, None]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_deletion_that_dies_before_it_removes_the_old_file_is_done(
    store: Store, monkeypatch: pytest.MonkeyPatch, compacted: bool
) -> None:
    store.write(make_span(1), make_span(2))
    store.write(make_span(3))
    if compacted:
        Compactor(folder_of(store), today=True, grace_seconds=0).run()

    def die(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rewriting.time, "sleep", die)
        rewriter = store.storage._rewriter()  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            rewriter.delete(SpanQuery.build(equal={"name": "span-1"}))
    assert store.names(order=["start_time"]) == ["span-2", "span-3"]
    Compactor(folder_of(store), today=True, grace_seconds=0).run()
    assert store.names(order=["start_time"]) == ["span-2", "span-3"]


def test_a_deleted_span_is_in_no_file_of_the_folder(store: Store) -> None:
    store.write(make_span(1, input="canary-4711"), make_span(2))
    assert store.delete(equal={"name": "span-1"}) == 1
    for path in folder_of(store).rglob("*"):
        assert path.is_dir() or b"canary-4711" not in path.read_bytes()


def test_a_deletion_waits_for_a_compaction_and_says_who_compacts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(make_span(1))
    monkeypatch.setattr(rewriting, "LOCK_SECONDS", 0.1)
    lock = CompactorLock(folder_of(store))
    assert lock.take()
    with pytest.raises(RetryableError, match="compacts"):
        store.delete()
    lock.release()
    assert store.delete() == 1


def test_a_write_waits_while_spans_in_journals_are_spoken_for(store: Store) -> None:
    batch = make_batch([make_span(1)], writer_id="w1")
    done = threading.Event()

    def write() -> None:
        asyncio.run(ParquetStorage(folder_of(store)).write(batch))
        done.set()

    with writing(folder_of(store), alone=True):
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.2)
        assert store.spans() == []
    assert done.wait(20)
    thread.join()
    assert store.spans() == list(batch.rows)
