"""The query connection reads one folder and does nothing else, whatever SQL it is given."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmops_core import QueryError, SpanQuery, StorageError
from llmops_core.query import duckdb_engine, run_query
from llmops_core.query.duckdb import Statement, compile_query
from llmops_core.query.duckdb_engine import MEMORY, Cancellation, DuckEngine, EngineError
from llmops_core.schema import arrow_schema
from llmops_core.testing import make_batch, make_span

SECRET = "sk-do-not-repeat-me"
TAIL = arrow_schema().empty_table()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.table({"a": [1]}), folder / "inside.parquet")
    (tmp_path / "data2").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "data2" / "outside.parquet")
    return folder


@pytest.fixture
def engine(folder: Path) -> Iterator[DuckEngine]:
    engine = DuckEngine(folder)
    yield engine
    engine.close()


def run(engine: DuckEngine, sql: str) -> pa.Table:
    statement = Statement()
    statement.sql = sql
    return engine.execute(statement, TAIL, Cancellation())


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{outside}/stolen.csv'",
        "COPY (SELECT 1) TO '{folder}/planted.csv'",
        "ATTACH '{folder}/planted.db'",
        "ATTACH '{outside}/planted.db'",
        "CREATE TABLE t AS SELECT 1",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access=true",
        "SET lock_configuration=false",
        "PRAGMA threads=8",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/planted.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('{folder}/../../../../../../etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('{outside}/outside.parquet')",
        "SELECT * FROM read_parquet('{folder}2/outside.parquet')",
        "SELECT * FROM read_parquet('http://localhost:1/x.parquet')",
        "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "SELECT * FROM TAIL_OF_A_PYTHON_VARIABLE",
        "SELECT getenv('HOME')",
    ],
)
def test_it_is_refused(engine: DuckEngine, folder: Path, sql: str) -> None:
    TAIL_OF_A_PYTHON_VARIABLE = pa.table({"a": [1]})  # noqa: F841
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(EngineError):
        run(engine, sql.format(folder=folder, outside=folder.parent))
    assert sorted(folder.parent.rglob("*")) == before


def test_a_file_of_the_folder_and_the_tail_are_read(engine: DuckEngine, folder: Path) -> None:
    assert run(engine, f"SELECT a FROM read_parquet('{folder}/inside.parquet')").num_rows == 1
    assert run(engine, "SELECT count(*) FROM tail").num_rows == 1


def test_what_is_set_holds_where_queries_run(engine: DuckEngine) -> None:
    """A cursor does not have the settings that its connection has for itself."""
    names = ("python_enable_replacements", "TimeZone", "parquet_metadata_cache", "memory_limit")
    found = run(engine, f"SELECT name, value FROM duckdb_settings() WHERE name IN {names}")
    assert dict(zip(*found.to_pydict().values(), strict=True)) == {
        "python_enable_replacements": "false",
        "TimeZone": "UTC",
        "parquet_metadata_cache": "true",
        "memory_limit": "1.8 GiB",
    }


def test_an_error_does_not_repeat_what_it_was_about(engine: DuckEngine) -> None:
    for sql in (f"SELECT '{SECRET}'::INTEGER", f"SELECT {SECRET!r} FROM nowhere"):
        with pytest.raises(StorageError) as caught:
            run(engine, sql)
        assert SECRET not in str(caught.value)
        assert caught.value.__suppress_context__


def test_no_value_and_no_key_of_a_query_is_part_of_its_sql() -> None:
    query = SpanQuery.build(
        equal={"name": SECRET, f"attributes.{SECRET}": SECRET, "model": [SECRET, "b"]},
        where=[("tags", "contains", SECRET), ("input", "starts with", SECRET)],
        since=1_000,
        order=[f"-attributes.{SECRET}"],
        limit=7,
        after=[SECRET, SECRET],
    )
    statement = compile_query(query, [f"/{SECRET}.parquet"])
    aliases_only = statement.sql
    assert SECRET not in aliases_only
    assert SECRET in statement.values
    grouped = SpanQuery.build(group_by=['attributes.a" FROM x; --'], aggregates=["count"])
    assert '"attributes.a"" FROM x; --"' in compile_query(grouped).sql


def test_a_query_past_its_time_is_stopped(folder: Path) -> None:
    engine = DuckEngine(folder, seconds=0.05)
    with pytest.raises(EngineError, match="stopped"):
        run(engine, "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b")
    engine.close()


def test_a_cancelled_query_is_stopped(engine: DuckEngine) -> None:
    cancellation = Cancellation()
    statement = Statement()
    statement.sql = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    timer = threading.Timer(0.05, cancellation.cancel)
    timer.start()
    with pytest.raises(EngineError, match=r"stopped|cancelled"):
        engine.execute(statement, TAIL, cancellation)
    timer.join()


def test_an_engine_that_is_closed_while_queries_run_closes_its_connection_with_the_last(
    engine: DuckEngine,
) -> None:
    """DuckDB 2.0 refuses to close a connection while a cursor of it is at work."""
    statement = Statement()
    statement.sql = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    failed: list[BaseException] = []

    def ask() -> None:
        with pytest.raises(EngineError, match="stopped") as caught:
            engine.execute(statement, TAIL, Cancellation())
        failed.append(caught.value)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    deadline = time.monotonic() + 30
    while len(engine._running) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    connection = engine._connection
    assert connection is not None
    engine.close()
    while any(asker.is_alive() for asker in askers) and time.monotonic() < deadline:
        engine.interrupt()  # one that had not begun has not heard of the close
        time.sleep(0.05)
    assert len(failed) == 2
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        connection.execute("SELECT 1")
    assert run(engine, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_a_query_beyond_its_memory_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = tuple(s.replace(f"'{MEMORY}'", "'50MB'") for s in duckdb_engine._SETTINGS)
    monkeypatch.setattr(duckdb_engine, "_SETTINGS", little)
    engine = DuckEngine(folder)
    with pytest.raises(EngineError, match="memory"):
        run(engine, "SELECT list(range::VARCHAR || repeat('x', 900)) FROM range(200000)")
    engine.close()


@pytest.mark.parametrize(
    "where",
    [
        ("seq", "=", 2**63),
        ("seq", "in", [1, -(2**63) - 1]),
        ("name", "=", "\ud800"),
        ("start_time", ">", 10**30),
    ],
)
def test_a_value_that_no_column_can_hold_is_a_query_error(where: tuple[object, ...]) -> None:
    with pytest.raises(QueryError):
        run_query(TAIL, SpanQuery.build(where=[where]))


def test_a_sum_beyond_64_bits_is_an_error_and_not_a_wrong_number() -> None:
    table = make_batch([make_span(1, step=2**62), make_span(2, step=2**62)]).arrow
    with pytest.raises(QueryError, match="64 bits"):
        run_query(table, SpanQuery.build(aggregates=["sum:step"]))
