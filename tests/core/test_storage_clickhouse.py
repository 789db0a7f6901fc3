"""ClickHouse: each span once whatever comes twice, URLs, tables, deletions, errors."""

from __future__ import annotations

import asyncio
import datetime as dt
import pickle
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from clickhouse_server import ClickHouse
from llmops_core import ConfigError, PermanentError, QueryError, RetryableError, Span, SpanQuery
from llmops_core.batch import SpanBatch
from llmops_core.errors import StorageError
from llmops_core.query.clickhouse import Statement, compile_query
from llmops_core.storage.clickhouse import ClickHouseStorage
from llmops_core.storage.clickhouse import storage as clickhouse
from llmops_core.storage.clickhouse.address import Address
from llmops_core.storage.clickhouse.errors import failed_query, failed_write
from llmops_core.storage.clickhouse.inserting import inserts
from llmops_core.storage.clickhouse.table import COLUMN_TYPES, add_columns, create
from llmops_core.testing.spans import START, full_span, make_batch, make_span
from llmops_core.testing.store import Store

LOCAL = "clickhouse://127.0.0.1:8123/d"


@pytest.fixture
def store(clickhouse_url: str) -> Iterator[Store]:
    store = Store(ClickHouseStorage.of_url(clickhouse_url))
    yield store
    store.close()


def ids(store: Store) -> list[str]:
    return [span.span_id for span in store.spans()]


def spans(first: int, last: int) -> list[Span]:
    return [make_span(at) for at in range(first, last + 1)]


# ---- once ----


def cut_otherwise(batch: SpanBatch) -> list[SpanBatch]:
    middle = len(batch) // 2
    return [
        batch.cut(0, middle),
        batch.cut(middle, len(batch)),
        batch.with_rows(batch.rows[1:]),
        SpanBatch([batch.rows[0]]),
        batch,
    ]


def test_batches_that_are_cut_otherwise_add_nothing(store: Store) -> None:
    """As after a bisection, a retry out of the quarantine, a copy, and a replay of the whole."""
    batch = store.write(*spans(1, 10))
    for other in cut_otherwise(batch):
        store.run(store.storage.write(other))
    copied = SpanBatch([*spans(8, 12)], writer_id="other", first_seq=1, last_seq=5)
    store.run(store.storage.write(copied))
    assert ids(store) == [f"{at:016x}" for at in range(1, 13)]


def test_a_replay_long_after_its_token_was_forgotten_adds_nothing(
    store: Store, clickhouse_server: ClickHouse, clickhouse_url: str
) -> None:
    database = clickhouse_url.rpartition("/")[2]
    table = f"{database}.llmops_spans"
    clickhouse_server.run(
        f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 1"
    )
    batches = [store.write(*spans(at, at + 9)) for at in range(1, 60, 10)]
    for batch in batches:
        store.run(store.storage.write(batch))
    assert clickhouse_server.run(f"SELECT count(), uniqExact(span_id) FROM {table}") == "60\t60"


def test_two_writes_of_one_batch_at_once_store_it_once(store: Store, clickhouse_url: str) -> None:
    """An answer that is late: the same range is on its way twice."""
    batch = make_batch(spans(1, 200))
    store.together(*(store.storage.write(batch) for _ in range(8)))
    assert len(ids(store)) == 200


def test_a_batch_with_a_span_twice_stores_the_first(store: Store) -> None:
    one = make_span(1, name="first")
    store.run(store.storage.write(SpanBatch([one, one.replace(name="second"), make_span(2)])))
    assert store.names() == ["span-2", "first"]


def test_other_spans_of_a_range_that_was_written_are_stored(store: Store) -> None:
    """A token is not only the range: the halves of a batch that had a bad span have it too."""
    batch = make_batch(spans(1, 4))
    store.run(store.storage.write(batch.with_rows(batch.rows[:2])))
    store.run(store.storage.write(batch.with_rows(batch.rows[2:])))
    assert len(ids(store)) == 4


