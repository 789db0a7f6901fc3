"""Parquet in an object store: keys, compaction, damage, and what is read of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow.dataset as ds
import pytest

from llmops_core import ConfigError, Monitor, RetryableError, SpanQuery, open_storage
from llmops_core.errors import StorageError
from llmops_core.plugins import PluginHost
from llmops_core.query.arrow_filters import columns_of, plain_schema, row_filter
from llmops_core.query.duckdb_engine import Cancellation
from llmops_core.storage.parquet import mirror
from llmops_core.storage.parquet.mirror import Lease
from llmops_core.storage.parquet.place import PlaceUrl
from llmops_core.storage.parquet.remote import RemoteParquetStorage
from llmops_core.testing.spans import START, make_batch, make_span
from llmops_core.testing.store import Store

DAY = 86_400_000_000


def made(url: str) -> Any:
    return PluginHost(()).storage(url)


@pytest.fixture
def store(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(mirror, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(RemoteParquetStorage, "grace_seconds", 0.0)
    store = Store(made(s3_url))
    yield store
    store.close()


def paths(store: Store) -> list[str]:
    return [f.path.rpartition("/")[2] for f in store.storage._connected().list_files("")]


def compact(store: Store, **options: Any) -> Any:
    work = store.storage.compactor(**({"today": True, "grace_seconds": 0.0} | options))
    for _ in work.steps():
        pass
    return work.report


# ---- compaction ----


def test_compaction_makes_few_objects_of_many_and_changes_no_answer(store: Store) -> None:
    for at in range(1, 7):
        start = START + (at % 2) * DAY + at
        store.write(make_span(at, start_time=start, end_time=start + 1))
    before = store.spans()
    report = compact(store)
    assert (report.files_before, report.files_after, report.spans, report.deleted) == (6, 2, 6, 6)
    assert [name.startswith("events_compacted_") for name in paths(store)] == [True, True]
    assert store.spans() == before
    assert compact(store).files_before == 0


def test_a_replay_of_a_range_that_was_compacted_adds_nothing(store: Store) -> None:
    batches = [store.write(make_span(at)) for at in (1, 2)]
    compact(store)
    for batch in batches:
        store.run(store.storage.write(batch))
    assert len(paths(store)) == 1
    assert len(store.spans()) == 2


def test_between_the_new_object_and_the_end_of_the_old_ones_each_span_is_seen_once(
    store: Store, s3_url: str
) -> None:
    """Also where the compaction dies there; the next one removes what is left over."""
    for at in range(1, 5):
        store.write(make_span(at))
    steps = store.storage.compactor(today=True, grace_seconds=60.0).steps()
    assert next(steps) == 0.0
    assert next(steps) == 60.0
    assert len(paths(store)) == 5
    reader = Store(made(s3_url))
    assert len(reader.spans()) == len(store.spans()) == 4
    reader.close()
    steps.close()
    assert compact(store).deleted == 4
    assert len(store.spans()) == 4


def test_only_one_changes_objects_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(make_span(1))
    lease = Lease(store.storage._connected())
    lease.take()
    with pytest.raises(RetryableError, match=r"Process \d+ on .* changes objects"):
        compact(store)
    with pytest.raises(RetryableError):
        store.delete()
    now = time.time()
    monkeypatch.setattr(mirror.time, "time", lambda: now + mirror.LEASE_SECONDS + 1)
    assert store.delete() == 1  # whoever had it is dead
    lease.release()


def test_a_day_that_is_still_written_to_is_left_alone(store: Store) -> None:
    now = time.time_ns() // 1_000
    for at in range(1, 4):
        store.write(make_span(at, start_time=now, end_time=now))
    assert compact(store, today=False).files_before == 0
    assert len(paths(store)) == 3


# ---- reading ----


def test_an_object_that_cannot_be_read_is_left_out_and_counted(store: Store) -> None:
    store.write(make_span(1))
    store.write(make_span(2))
    place = store.storage._connected()
    first = place.list_files("")[0].path
    place.put(first, b"PAR1 and no more")
    assert [span.span_id for span in store.spans()] == [f"{2:016x}"]
    assert store.storage.unreadable_files == 1


def test_a_query_reads_the_columns_it_needs_and_no_others() -> None:
    assert columns_of(SpanQuery.build(columns=["name"], where=[("attributes.k", "=", "v")])) == [
        "span_id", "name", "start_time", "attributes",
    ]  # fmt: skip
    assert columns_of(SpanQuery.build(aggregates=["count"])) == ["span_id"]
    assert columns_of(SpanQuery.build(group_by=["model"], aggregates=["sum:cost_usd"])) == [
        "model", "cost_usd",
    ]  # fmt: skip


def test_row_groups_that_cannot_match_are_not_read(store: Store) -> None:
    """By their statistics: of twenty objects one is read for one moment."""
    for at in range(1, 21):
        store.write(make_span(at))
    query = SpanQuery.build(since=START + 5_000, until=START + 5_001)
    dataset = ds.dataset(
        [f.path for f in store.storage.visible(None)],
        filesystem=store.storage._connected().filesystem,
        format="parquet",
        schema=plain_schema(columns_of(query)),
    )
    kept = [f.subset(filter=row_filter(query)) for f in dataset.get_fragments()]
    assert sum(fragment.num_row_groups for fragment in kept) == 1
    assert store.storage.answer(query, Cancellation()).num_rows == 1


def test_a_monitor_writes_there_and_a_reader_reads(s3_url: str) -> None:
    monitor = Monitor(storage=s3_url)
    batch = make_batch([make_span(1)])
    monitor.close()
    storage = made(s3_url)
    store = Store(storage)
    store.run(storage.write(batch))
    store.close()
    with open_storage(s3_url) as reader:
        assert reader.query(columns=["name"])["name"].to_pylist() == ["span-1"]


# ---- URLs, errors and keys ----


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3:///x", "bucket"),
        ("s3://b/../c", "leads out"),
        ("s3://b/x?secret_key=hunter2", "environment variables"),
        ("s3://b/x?scheme=ftp", "http or https"),
        ("s3://KEY@b/x", "without its secret"),
        ("s3://KEY:hunter2@b/x#y", "%23"),
    ],
)
def test_a_url_that_cannot_be_used_says_so_without_its_key(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PlaceUrl(url)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_a_setup_error(s3_url: str) -> None:
    url = s3_url.replace("llmops-test-", "nobodys-")
    with pytest.raises(StorageError, match="no bucket 'nobodys-") as caught:
        Store(made(url))
    assert not isinstance(caught.value, RetryableError)


def test_a_reader_says_where_nothing_is(s3_url: str) -> None:
    with pytest.raises(StorageError, match="nothing at"):
        open_storage(s3_url)


def test_a_store_that_does_not_answer_is_a_retryable_error(unused_tcp_port: int) -> None:
    url = f"parquet:s3://AKIAKEY:hunter2@b/x?endpoint_override=127.0.0.1:{unused_tcp_port}&region=r"
    with pytest.raises(RetryableError) as caught:
        Store(made(url))
    assert "hunter2" not in str(caught.value)
    assert "AKIAKEY" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_keys_are_shown_nowhere() -> None:
    storage = made("parquet:s3://AKIAKEY:hunter2@b/x?region=r")
    shown = f"{storage!r} {storage} {vars(storage)!r} {vars(storage.url)!r} {storage.url.place}"
    assert "hunter2" not in shown
    assert "AKIAKEY" not in shown
