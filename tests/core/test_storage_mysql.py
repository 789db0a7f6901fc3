"""The storage in MySQL and MariaDB, beyond what the suite for every storage shows."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from llmops_core import (
    ConfigError,
    Monitor,
    PermanentError,
    RetryableError,
    StorageError,
    monitor_llm,
    open_storage,
)
from llmops_core.query import SpanQuery
from llmops_core.schema import COLUMN_NAMES
from llmops_core.span import Span
from llmops_core.testing import full_span, make_batch, make_span
from llmops_core.testing.store import Store
from servers import mysql_statements

pytest.importorskip("asyncmy")

from llmops_core.storage.mysql import MySQLStorage
from llmops_core.storage.mysql.failing import read_failure, write_failure
from llmops_core.storage.mysql.rows import in_packets, insertable

SECRET = "hunter2'\"`;--"


@pytest.fixture
def store(mysql_empty: str) -> Iterator[Store]:
    store = Store(MySQLStorage(mysql_empty))
    yield store
    store.close()


def sql(url: str, *statements: str) -> list[tuple[Any, ...]]:
    return asyncio.run(mysql_statements(url, *statements))


def table_of(url: str) -> str:
    return url.rpartition("table=")[2]


# ---- values ----


def test_blanks_at_the_end_of_a_text_count(store: Store) -> None:
    store.write(make_span(1, session_id="a"), make_span(2, session_id="a "))
    assert store.names(equal={"session_id": "a"}) == ["span-1"]
    assert store.query(group_by=["session_id"]).num_rows == 2
    store.write(make_span(3, span_id="x"), make_span(4, span_id="x "), make_span(5, span_id="X"))
    assert len(store.spans()) == 5


@pytest.mark.parametrize("common", [1_200, 30_000])
def test_texts_that_differ_late_are_ordered_and_grouped(store: Store, common: int) -> None:
    texts = ["a" * common + end for end in "cab"]
    store.write(*(make_span(at, name=text) for at, text in enumerate(texts + texts)))
    assert store.names(order=["name"]) == sorted(texts + texts)
    rows = store.rows(group_by=["name"], aggregates=["count", "p50:duration_ms"])
    assert [(row["name"], row["count"]) for row in rows] == [(t, 2) for t in sorted(texts)]


@pytest.mark.parametrize("micros", [-62_135_596_800_000_000, -1, 0, 253_402_300_799_999_999])
def test_the_first_and_the_last_microsecond_of_the_calendar_are_kept(
    store: Store, micros: int
) -> None:
    store.write(make_span(1, start_time=micros, end_time=micros))
    assert [(s.start_time, s.end_time) for s in store.spans()] == [(micros, micros)]
    assert store.names(since=micros) == ["span-1"]


@pytest.mark.parametrize(
    "number", [0.1 + 0.2, 1 / 3, 1e308, 5e-324, -0.0, 2.0**53 + 2, 123456789.123456789]
)
def test_doubles_come_back_exactly(store: Store, number: float) -> None:
    store.write(make_span(1, duration_ms=number, measurements={"m": number}))
    [span] = store.spans()
    assert (span.duration_ms, span.measurements) == (number, {"m": number})
    assert store.rows(aggregates=["max:duration_ms", "p50:measurements.m"]) == [
        {"max_duration_ms": number, "p50_measurements.m": number}
    ]
    assert store.names(where=[("measurements.m", "=", number)]) == ["span-1"]


def test_a_sum_of_whole_numbers_is_exact_and_one_beyond_64_bits_is_an_error(store: Store) -> None:
    from llmops_core import QueryError

    store.write(make_span(1, input_tokens=2**62), make_span(2, input_tokens=1))
    assert store.rows(aggregates=["sum:input_tokens"]) == [{"sum_input_tokens": 2**62 + 1}]
    store.write(make_span(3, input_tokens=2**62))
    with pytest.raises(QueryError, match="64 bits"):
        store.query(aggregates=["sum:input_tokens"])


def test_what_no_storage_can_hold_is_stored_as_in_every_other(store: Store) -> None:
    nan, infinite = float("nan"), float("-inf")
    store.write(
        make_span(
            1,
            name="a\0b\ud800c",
            input_tokens=2**64,
            cost_usd=nan,
            measurements={"n": nan, "i": infinite, "m": 1.0},
            attributes={"\0": "\udfff"},
        )
    )
    [span] = store.spans()
    assert (span.name, span.input_tokens, span.cost_usd) == ("a\u2400b\ufffdc", None, None)
    assert (span.measurements, span.attributes) == ({"m": 1.0}, {"\u2400": "\ufffd"})


# ---- writing ----


def test_a_batch_with_a_value_that_is_refused_stores_nothing(store: Store) -> None:
    bad = make_span(2, trace_id="x" * 256)
    with pytest.raises(PermanentError, match="too long"):
        store.write(make_span(1), bad, make_span(3))
    assert store.spans() == []
    store.write(make_span(1), make_span(3))
    assert store.names() == ["span-3", "span-1"]


@pytest.mark.parametrize("max_packet", [0, 70_000], ids=["one packet", "several"])
def test_a_span_that_is_refused_is_named_by_its_place_and_costs_no_connection(
    store: Store, max_packet: int
) -> None:
    storage = store.storage
    assert isinstance(storage, MySQLStorage)
    storage._max_packet = max_packet or storage._max_packet
    spans = [make_span(at, input="x" * 500) for at in range(50)]
    store.write(spans[0])
    before = store.run(_connection_id(storage))
    spans[31] = spans[31].replace(trace_id="x" * 256)
    with pytest.raises(PermanentError, match="too long") as caught:
        store.write(*spans[1:])
    assert caught.value.place == 30
    assert store.names() == ["span-0"], "nothing of it was stored"
    assert store.run(_connection_id(storage)) == before


def test_a_span_that_no_packet_can_hold_is_named_by_its_place(store: Store) -> None:
    storage = store.storage
    assert isinstance(storage, MySQLStorage)
    storage._max_packet = 1_000_000
    large = make_span(2, input="x" * 1_000_000)
    with pytest.raises(PermanentError, match="max_allowed_packet") as caught:
        store.write(make_span(1), large)
    assert caught.value.place == 1
    assert store.spans() == []


def test_a_batch_that_is_cut_into_packets_is_stored_whole(store: Store) -> None:
    storage = store.storage
    assert isinstance(storage, MySQLStorage)
    storage._max_packet = 100_000
    spans = [make_span(at, input="it's 日本 " * 1_000) for at in range(40)]
    batch = store.write(*spans)
    assert store.spans() == list(batch.rows)


def test_each_part_of_a_batch_fits_into_a_packet() -> None:
    rows = insertable(make_batch([make_span(at, input="\\" * at * 50) for at in range(200)]))[1]
    parts = list(in_packets(rows, 100_000))
    assert [row for part in parts for row in part] == rows
    assert len(parts) > 1
    for part in parts:
        text = "".join(str(value) for row in part for value in row)
        assert len(text) + text.count("\\") < 100_000


def test_four_processes_make_one_table_and_store_each_span_once(mysql_url: str) -> None:
    program = """