def test_spans_that_were_deleted_can_be_stored_again(store: Store, clickhouse_url: str) -> None:
    batch = store.write(*spans(1, 3))
    assert store.run(store.storage.delete(SpanQuery())) == 3
    store.run(store.storage.write(batch))
    assert len(ids(store)) == 3
    for _ in range(5):  # within a second, which is what the server writes deletions down to
        assert store.run(store.storage.delete(SpanQuery())) == 3
        store.run(store.storage.write(batch))
        assert len(ids(store)) == 3
    other = Store(ClickHouseStorage.of_url(clickhouse_url))
    assert other.run(other.storage.delete(SpanQuery())) == 3
    later = Store(ClickHouseStorage.of_url(clickhouse_url))
    later.run(later.storage.write(batch))
    assert len(ids(later)) == 3
    other.close()
    later.close()


def test_spans_of_every_age_go_into_one_batch(store: Store) -> None:
    """Of more months than a server takes in one insert by itself."""
    month = 31 * 86_400_000_000
    starts = [START - at * month for at in range(150)]
    written = [
        make_span(at, start_time=start, end_time=start + 1) for at, start in enumerate(starts)
    ]
    batch = store.write(*written)
    store.run(store.storage.write(batch))
    assert len(ids(store)) == 150


def test_a_query_reads_the_table_as_it_is() -> None:
    """What makes a span appear once is paid for when it is written, and never by a query."""
    for query in (
        SpanQuery.build(limit=50),
        SpanQuery.build(group_by=["model"], aggregates=["count", "p95:duration_ms"]),
    ):
        sql = compile_query(query, Statement("`d`.`t`")).sql
        for word in (" FINAL", "LIMIT 1 BY", "DISTINCT", "argMax", "JOIN"):
            assert word not in sql
        assert sql.count("`d`.`t`") == 1


# ---- changes ----


def test_deleting_takes_what_a_query_selects_and_tells_how_many(
    store: Store, clickhouse_server: ClickHouse, clickhouse_url: str
) -> None:
    store.write(*(make_span(at, session_id=f"s{at % 2}\t'") for at in range(10)))
    gone = SpanQuery.build(equal={"session_id": "s1\t'"})
    assert store.run(store.storage.delete(gone)) == 5
    assert store.run(store.storage.delete(gone)) == 0
    assert {span.session_id for span in store.spans()} == {"s0\t'"}
    table = f"{clickhouse_url.rpartition('/')[2]}.llmops_spans"
    # Not hidden by a mark, as a lightweight deletion is: the parts in use were rewritten.
    assert clickhouse_server.run(f"SELECT count() FROM {table}") == "5"


def test_deleting_takes_a_selection_only(store: Store) -> None:
    with pytest.raises(QueryError, match="filters and a time range"):
        store.run(store.storage.delete(SpanQuery.build(limit=1)))


def test_replacing_rewrites_what_is_stored_and_adds_nothing(store: Store) -> None:
    store.write(full_span(1), full_span(2), make_span(3), make_span(4))
    new = [
        full_span(2).replace(cost_usd=9.5, price_source="p@1", tags=None, attributes={"n": "é'\t"}),
        make_span(3, cost_usd=0.0, tags=("t",), measurements={"m": 1.5}),
        make_span(9, cost_usd=1.0),
    ]
    for _ in range(2):
        assert store.run(store.storage.replace(SpanBatch(new))) == 2
        found = {span.span_id: span for span in store.spans()}
        assert len(found) == 4
        assert found[new[0].span_id] == new[0]
        kept = {"writer_id": found[new[1].span_id].writer_id, "seq": found[new[1].span_id].seq}
        assert found[new[1].span_id] == new[1].replace(**kept)


# ---- the table ----


