"""``open_storage``: blocking queries anywhere, and asynchronous twins."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from llmops_core import (
    ConfigError,
    QueryError,
    SpanBatch,
    SpanQuery,
    StorageError,
    UnknownStorage,
    open_storage,
)
from llmops_core.storage.memory import MemoryStorage
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.testing import make_span
from llmops_core.testing.store import Store


@pytest.fixture
def url(tmp_path: Path) -> str:
    store = Store(ParquetStorage(tmp_path / "data"))
    store.write(
        make_span(1, kind="workflow"),
        make_span(3, parent_id=f"{1:016x}"),
        make_span(2, parent_id=f"{1:016x}", session_id="s"),
        make_span(4, trace_id=f"{2:032x}"),
    )
    store.close()
    return f"parquet:{tmp_path / 'data'}"


class Silent(MemoryStorage):
    """Never answers."""

    async def query(self, query: SpanQuery) -> pa.Table:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")


def test_a_column_by_name_selects_and_the_rest_shapes_the_answer(url: str) -> None:
    with open_storage(url) as reader:
        names = reader.query(kind="llm", order=["start_time"], columns=["name"])["name"]
        assert names.to_pylist() == ["span-2", "span-3", "span-4"]
        assert reader.query(session_id=None, limit=1)["name"].to_pylist() == ["span-4"]
        counts = reader.query(group_by=["trace_id"], aggregates=["count"])
        assert counts["count"].to_pylist() == [3, 1]


def test_a_query_object_is_taken_as_it_is_and_not_mixed(url: str) -> None:
    query = SpanQuery.build(equal={"name": "span-1"})
    with open_storage(url) as reader:
        assert reader.query(query).num_rows == 1
        with pytest.raises(QueryError, match="one or the other"):
            reader.query(query, limit=3)
        with pytest.raises(QueryError, match="SpanQuery"):
            reader.query("SELECT 1")  # type: ignore[arg-type]


def test_a_misspelt_column_is_recognised(url: str) -> None:
    with open_storage(url) as reader, pytest.raises(QueryError, match="session_id"):
        reader.query(sesion_id="x")


def test_a_trace_is_its_spans_oldest_first(url: str) -> None:
    with open_storage(url) as reader:
        assert [s.name for s in reader.trace(f"{1:032x}")] == ["span-1", "span-2", "span-3"]
        assert reader.trace("none") == []


async def test_the_twins_do_not_block_the_loop_and_the_others_work_in_it(url: str) -> None:
    async with open_storage(url) as reader:
        tables = await asyncio.gather(*(reader.aquery(kind="llm", limit=2) for _ in range(3)))
        assert [t.num_rows for t in tables] == [2, 2, 2]
        assert (await reader.aquery(SpanQuery())).num_rows == 4
        assert reader.query().num_rows == 4


def test_threads_may_share_a_reader(url: str) -> None:
    found: list[int] = []
    with open_storage(url) as reader:
        threads = [
            threading.Thread(target=lambda: found.append(reader.query().num_rows)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [4] * 8


def test_a_folder_that_does_not_exist_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no folder"):
        open_storage(f"parquet:{tmp_path / 'none'}")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_opened_for_reading_takes_no_spans(url: str) -> None:
    with open_storage(url) as reader, pytest.raises(StorageError, match="for reading"):
        asyncio.run(reader.storage.write(SpanBatch([make_span(9)])))


def test_an_object_is_taken_where_a_url_is() -> None:
    with open_storage(MemoryStorage()) as reader:
        assert reader.query().num_rows == 0


@pytest.mark.parametrize(
    ("storage", "error"),
    [("nothing:x", UnknownStorage), ("no-scheme", UnknownStorage), (object(), ConfigError)],
)
def test_what_is_no_storage_is_refused(storage: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_storage(storage)


def test_a_closed_reader_says_so_and_closes_again(url: str) -> None:
    reader = open_storage(url)
    reader.close()
    reader.close()
    with pytest.raises(StorageError, match="closed"):
        reader.query()


async def test_a_storage_that_does_not_answer_is_given_up_at_the_deadline() -> None:
    reader = open_storage(Silent(), timeout=0.05)
    with pytest.raises(StorageError, match="did not answer"):
        reader.query()
    with pytest.raises(StorageError, match="did not answer"):
        await reader.aquery()
    await reader.aclose()


def test_an_opened_reader_leaves_no_thread_behind(url: str) -> None:
    before = threading.active_count()
    open_storage(url).close()
    with pytest.raises(StorageError):
        open_storage(url + "/none")
    assert threading.active_count() == before


def test_a_forked_child_is_told_to_open_its_own(url: str) -> None:
    with open_storage(url) as reader:
        reader._loop._process = os.getpid() + 1
        try:
            with pytest.raises(StorageError, match="forked"):
                reader.query()
        finally:
            reader._loop._process = os.getpid()
