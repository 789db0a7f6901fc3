"""Compaction: the small files of closed days become one, and nobody ever reads a span twice or not."""

from __future__ import annotations

import datetime as dt
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmops_core import StorageError, open_storage
from llmops_core.batch import SpanBatch
from llmops_core.journal.writer import Journal
from llmops_core.storage.parquet import ParquetStorage, merging
from llmops_core.storage.parquet import compaction as compaction_module
from llmops_core.storage.parquet.compaction import Compactor, Limits, small_files
from llmops_core.storage.parquet.lock import owner
from llmops_core.storage.parquet.sources import SOURCES_KEY
from llmops_core.testing import full_span, make_batch, make_span
from llmops_core.testing.spans import START
from llmops_core.testing.store import Store

DAY = 86_400_000_000
NAME = "2026-01-01"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def _no_long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_module, "LEAST_GRACE_SECONDS", 0.05)


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(ParquetStorage(folder))
    yield store
    store.close()


def fill(store: Store, *, writers: int = 2, files: int = 4, rows: int = 10) -> list[SpanBatch]:
    """Write some files of each of some writers, all of one closed day."""
    batches, number = [], 1
    for file in range(files):
        for writer in range(writers):
            spans = [(full_span if n % 3 else make_span)(number + n) for n in range(rows)]
            batch = make_batch(spans, writer_id=f"w{writer}", first_seq=1 + file * rows)
            store.run(store.storage.write(batch))
            batches.append(batch)
            number += rows
    return batches


