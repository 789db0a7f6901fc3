"""The Parquet storage: the files it writes, and what it makes of files that others left."""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmops_core import ConfigError, LLMOpsError, StorageError, UnknownStorage, open_storage
from llmops_core.batch import spans_from_arrow
from llmops_core.plugins import PluginHost
from llmops_core.query import duckdb as duckdb_compiler
from llmops_core.query.duckdb import Statement
from llmops_core.schema import COLUMN_NAMES
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.testing import full_span, make_batch, make_span
from llmops_core.testing.spans import START
from llmops_core.testing.store import Store

DAY = 86_400_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(ParquetStorage(folder))
    yield store
    store.close()


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_is_named_after_its_day_its_writer_and_its_range(store: Store, folder: Path) -> None:
    store.run(store.storage.write(make_batch([full_span(1)], writer_id="abc9", first_seq=17)))
    assert files(folder) == ["2026-01-01/events_abc9_17-17.parquet"]


def test_a_range_that_crosses_midnight_has_a_file_in_each_day(store: Store, folder: Path) -> None:
    store.write(make_span(1), make_span(2, end_time=START + DAY), make_span(3))
    names = ["2026-01-01/events_writer1_1-3.parquet", "2026-01-02/events_writer1_1-3.parquet"]
    assert files(folder) == names
    assert [pq.read_metadata(folder / n).num_rows for n in names] == [2, 1]


def test_a_replay_touches_no_file_and_completes_what_a_crash_left_out(
    store: Store, folder: Path
) -> None:
    batch = store.write(make_span(1), make_span(2, end_time=START + DAY))
    first, second = (folder / name for name in files(folder))
    before = first.stat()
    second.unlink()
    store.run(store.storage.write(batch))
    after = first.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert second.exists()


def test_only_the_owner_can_read_what_is_written(store: Store, folder: Path) -> None:
    store.write(make_span(1))
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_a_file_is_zstd_sorted_by_trace_and_says_where_it_comes_from(
    store: Store, folder: Path
) -> None:
    store.write(*(make_span(at, trace_id=f"{at % 3:032x}") for at in range(1, 10)))
    path = folder / files(folder)[0]
    metadata = pq.read_metadata(path)
    assert metadata.row_group(0).column(0).compression == "ZSTD"
    assert metadata.metadata[b"llmops.schema_version"] == b"1"
    assert metadata.metadata[b"llmops.source"] == b"writer1:1-9"
    keys = [(s.trace_id, s.start_time) for s in spans_from_arrow(pq.read_table(path))]
    assert keys == sorted(keys)


def test_a_large_batch_has_row_groups_of_at_most_20000(store: Store, folder: Path) -> None:
    store.write(*(make_span(at) for at in range(1, 20_002)))
    metadata = pq.read_metadata(folder / files(folder)[0])
    groups = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    assert groups == [20_000, 1]
    assert store.query(aggregates=["count"])["count"].to_pylist() == [20_001]