import asyncio, sys
from llmops_core.storage.mysql import MySQLStorage
from llmops_core.testing import make_batch, make_span
async def main():
    storage = MySQLStorage(sys.argv[1])
    await storage.open()
    for at in range(0, 100, 10):
        await storage.write(make_batch([make_span(n) for n in range(at, at + 20)]))
    await storage.close()
asyncio.run(main())
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program, mysql_url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    told = [process.communicate(timeout=120)[1].decode() for process in started]
    failed = [text for process, text in zip(started, told, strict=True) if process.returncode]
    # Two that insert the same ids at once may be told to try again; they lose nothing by it.
    assert all("RetryableError" in text for text in failed), failed
    with open_storage(mysql_url) as reader:
        found = reader.query(columns=["span_id"])["span_id"].to_pylist()
    assert len(found) == len(set(found))
    assert len(failed) < 4
    assert len(found) == 110


def test_a_table_of_an_older_version_gets_the_columns_that_it_lacks(mysql_url: str) -> None:
    with_first = Store(MySQLStorage(mysql_url))
    with_first.write(make_span(1))
    with_first.close()
    table = table_of(mysql_url)
    sql(mysql_url, f"ALTER TABLE `{table}` DROP COLUMN sample_weight, DROP COLUMN tags")
    sql(mysql_url, f"DROP INDEX session ON `{table}`")
    with pytest.raises(StorageError, match="has no column"):
        open_storage(mysql_url)
    store = Store(MySQLStorage(mysql_url))
    store.write(full_span(2))
    assert [s.name for s in store.spans()] == ["span-1", full_span(2).name]
    assert store.rows(equal={"session_id": full_span(2).session_id}, aggregates=["count"]) == [
        {"count": 1}
    ]
    store.close()
    indexes = sql(mysql_url, f"SHOW INDEX FROM `{table}`")
    assert {row[2] for row in indexes} == {"PRIMARY", "span", "trace", "session"}