def test_an_older_table_gains_the_columns_it_lacks_and_readers_see_nulls(
    store: Store, clickhouse_server: ClickHouse, clickhouse_url: str
) -> None:
    store.write(full_span(1))
    table = f"{clickhouse_url.rpartition('/')[2]}.llmops_spans"
    for column in ("wait_key", "tags", "measurements", "sample_weight"):
        clickhouse_server.run(f"ALTER TABLE {table} DROP COLUMN {column}")
    reader = Store(ClickHouseStorage(Address(clickhouse_url), read_only=True))
    [span] = reader.spans()
    assert (span.tags, span.wait_key, span.measurements) == (None, None, None)
    assert reader.names(where=[("tags", "is null"), ("measurements.m", "is null")])
    reader.close()
    writer = Store(ClickHouseStorage.of_url(clickhouse_url))
    writer.write(full_span(2))
    assert [s.tags for s in writer.spans()][1] == full_span(2).tags
    writer.close()


def test_a_reader_makes_no_table(clickhouse_url: str, clickhouse_server: ClickHouse) -> None:
    with pytest.raises(StorageError, match="no table"):
        Store(ClickHouseStorage(Address(clickhouse_url), read_only=True))
    database = clickhouse_url.rpartition("/")[2]
    assert clickhouse_server.run(f"SHOW TABLES FROM {database}") == ""


def test_a_table_of_somebody_else_is_left_alone(
    clickhouse_url: str, clickhouse_server: ClickHouse
) -> None:
    table = f"{clickhouse_url.rpartition('/')[2]}.llmops_spans"
    clickhouse_server.run(
        f"CREATE TABLE {table} (span_id UInt64) ENGINE = MergeTree ORDER BY span_id"
    )
    with pytest.raises(StorageError, match=r"'span_id'.*UInt64"):
        Store(ClickHouseStorage.of_url(clickhouse_url))


def test_a_lifetime_is_part_of_the_table(
    clickhouse_url: str, clickhouse_server: ClickHouse
) -> None:
    Store(ClickHouseStorage.of_url(f"{clickhouse_url}?ttl_days=30&table=kept")).close()
    shown = clickhouse_server.run(f"SHOW CREATE TABLE {clickhouse_url.rpartition('/')[2]}.kept")
    assert "TTL toDateTime(start_time) + toIntervalDay(30)" in shown


def test_a_cluster_has_a_replicated_table_on_each_server_and_one_over_them() -> None:
    address = Address(f"{LOCAL}?cluster=main&ttl_days=7")
    local, spread = create(address)
    head, _, tail = local.partition("ENGINE")
    assert head.startswith(
        "CREATE TABLE IF NOT EXISTS `d`.`llmops_spans_local` ON CLUSTER `main` ("
    )
    assert f"ENGINE{tail}" == (
        "ENGINE = ReplicatedMergeTree"
        "('/clickhouse/tables/{shard}/d/llmops_spans_local', '{replica}')\n"
        "PARTITION BY toYYYYMM(`start_time`)\nORDER BY (`start_time`, `span_id`)\n"
        "TTL toDateTime(`start_time`) + INTERVAL 7 DAY\n"
        "SETTINGS replicated_deduplication_window = 10000"
    )
    assert spread == (
        "CREATE TABLE IF NOT EXISTS `d`.`llmops_spans` ON CLUSTER `main`\n"
        "AS `d`.`llmops_spans_local`\n"
        "ENGINE = Distributed('main', 'd', 'llmops_spans_local', cityHash64(`trace_id`))"
    )
    insert = next(inserts(make_batch([make_span(1)]))).statement("`d`.`t`", spread=True)
    assert "`span_id` GLOBAL NOT IN (" in insert
    query = SpanQuery.build(aggregates=["error_rate"])
    assert " GLOBAL ANY LEFT JOIN " in compile_query(query, Statement("t", spread=True)).sql
    added = add_columns(address, [c for c in COLUMN_TYPES if c != "seq"])
    assert added == [
        f"ALTER TABLE `d`.`{t}` ON CLUSTER `main` ADD COLUMN IF NOT EXISTS `seq` Nullable(Int64)"
        for t in ("llmops_spans_local", "llmops_spans")
    ]