def test_a_failed_write_raises_and_leaves_nothing_behind(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (folder / "2026-01-01").mkdir()
    with pytest.raises(OSError, match="No space"):
        store.write(make_span(1))
    assert files(folder) == []


def test_a_folder_that_is_deleted_meanwhile_is_made_again(store: Store, folder: Path) -> None:
    folder.rmdir()
    store.write(make_span(1))
    assert store.names() == ["span-1"]


@pytest.mark.parametrize("writer", ["", "A", "a_b", "a-b", "../x", "a b", "ä"])
def test_a_batch_without_a_proper_range_is_refused(store: Store, folder: Path, writer: str) -> None:
    batch = make_batch([make_span(1)], writer_id=writer)
    with pytest.raises(StorageError, match="Expected a writer id"):
        store.run(store.storage.write(batch))
    assert files(folder) == []


def test_dates_beyond_the_calendar_are_kept(store: Store) -> None:
    far, early = 400_000 * 366 * DAY // 10, -3_000 * 366 * DAY
    store.write(
        make_span(1, start_time=far, end_time=far), make_span(2, start_time=early, end_time=early)
    )
    assert store.names(order=["start_time"]) == ["span-2", "span-1"]


class TestOpening:
    @pytest.mark.parametrize("url", ["parquet:", "parquet: ", "parquet://", "parquet://host/x"])
    def test_a_url_without_a_path_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigError, match="parquet:"):
            PluginHost().storage(url)

    def test_a_misspelt_scheme_is_recognised(self) -> None:
        with pytest.raises(UnknownStorage, match="parquet"):
            PluginHost().storage("parqet:./x")

    @pytest.mark.parametrize("form", ["parquet:{}", "parquet://{}"])
    def test_a_path_may_be_written_in_two_ways(self, folder: Path, form: str) -> None:
        storage = PluginHost().storage(form.format(folder))
        assert isinstance(storage, ParquetStorage)
        assert storage.folder == folder
        assert storage.journal_root == folder / ".journal"
        assert not folder.exists()

    def test_a_file_in_the_way_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(StorageError, match="file' is a file"):
                Store(ParquetStorage(path))
        assert files(tmp_path) == ["file"]

    def test_a_folder_that_may_not_be_written_is_named(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        with pytest.raises(StorageError, match="not writable"):
            Store(ParquetStorage(folder / "below"))
        assert not folder.exists()

    def test_a_folder_that_cannot_be_made_is_an_error_of_ours(self) -> None:
        with pytest.raises(LLMOpsError):
            Store(ParquetStorage("/proc/llmops/below"))


class TestLeftovers:
    """Temporary files: ``.events_<writer>_<range>.<token>.parquet.tmp``."""

    @staticmethod
    def plant(folder: Path, writer: str) -> Path:
        day = folder / "2026-01-01"
        day.mkdir(parents=True, exist_ok=True)
        path = day / f".events_{writer}_1-5.0a1b2c3d.parquet.tmp"
        path.write_bytes(b"PAR1 half")
        return path

    @staticmethod
    def lock(folder: Path, writer: str) -> int:
        (folder / ".journal" / writer).mkdir(parents=True)
        descriptor = os.open(folder / ".journal" / writer / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def test_those_of_a_dead_writer_are_swept(self, folder: Path) -> None:
        path = self.plant(folder, "dead")
        os.close(self.lock(folder, "dead"))
        Store(ParquetStorage(folder)).close()
        assert not path.exists()

    def test_those_of_a_living_writer_stay(self, folder: Path) -> None:
        path = self.plant(folder, "alive")
        descriptor = self.lock(folder, "alive")
        Store(ParquetStorage(folder)).close()
        os.close(descriptor)
        assert path.exists()

    def test_those_of_an_unknown_writer_stay_for_ten_minutes(self, folder: Path) -> None:
        fresh, old = self.plant(folder, "fresh"), self.plant(folder, "old")
        os.utime(old, (0, 0))
        Store(ParquetStorage(folder)).close()
        assert fresh.exists()
        assert not old.exists()

    def test_a_reader_sweeps_nothing(self, folder: Path) -> None:
        path = self.plant(folder, "old")
        os.utime(path, (0, 0))
        open_storage(f"parquet:{folder}").close()
        assert path.exists()


class TestForeignFiles:
    def test_a_file_that_cannot_be_read_is_left_out_and_said_once(
        self, store: Store, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.write(make_span(1))
        bad = folder / "2026-01-01" / "events_other_1-9.parquet"
        bad.write_bytes(b"")
        with caplog.at_level(logging.WARNING, logger="llmops"):
            for _ in range(3):
                assert store.names() == ["span-1"]
        assert [r.getMessage() for r in caplog.records] == [
            f"left out of queries, as it cannot be read: {bad}"
        ]
        assert store.storage.unreadable_files == 1  # type: ignore[attr-defined]

    def test_a_file_that_is_repaired_is_read_again(self, store: Store, folder: Path) -> None:
        store.write(make_span(1))
        path = folder / files(folder)[0]
        whole = path.read_bytes()
        path.write_bytes(whole[:50])
        assert store.names() == []
        path.write_bytes(whole)
        assert store.names() == ["span-1"]

    def test_damage_behind_a_sound_footer_costs_that_file_only(
        self, store: Store, folder: Path
    ) -> None:
        store.write(*(make_span(at, input="text " * at) for at in range(1, 300)))
        store.write(make_span(500))
        store.write(make_span(501))
        path = folder / "2026-01-01" / "events_writer1_1-299.parquet"
        data = bytearray(path.read_bytes())
        begin = pq.read_metadata(path).row_group(0).column(COLUMN_NAMES.index("input"))
        at = begin.data_page_offset
        data[at : at + 40] = b"\xff" * 40
        path.write_bytes(data)
        assert pq.read_metadata(path).num_rows == 299
        found = store.query()["name"].to_pylist()
        assert found == ["span-501", "span-500"]

    def test_a_query_that_fails_by_itself_is_not_blamed_on_the_files(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write(make_span(1))
        store.write(make_span(2))
        with monkeypatch.context() as patched:
            patched.setitem(duckdb_compiler._QUANTILES, "p50", 7.0)
            with pytest.raises(StorageError, match="failed in DuckDB"):
                store.query(aggregates=["p50:step"])
        assert len(store.names()) == 2
        assert store.storage.unreadable_files == 0  # type: ignore[attr-defined]

    def test_a_file_with_other_types_is_left_out(self, store: Store, folder: Path) -> None:
        store.write(make_span(1))
        foreign = pa.table({"span_id": [1], "start_time": ["yesterday"], "tags": [3.5]})
        pq.write_table(foreign, folder / "2026-01-01" / "events_other_1-1.parquet")
        assert store.names() == ["span-1"]
        assert store.query().num_rows == 1

    def test_files_under_other_names_are_not_read(self, store: Store, folder: Path) -> None:
        store.write(make_span(1))
        path = folder / files(folder)[0]
        for name in ("part-0.parquet", "events_x.parquet", "events_X_1-2.parquet", "_1-2.parquet"):
            (path.parent / name).write_bytes(path.read_bytes())
        (folder / "other").mkdir()
        (folder / "other" / path.name).write_bytes(path.read_bytes())
        assert store.names() == ["span-1"]

    def test_a_link_that_leads_out_of_the_folder_is_not_followed(
        self, store: Store, folder: Path, tmp_path: Path
    ) -> None:
        store.write(make_span(1))
        outside = tmp_path / "outside.parquet"
        (folder / files(folder)[0]).rename(outside)
        (folder / "2026-01-01" / "events_writer1_1-1.parquet").symlink_to(outside)
        (folder / "2026-01-02").symlink_to(tmp_path)
        assert store.names() == []

    def test_a_file_without_newer_columns_reads_as_nulls(self, store: Store, folder: Path) -> None:
        store.write(full_span(1))
        path = folder / files(folder)[0]
        old = pq.read_table(path).drop_columns(["resume_key", "measurements", "sample_weight"])
        pq.write_table(old, path)
        [span] = store.spans()
        assert span.resume_key is None
        assert span.measurements is None
        assert span.input == full_span(1).input
        assert store.rows(aggregates=["count", "sum:measurements.score"]) == [
            {"count": 1, "sum_measurements.score": None}
        ]

    @pytest.mark.parametrize("aged", [0, 1], ids=["the older file", "the newer file"])
    def test_a_file_that_lacks_a_column_is_read_beside_one_that_has_it(
        self, store: Store, folder: Path, aged: int
    ) -> None:
        store.write(full_span(1))
        store.write(full_span(2))
        path = folder / files(folder)[aged]
        pq.write_table(pq.read_table(path).drop_columns(["resume_key", "measurements"]), path)
        lacking, having = full_span(1 + aged), full_span(2 - aged)
        for _ in range(2):  # the second query knows what the first met
            keys = store.query(columns=["resume_key"], order=["-seq"])["resume_key"].to_pylist()
            assert keys == ([having.resume_key, None] if aged == 0 else [None, having.resume_key])
            assert store.names(equal={"resume_key": having.resume_key}) == [having.name]
            assert store.names(where=[("measurements.score", "is null")]) == [lacking.name]
            assert store.rows(aggregates=["count"]) == [{"count": 2}]

    def test_footers_of_files_that_are_alike_are_not_all_read_first(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write(make_span(1))
        store.write(make_span(2))
        storage = store.storage
        assert isinstance(storage, ParquetStorage)
        execute, asked = storage._engine.execute, []

        def note(statement: Statement, *arguments: Any) -> pa.Table:
            asked.append(statement.sql)
            return execute(statement, *arguments)

        monkeypatch.setattr(storage._engine, "execute", note)
        assert store.names() == ["span-2", "span-1"]
        assert all("union_by_name=false" in sql for sql in asked)

    def test_a_file_that_vanishes_during_a_query_is_not_missed(
        self, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write(make_span(1))
        store.write(make_span(2))
        storage = store.storage
        assert isinstance(storage, ParquetStorage)
        run = storage._engine.run
        victims = [folder / "2026-01-01" / "events_writer1_1-1.parquet"]

        def run_after_a_deletion(*arguments: Any, **options: Any) -> pa.Table:
            while victims:
                victims.pop().unlink()
            return run(*arguments, **options)

        monkeypatch.setattr(storage._engine, "run", run_after_a_deletion)
        assert store.names() == ["span-2"]
        assert storage.unreadable_files == 0


class TestYourData:
    """Other tools read the folder as it is, with a journal in it."""

    @pytest.fixture
    def written(self, store: Store, folder: Path) -> Path:
        store.write(full_span(1), make_span(2), make_span(3, end_time=START + DAY))
        (folder / ".journal" / "writer1").mkdir(parents=True)
        (folder / ".journal" / "writer1" / "000001.log").write_bytes(b"LJ1\n not parquet")
        TestLeftovers.plant(folder, "alive")
        return folder

    def test_duckdb(self, written: Path) -> None:
        with duckdb.connect() as connection:
            sql = f"SELECT count(*), max(cost_usd) FROM '{written}/*/events_*.parquet'"
            [(count, cost)] = connection.sql(sql).fetchall()
        assert count == 3
        assert cost == full_span(1).cost_usd

    def test_pandas(self, written: Path) -> None:
        frame = pd.read_parquet(written)
        assert sorted(frame["name"]) == sorted(["span-2", "span-3", full_span(1).name])
        assert str(frame["start_time"].dtype) == "datetime64[us, UTC]"

    def test_polars(self, written: Path) -> None:
        frame = pl.read_parquet(f"{written}/*/events_*.parquet")
        assert frame.height == 3
        assert frame.filter(pl.col("name") == "span-2")["start_time"].to_list() == [
            dt.datetime.fromtimestamp((START + 2_000) / 1e6, dt.UTC)
        ]


def test_days_before_since_are_not_opened(store: Store, folder: Path) -> None:
    store.write(make_span(1), make_span(2, start_time=START + DAY, end_time=START + DAY + 5))
    early = folder / "2026-01-01" / "events_writer1_1-2.parquet"
    early.write_bytes(b"broken")
    assert store.names(since=START + DAY) == ["span-2"]
    assert store.storage.unreadable_files == 0  # type: ignore[attr-defined]


def test_a_query_that_is_cancelled_ends(store: Store) -> None:
    store.write(*(make_span(at) for at in range(1, 50)))

    async def cancelled() -> str:
        from llmops_core.query import SpanQuery

        task = asyncio.create_task(store.storage.query(SpanQuery()))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "answered"

    assert store.run(cancelled()) == "cancelled"
    assert len(store.spans()) == 49