def test_columns_that_a_later_version_added_are_left_alone(mysql_url: str) -> None:
    Store(MySQLStorage(mysql_url)).close()
    sql(mysql_url, f"ALTER TABLE `{table_of(mysql_url)}` ADD COLUMN later_column INT")
    store = Store(MySQLStorage(mysql_url))
    store.write(make_span(1))
    assert store.query().column_names == list(COLUMN_NAMES)
    store.close()


def test_a_reader_makes_nothing(mysql_url: str) -> None:
    with pytest.raises(StorageError, match="There is no table"):
        open_storage(mysql_url)
    assert sql(mysql_url, f"SHOW TABLES LIKE '{table_of(mysql_url)}'") == []


def test_a_session_is_strict_and_in_utc_whatever_the_server_is(store: Store) -> None:
    storage = store.storage
    assert isinstance(storage, MySQLStorage)

    async def asked() -> Any:
        async with storage._cursor() as cursor:
            await cursor.execute("SELECT @@sql_mode, @@time_zone, @@autocommit")
            return await cursor.fetchone()

    mode, zone, commits = store.run(asked())
    assert "STRICT_ALL_TABLES" in mode
    assert "NO_BACKSLASH_ESCAPES" not in mode
    assert (zone, commits) == ("+00:00", 1)


def test_what_the_server_warns_of_is_not_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    storage = store.storage
    assert isinstance(storage, MySQLStorage)

    async def warned() -> None:
        async with storage._cursor() as cursor:
            await cursor.execute("SELECT 'a secret' + 1e0")

    store.run(warned())
    assert "secret" not in caplog.text


def test_connections_that_the_server_closed_are_replaced(store: Store) -> None:
    storage = store.storage
    assert isinstance(storage, MySQLStorage)
    store.write(make_span(1))
    url = "mysql://root@127.0.0.1:3306/test"
    for _ in range(2):
        sql(_server_of(storage) or url, f"KILL {store.run(_connection_id(storage))}")
        assert store.names() == ["span-1"]
    sql(_server_of(storage) or url, f"KILL {store.run(_connection_id(storage))}")
    for last_try in (False, True):
        try:
            store.write(make_span(2))
        except RetryableError:
            assert not last_try
    assert store.names() == ["span-2", "span-1"]


async def _connection_id(storage: MySQLStorage) -> int:
    async with storage._cursor() as cursor:
        await cursor.execute("SELECT CONNECTION_ID()")
        return int((await cursor.fetchone())[0])


def _server_of(storage: MySQLStorage) -> str:
    url = storage.url
    password = f":{url.password.reveal()}" if url.password else ""
    return f"mysql://{url.user or 'root'}{password}@{url.host}:{url.port}/{url.database}"


# ---- deleting and replacing ----