# ---- URLs ----


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("clickhouse://localhost/d", ("localhost", 8123, False)),
        ("clickhouse://127.0.0.1:9123/d", ("127.0.0.1", 9123, False)),
        ("clickhouse://[::1]/d", ("::1", 8123, False)),
        ("clickhouses://localhost/d", ("localhost", 8443, True)),
        ("clickhouse://localhost/d?secure=true", ("localhost", 8443, True)),
        ("clickhouse://db.example/d", ("db.example", 8443, True)),
        ("clickhouse://db.example:8443/d", ("db.example", 8443, True)),
        ("clickhouse://db.example:8123/d?secure=false", ("db.example", 8123, False)),
        ("clickhouse://db.example/d?sslmode=disable", ("db.example", 8123, False)),
    ],
)
def test_tls_is_spoken_to_other_machines_unless_the_url_says_no(
    url: str, expected: tuple[str, int, bool]
) -> None:
    address = Address(url)
    assert (address.host, address.port, address.secure) == expected
    assert address.verify


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("clickhouse://h:9000/d", "8123"),
        ("clickhouse://h:9440/d", "8443"),
        ("clickhouse://h:8123/d", "clickhouses://h:8443"),
        ("clickhouses://h/d?secure=false", "without TLS"),
        ("clickhouse://localhost/d?ttl_days=0", "ttl_days"),
        ("clickhouse://localhost/d?cluster=a'b", "cluster"),
        ("clickhouse://localhost/d%60", "database"),
        ("clickhouse://localhost/d?table=a.b", "table"),
        ("clickhouse://localhost/d?schema=other", "database and another schema"),
        ("clickhouse://localhost/d?tabel=x", "did you mean 'table'"),
        ("clickhouse:localhost", "host"),
        ("clickhouse://u:hunter2#x@localhost/d", "%XX"),
        ("clickhouse://localhost/d#x", "%23"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_to_write(url: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address(url)
    assert told.lower() in str(caught.value).lower()
    assert "hunter2" not in str(caught.value)


def test_schema_is_another_word_for_database() -> None:
    assert Address("clickhouse://localhost?schema=s").database == "s"


# ---- errors and secrets ----


def test_only_the_datas_own_fault_is_permanent() -> None:
    class Told(Exception):
        code: int | None = None

    def meaning(code: int | None) -> type[Exception]:
        error = Told("the text of a row")
        error.code = code
        made = failed_write(error, "here")
        assert "the text" not in str(made)
        return type(made)

    assert {meaning(code) for code in (6, 53, 117, 131, 321, 349, 469)} == {PermanentError}
    busy = (None, 60, 81, 159, 164, 202, 209, 210, 241, 242, 243, 252, 319, 497, 516, 999, 123456)
    assert {meaning(code) for code in busy} == {RetryableError}
    assert isinstance(failed_query(ConnectionError(), "here"), RetryableError)


def test_a_server_that_is_not_there_is_a_retryable_error(unused_tcp_port: int) -> None:
    url = f"clickhouse://u:hunter2@127.0.0.1:{unused_tcp_port}/d"
    with pytest.raises(RetryableError) as caught:
        asyncio.run(ClickHouseStorage.of_url(url).open())
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_row_that_a_constraint_refuses_is_named_by_its_place(
    store: Store,
    clickhouse_url: str,
    clickhouse_server: ClickHouse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = clickhouse_url.rpartition("/")[2]
    check = "ALTER TABLE llmops_spans ADD CONSTRAINT known CHECK name != 'a secret'"
    clickhouse_server.run(check, database)
    bad = make_span(7, name="a secret")
    for most in (20_000, 3):  # in one insert, and in the third of several
        monkeypatch.setattr("llmops_core.storage.clickhouse.inserting.MAX_ROWS", most)
        with pytest.raises(PermanentError) as caught:
            store.write(*spans(1, 6), bad, make_span(8))
        assert caught.value.place == 6
        assert "secret" not in str(caught.value)


def test_an_outage_is_no_business_of_the_drivers_own_log(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    storage = ClickHouseStorage.of_url(f"clickhouse://127.0.0.1:{unused_tcp_port}/d")

    async def fail() -> None:
        for attempt in (storage.open, lambda: storage.write(make_batch(spans(1, 3)))):
            with pytest.raises(RetryableError):
                await attempt()

    asyncio.run(fail())
    assert [r.name for r in caplog.records if r.levelname != "DEBUG"] == []


def test_a_server_that_goes_away_is_no_business_of_the_drivers_own_log(
    store: Store, caplog: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    storage: Any = store.storage
    client = store.run(storage._connected())
    there = client._backend._base_url
    client._backend._base_url = f"http://127.0.0.1:{unused_tcp_port}/"
    with pytest.raises(RetryableError):
        store.write(make_span(1))
    client._backend._base_url = there
    assert [r.name for r in caplog.records if r.levelname != "DEBUG"] == []


def test_a_server_that_stands_still_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is there and no answer comes: the write ends, and can be tried again."""
    storage: Any = store.storage
    monkeypatch.setattr(clickhouse, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = store.run(storage._connected())
        there = client._backend._base_url
        client._backend._base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        storage._write_seconds = 0.2
        with pytest.raises(RetryableError):
            store.write(make_span(1))
        assert storage._write_seconds == 0.2, "it would be waited for when it is back already"
        client._backend._base_url = there
        storage._write_seconds = 60.0  # a busy machine may need more than that
        store.write(make_span(1))
    assert len(ids(store)) == 1


def test_a_server_that_is_only_slow_is_given_more_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage: Any = store.storage
    monkeypatch.setattr(clickhouse, "ANSWER_SECONDS", 60.0)
    client = store.run(storage._connected())

    async def slow(**_: Any) -> None:
        await asyncio.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(client, "raw_insert", slow)
        storage._write_seconds = 0.1
        for seconds in (0.2, 0.4):
            with pytest.raises(RetryableError):
                store.write(make_span(1))
            assert storage._write_seconds == seconds
    storage._write_seconds = 60.0
    store.write(make_span(1))
    assert storage._write_seconds == clickhouse.FIRST_WRITE_SECONDS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str, host: str, days: int = 30) -> Path:
        """A certificate that is signed by itself, for a host, and its key, in one file."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
        builder = (
            x509.CertificateBuilder(subject, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - dt.timedelta(days=60))
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        path = folder / f"{name}.pem"
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path.write_bytes(
            builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, *form)
        )
        return path

    return make


@pytest.mark.parametrize(
    ("name", "host", "days", "trusted"),
    [
        ("self-signed", "localhost", 30, False),
        ("wrong-host", "other.example", 30, True),
        ("expired", "localhost", -1, True),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(
    certificates: Callable[..., Path], name: str, host: str, days: int, trusted: bool
) -> None:
    """Before anything was sent: no server behind it would have to be asked."""
    pem = certificates(name, host, days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    received: list[bytes] = []

    async def refused(url: str) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.append(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(StorageError, match="certificate") as caught:
                await ClickHouseStorage.of_url(url.format(port=port)).open()
        assert not isinstance(caught.value, RetryableError)

    ca = f"?sslrootcert={pem}" if trusted else ""
    asyncio.run(refused(f"clickhouses://u:hunter2@localhost:{{port}}/d{ca}"))
    assert not any(received)


def test_the_password_is_shown_nowhere() -> None:
    storage = ClickHouseStorage.of_url("clickhouse://u:hunter2@localhost/d")
    shown = [repr(storage), str(storage), repr(vars(storage)), repr(vars(storage.address))]
    assert "hunter2" not in "".join(shown)
    with pytest.raises(TypeError):
        pickle.dumps(storage.address)


def test_an_error_of_the_engine_tells_no_value(store: Store) -> None:
    huge = 2**63 - 1
    store.write(make_span(1, input_tokens=huge), make_span(2, input_tokens=huge))
    with pytest.raises(QueryError, match="beyond 64 bits") as caught:
        store.query(aggregates=["sum:input_tokens"])
    assert str(huge) not in str(caught.value)