def visible(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.parquet"))


def compactor(folder: Path, **options: Any) -> Compactor:
    return Compactor(folder, **{"grace_seconds": 0, **options})


def dies(compaction: Compactor, steps: Iterator[float]) -> None:
    """Leave a compaction as a kill -9 does: nothing is removed, the lock goes with the process."""
    compaction._pid = -1
    steps.close()  # type: ignore[attr-defined]


def every_row(folder: Path) -> pa.Table:
    with open_storage(f"parquet:{folder}") as reader:
        return reader.query(order=["span_id"])


def test_the_files_of_a_closed_day_become_one_and_every_value_stays(
    store: Store, folder: Path
) -> None:
    fill(store)
    before = every_row(folder)
    report = compactor(folder).run()
    assert len(visible(folder)) == 1
    after = every_row(folder)
    assert before.num_rows == 80
    assert after.equals(before)
    assert after.schema == before.schema
    assert (report.days, report.files_before, report.files_after, report.spans) == (1, 8, 1, 80)
    assert (report.deleted, report.failed, report.left_alone) == (8, [], {})
    assert store.query(order=["span_id"]).equals(before), "also for a reader that was open before"


def test_a_merged_file_is_sorted_by_trace_typed_as_others_and_for_the_owner_alone(
    store: Store, folder: Path
) -> None:
    fill(store)
    written = pq.read_schema(visible(folder)[0])
    compactor(folder, limits=Limits(piece_bytes=20_000)).run()
    (path,) = visible(folder)
    table = pq.read_table(path)
    keys = list(zip(table["trace_id"].to_pylist(), table["start_time"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert pq.read_metadata(path).num_row_groups > 1, "it was made piece by piece"
    assert pq.read_schema(path).equals(written)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_day_that_is_still_written_to_is_left_until_it_is_asked_for(folder: Path) -> None:
    store = Store(ParquetStorage(folder))
    now = int(dt.datetime.now(dt.UTC).timestamp() * 1_000_000)
    for n in range(3):
        store.write(make_span(n, start_time=now, end_time=now))
    store.close()
    assert compactor(folder).run().files_before == 0
    assert compactor(folder, today=True).run().files_before == 3
    assert len(visible(folder)) == 1


def test_a_day_that_nothing_came_to_for_a_while_is_closed_whatever_its_date(folder: Path) -> None:
    store = Store(ParquetStorage(folder))
    future = START + 50_000 * DAY
    for n in range(3):
        store.write(make_span(n, start_time=future, end_time=future))
    store.close()
    assert compactor(folder).run().files_before == 0
    for path in visible(folder):
        os.utime(path, (1, 1))
    assert compactor(folder).run().files_before == 3


def test_at_every_step_readers_see_each_span_once_and_no_file_that_cannot_be_read(
    store: Store, folder: Path
) -> None:
    fill(store)
    first = len(store.query())
    reads = 0
    for _ in compactor(folder, limits=Limits(piece_bytes=20_000)).steps():
        ids = store.query(columns=["span_id"])["span_id"].to_pylist()
        assert len(ids) == len(set(ids)) == first
        assert every_row(folder).num_rows == first, "a reader that opens now"
        for path in visible(folder):
            pq.read_metadata(path)
        reads += 1
    assert reads > 5


@pytest.mark.parametrize("step", range(0, 24, 2))
def test_after_a_death_at_any_step_everything_is_there_once_and_the_next_run_cleans_up(
    store: Store, folder: Path, step: int
) -> None:
    fill(store, files=2)
    before = every_row(folder)
    compaction = compactor(folder, limits=Limits(piece_bytes=20_000))
    steps = compaction.steps()
    for _ in range(step):
        next(steps, None)
    dies(compaction, steps)
    assert every_row(folder).equals(before)
    compactor(folder).run()
    assert every_row(folder).equals(before)
    assert len(visible(folder)) == 1
    assert list(folder.glob("*/.*")) == []


def test_what_a_killed_compactor_left_half_written_goes_when_a_monitor_opens(
    store: Store, folder: Path
) -> None:
    fill(store)
    compaction = compactor(folder, limits=Limits(piece_bytes=20_000))
    steps = compaction.steps()
    while not list(folder.glob("*/.*.tmp")):
        next(steps)
    Store(ParquetStorage(folder)).close()
    assert list(folder.glob("*/.*.tmp")), "its compactor lives"
    dies(compaction, steps)
    Store(ParquetStorage(folder)).close()
    assert list(folder.glob("*/.*.tmp")) == []


def test_stopping_a_compaction_removes_what_it_had_begun(store: Store, folder: Path) -> None:
    fill(store)
    steps = compactor(folder, limits=Limits(piece_bytes=20_000)).steps()
    while not list(folder.glob("*/.*.tmp")):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert list(folder.glob("*/.*.tmp")) == []
    assert owner(folder) is None


def test_a_range_that_was_compacted_is_not_written_again_by_a_recovery(
    store: Store, folder: Path
) -> None:
    batches = fill(store)
    compactor(folder).run()
    for batch in batches:
        store.run(store.storage.write(batch))
    assert len(visible(folder)) == 1
    late = make_batch([make_span(900)], writer_id="w0", first_seq=41)
    store.run(store.storage.write(late))
    assert len(visible(folder)) == 2, "a range that is new is written"
    assert every_row(folder).num_rows == 81


def test_a_span_in_a_journal_and_in_a_compacted_file_is_read_once(
    store: Store, folder: Path
) -> None:
    journal = Journal(folder / ".journal", "w0", max_bytes=2**30)
    batches = [make_batch([make_span(n)], writer_id="w0", first_seq=n) for n in (1, 2, 3)]
    for batch in batches:
        journal.append(batch.rows)
    for batch in batches[:2]:
        store.run(store.storage.write(batch))
    assert len(store.query()) == every_row(folder).num_rows == 3
    compactor(folder).run()
    assert len(store.query()) == every_row(folder).num_rows == 3
    journal.release()


def test_late_files_are_merged_with_a_compacted_one_and_both_stay_known(
    store: Store, folder: Path
) -> None:
    batches = fill(store)
    compactor(folder).run()
    batches += [make_batch([make_span(900)], writer_id="w0", first_seq=41)]
    store.run(store.storage.write(batches[-1]))
    before = every_row(folder)
    compaction = compactor(folder)
    steps = compaction.steps()
    while len(visible(folder)) != 3:  # both sources, and what replaces them
        next(steps)
    assert every_row(folder).equals(before)
    dies(compaction, steps)
    assert every_row(folder).equals(before)
    compactor(folder).run()
    assert len(visible(folder)) == 1
    for batch in batches:
        store.run(store.storage.write(batch))
    assert len(visible(folder)) == 1
    assert every_row(folder).equals(before)


def test_a_copy_of_a_folder_with_replaced_files_still_counts_each_span_once(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    fill(store)
    saved = tmp_path / "saved"
    shutil.copytree(folder, saved)
    compactor(folder).run()
    for path in visible(folder):
        shutil.copy(path, saved / NAME)
    assert len(visible(saved)) == 9
    assert every_row(saved).num_rows == 80


def test_two_compactors_never_work_at_once_and_the_second_says_who_does(
    store: Store, folder: Path
) -> None:
    fill(store)
    steps = compactor(folder).steps()
    next(steps)
    with pytest.raises(StorageError, match=f"Process {os.getpid()} on .* compacts"):
        compactor(folder).run()
    assert (owner(folder) or {})["pid"] == os.getpid()
    steps.close()  # type: ignore[attr-defined]
    assert owner(folder) is None
    assert compactor(folder).run().files_before == 8


def test_one_that_is_to_finish_throws_away_what_is_half_merged_and_deletes_what_it_replaced(
    store: Store, folder: Path
) -> None:
    fill(store)
    before = every_row(folder)
    work = compactor(folder, limits=Limits(piece_bytes=1_000, file_rows=40))
    steps = work.steps()
    while not work.report.files_after or not list(folder.glob(f"{NAME}/.*")):
        next(steps)
    work.finish()
    for wait in steps:
        time.sleep(wait)
    assert work.report.files_after == 1, "the second one was not finished"
    assert work.report.deleted == work.report.files_before > 1
    assert (
        len(visible(folder)) == 8 - work.report.deleted + 1 == len(list((folder / NAME).iterdir()))
    )
    assert every_row(folder).equals(before)
    assert owner(folder) is None


def test_a_forked_child_neither_releases_nor_keeps_its_parents_lock(folder: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from llmops_core.storage.parquet.compaction import Compactor
from llmops_core.storage.parquet.lock import owner
from llmops_core.storage.parquet.sources import SOURCES_KEY
folder = Path(sys.argv[1])
steps = Compactor(folder, limits=None).steps()
next(steps)
child = os.fork()
if child == 0:
    steps.close()
    os._exit(0)
os.waitpid(child, 0)
assert owner(folder)["pid"] == os.getpid(), "the child's end gave the lock away"
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
steps.close()
assert owner(folder) is None, "the child keeps the lock"
os.kill(child, 9)
"""
    (folder / NAME).mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def rewrite(path: Path, table: pa.Table) -> None:
    metadata = pq.read_schema(path).metadata
    kept = {k: v for k, v in metadata.items() if k != b"ARROW:schema"}
    pq.write_table(table.replace_schema_metadata(kept), path)


def test_columns_that_an_older_version_did_not_have_become_null(store: Store, folder: Path) -> None:
    fill(store, writers=1, files=3)
    old = visible(folder)[0]
    rewrite(old, pq.read_table(old).drop_columns(["resume_key", "measurements"]))
    before = every_row(folder)
    compactor(folder).run()
    (path,) = visible(folder)
    after = every_row(folder)
    assert after.equals(before)
    assert pq.read_table(path)["resume_key"].null_count >= 10


@pytest.mark.parametrize("newer", ["column", "type", "version", "field"])
def test_a_file_with_what_is_not_known_here_is_kept_whole(
    store: Store, folder: Path, newer: str
) -> None:
    fill(store, writers=1, files=3)
    path = visible(folder)[0]
    table = pq.read_table(path)
    if newer == "column":
        table = table.append_column("new_column", pa.array(["x"] * len(table)))
    elif newer == "type":
        finer = table["end_time"].cast(pa.timestamp("ns", tz="UTC"))
        table = table.set_column(table.column_names.index("end_time"), "end_time", finer)
    elif newer == "version":
        table = table.replace_schema_metadata({"llmops.schema_version": "2"})
    else:
        tags = pa.array([["x"]] * len(table), pa.large_list(pa.string()))
        table = table.set_column(table.column_names.index("tags"), "tags", tags)
    pq.write_table(table, path)
    content = path.read_bytes()
    report = compactor(folder).run()
    assert report.left_alone == {"newer": 1}
    assert report.files_before == 2
    assert path.read_bytes() == content


def test_a_damaged_file_is_left_alone_and_the_others_are_merged(store: Store, folder: Path) -> None:
    fill(store, writers=1, files=4)
    footer, pages = visible(folder)[:2]
    footer.write_bytes(b"PAR1 not at all PAR1")
    data = bytearray(pages.read_bytes())
    data[4 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4)
    pages.write_bytes(data)
    report = compactor(folder).run()
    assert report.left_alone == {"damaged": 2}
    assert report.files_before == 2
    assert {footer, pages} < set(visible(folder))
    assert every_row(folder).num_rows == 20


def test_a_file_that_no_longer_says_what_it_was_made_of_is_left_alone(
    store: Store, folder: Path
) -> None:
    fill(store, writers=1, files=2)
    compactor(folder).run()
    (merged,) = visible(folder)
    merged.write_bytes(merged.read_bytes().replace(SOURCES_KEY, b"llmops.s\0urces"))
    store.run(store.storage.write(make_batch([make_span(901)], writer_id="w8")))
    store.run(store.storage.write(make_batch([make_span(902)], writer_id="w9")))
    report = compactor(folder).run()
    assert report.left_alone == {"damaged": 1}
    assert (report.failed, report.files_before) == ([], 2), "the others are merged"
    assert merged in visible(folder)
    assert every_row(folder).num_rows == 22


def test_what_is_deleted_while_it_is_merged_does_not_come_back(store: Store, folder: Path) -> None:
    fill(store, writers=1, files=3)
    steps = compactor(folder, limits=Limits(piece_bytes=20_000)).steps()
    while not list(folder.glob("*/.*.tmp")):
        next(steps)
    gone = visible(folder)[0]
    gone.unlink()
    for _ in steps:
        pass
    assert len(visible(folder)) == 2
    steps = compactor(folder, limits=Limits(piece_bytes=20_000)).steps()
    while not list(folder.glob("*/.*.tmp")):
        next(steps)
    shutil.rmtree(folder / NAME)
    assert all(wait >= 0 for wait in steps), "it ends without an error"
    assert not (folder / NAME).exists()


@pytest.mark.parametrize("where", ["space", "write", "rename"])
def test_a_disk_that_is_full_leaves_everything_as_it_was(
    store: Store, folder: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, writers=1, files=3)
    before = visible(folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if where == "space":
            free = shutil.disk_usage(folder)._replace(free=10)
            patched.setattr(shutil, "disk_usage", lambda _: free)
        elif where == "write":
            patched.setattr(pq.ParquetWriter, "write_table", full)
        else:
            patched.setattr(Path, "rename", full)
        report = compactor(folder).run()
    assert report.failed == [f"{NAME}: OSError No space left on device"]
    assert visible(folder) == before
    assert list(folder.glob("*/.*")) == []
    assert compactor(folder).run().files_before == 3, "and it goes on when there is space"


def test_a_file_that_holds_as_many_as_it_may_is_not_merged_again(
    store: Store, folder: Path
) -> None:
    fill(store, writers=2, files=6)
    limits = Limits(file_rows=50)
    report = compactor(folder, limits=limits).run()
    assert (report.files_before, report.files_after) == (12, 3)
    assert sorted(pq.read_metadata(p).num_rows for p in visible(folder)) == [20, 50, 50]
    assert compactor(folder, limits=limits).run().files_before == 0
    assert every_row(folder).num_rows == 120


def test_a_day_larger_than_memory_is_merged_in_the_memory_of_a_piece(
    store: Store, folder: Path
) -> None:
    # Small spans first, and all large ones in neighbouring traces: an average would not do.
    number = 1
    for file in range(12):
        large = "x" * 200_000 if file % 2 else "y"
        spans = [
            make_span(number + n, trace_id=f"{n * 100 + file % 2:032x}", input=f"{n}{large}")
            for n in range(100)
        ]
        store.run(store.storage.write(make_batch(spans, writer_id="w", first_seq=number)))
        number += 100
    before = every_row(folder).select(["span_id", "input"])
    size = sum(len(text) for text in before["input"].to_pylist())
    piece, row_group = 2_000_000, 100 * 200_000
    most, base = 0, pa.total_allocated_bytes()
    for _ in compactor(folder, limits=Limits(piece_bytes=piece)).steps():
        most = max(most, pa.total_allocated_bytes() - base)
    assert len(visible(folder)) == 1
    assert every_row(folder).select(["span_id", "input"]).equals(before)
    assert size > 100_000_000
    assert most < merging._OVERSIZE * piece + row_group


def test_small_files_of_closed_days_are_counted(store: Store, folder: Path) -> None:
    fill(store)
    assert small_files(folder) == (8, 1)
    compactor(folder).run()
    assert small_files(folder) == (0, 0)