def test_more_is_deleted_than_one_statement_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmops_core.query import mysql

    monkeypatch.setattr(mysql, "DELETED_AT_ONCE", 3)
    store.write(*(make_span(at, kind="tool" if at % 2 else "llm") for at in range(20)))
    selection = SpanQuery.build(equal={"kind": "tool"})
    assert store.run(store.storage.delete(selection)) == 10  # type: ignore[attr-defined]
    assert len(store.spans()) == 10


def test_a_replaced_span_loses_what_is_null_now(store: Store) -> None:
    batch = store.write(full_span(1), make_span(2))
    new = Span(
        **{name: getattr(full_span(1), name) for name in ("span_id", "trace_id", "start_time")},
        kind="tool", name="new", outcome="ok", end_time=full_span(1).end_time,
    )  # fmt: skip
    other = make_span(3)
    replaced = store.run(store.storage.replace(make_batch([new, other])))  # type: ignore[attr-defined]
    assert replaced == 1
    assert [s.name for s in store.spans()] == ["new", batch.rows[1].name]
    assert [s.input for s in store.spans()] == [None, None]


# ---- set-up and secrets ----


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://root@127.0.0.1/", "names no database"),
        ("mysql:test", "no host"),
        ("mysql://root@127.0.0.1/test?table=a`b", "Table name"),
        ("mysql://root@127.0.0.1/test?schema=a.b", "Schema name"),
        ("mysql://root@127.0.0.1/test?pool_size=0", "pool_size"),
        ("mysql://root@127.0.0.1/test?sslmode=prefer", "sslmode"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_set_up_error(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MySQLStorage(url)


def test_a_server_that_is_not_there_is_told_with_what_to_do() -> None:
    with pytest.raises(StorageError, match="cannot be reached"):
        open_storage("mysql://root@127.0.0.1:1/test")


def test_a_host_that_nobody_knows_is_a_set_up_error() -> None:
    with pytest.raises(StorageError, match="host that is not known") as caught:
        Monitor(storage="mysql://root@db.invalid/test")
    assert not isinstance(caught.value, RetryableError)


def test_no_password_is_shown_anywhere(mysql_server: str) -> None:
    from urllib.parse import quote

    from llmops_core.databases.url import DatabaseUrl

    where = DatabaseUrl(mysql_server, port=3306)
    url = f"mysql://nobody:{quote(SECRET)}@{where.host}:{where.port}/{where.database}"
    storage = MySQLStorage(url)
    shown = [repr(storage), str(vars(storage)), repr(storage.url), str(vars(storage.url))]
    with pytest.raises(TypeError):
        pickle.dumps(storage.url.password)
    with pytest.raises(StorageError) as caught:
        Store(storage)
    shown += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    with pytest.raises(StorageError) as caught:
        Monitor(storage=url)
    shown += [str(caught.value)]
    assert not [text for text in shown if "hunter2" in text]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1406, PermanentError), (1366, PermanentError), (1264, PermanentError),
        (1153, PermanentError), (1205, RetryableError), (1213, RetryableError),
        (1040, RetryableError), (1290, RetryableError), (2003, RetryableError),
        (2013, RetryableError), (1146, RetryableError), (1142, RetryableError),
        (9999, RetryableError),
    ],
)  # fmt: skip
def test_an_error_is_classed_by_its_code_and_repeats_no_content(
    code: int, kind: type[StorageError]
) -> None:
    told = write_failure(ValueError(code, "Data too long: 'a customer's secret at row 3' at row 7"))
    assert type(told) is kind
    if isinstance(told, PermanentError) and code != 1153:
        assert told.place == 6, "as the server counts, and not what a value says"
    assert "secret" not in str(told)
    assert str(code) in str(told)
    assert "secret" not in str(read_failure(ValueError(code, "a secret"), 60))


def test_a_monitor_stores_and_reads_back(mysql_empty: str) -> None:
    with Monitor(storage=mysql_empty) as monitor:

        @monitor_llm("greet", monitor=monitor)
        def greet(name: str) -> str:
            return f"Hello, {name}!"

        greet("Ann")
        assert monitor.flush(60).complete
        assert monitor.query(columns=["name", "output"]).to_pylist()[0]["output"] == "Hello, Ann!"
