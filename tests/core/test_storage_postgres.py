"""The storage in PostgreSQL, beyond what the suite for every storage shows."""

from __future__ import annotations

import asyncio
import logging
import pickle
import ssl
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority
from llmops_core import (
    ConfigError,
    LLMOpsError,
    Monitor,
    PermanentError,
    RetryableError,
    StorageError,
    open_storage,
)
from llmops_core.schema import COLUMN_NAMES
from llmops_core.testing import full_span, make_batch, make_span
from llmops_core.testing.store import Store

pytest.importorskip("asyncpg")

import asyncpg

from llmops_core.databases.url import DatabaseUrl, tls_context
from llmops_core.storage.postgres import PostgresStorage
from llmops_core.storage.postgres.failing import open_failure, read_failure, write_failure

SECRET = "hunter2'\"`;--"


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    store = Store(PostgresStorage(postgres_url))
    yield store
    store.close()


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement with the URL's schema as the place of tables without one."""
    server, _, options = url.rpartition("schema=")

    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(server.rstrip("?&"))
        try:
            await connection.execute(f'SET search_path = "{options}"')
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())


# ---- writing ----


def test_a_batch_of_known_and_new_spans_adds_the_new_ones_and_changes_none(store: Store) -> None:
    store.write(make_span(1), make_span(2))
    store.write(make_span(2, name="other"), make_span(3))
    assert sorted(store.names()) == ["span-1", "span-2", "span-3"]


def test_a_span_that_no_index_can_hold_is_named_by_its_place(store: Store) -> None:
    # An entry of an index holds 2,700 bytes; what repeats itself is compressed and would fit.
    text = "".join(chr(0x100 + at * 7919 % 50_000) for at in range(5_000))
    huge = "".join(c for c in text if not 0xD800 <= ord(c) <= 0xDFFF)
    spans = [make_span(1), make_span(2, trace_id=huge), make_span(3)]
    with pytest.raises(PermanentError) as caught:
        store.run(store.storage.write(make_batch(spans)))
    assert caught.value.place in (
        None,
        1,
    )  # halved until it is found, where the server does not say
    assert huge[:20] not in str(caught.value)
    assert store.names() == []


def test_long_columns_are_compressed_by_lz4_where_the_server_can(
    store: Store, postgres_url: str
) -> None:
    [(can,)] = sql(
        postgres_url,
        "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'",
    )
    found = sql(
        postgres_url,
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = 'llmops_spans'::regclass AND attcompression = 'l'",
    )
    names = {"input", "output", "error_message", "attributes", "measurements"}
    assert {row[0] for row in found} == (names if can else set())


# ---- the table ----


def test_four_processes_make_one_table_and_store_each_span_once(postgres_url: str) -> None:
    program = """
import asyncio, sys
from llmops_core.storage.postgres import PostgresStorage
from llmops_core.testing import make_batch, make_span
async def main():
    storage = PostgresStorage(sys.argv[1])
    await storage.open()
    for at in range(0, 100, 10):
        await storage.write(make_batch([make_span(n) for n in range(at, at + 20)]))
    await storage.close()
asyncio.run(main())
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program, postgres_url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    told = [process.communicate(timeout=240)[1].decode() for process in started]
    failed = [text for process, text in zip(started, told, strict=True) if process.returncode]
    # Two that insert the same ids at once may be told to try again; they lose nothing by it.
    assert all("RetryableError" in text for text in failed), failed
    assert len(failed) < 4
    with open_storage(postgres_url) as reader:
        found = reader.query(columns=["span_id"])["span_id"].to_pylist()
    assert len(found) == len(set(found)) == 110


def test_a_table_of_an_older_version_gets_the_columns_that_it_lacks(postgres_url: str) -> None:
    first = Store(PostgresStorage(postgres_url))
    first.write(make_span(1))
    first.close()
    sql(postgres_url, "ALTER TABLE llmops_spans DROP COLUMN sample_weight, DROP COLUMN tags")
    with pytest.raises(StorageError, match="lacks"):
        open_storage(postgres_url)
    store = Store(PostgresStorage(postgres_url))
    store.write(full_span(2))
    assert store.names(order=["start_time"]) == ["span-1", full_span(2).name]
    store.close()


def test_columns_that_a_later_version_added_are_left_alone(postgres_url: str) -> None:
    Store(PostgresStorage(postgres_url)).close()
    sql(postgres_url, "ALTER TABLE llmops_spans ADD COLUMN later_column INT")
    store = Store(PostgresStorage(postgres_url))
    store.write(make_span(1))
    assert store.query().column_names == list(COLUMN_NAMES)
    store.close()


def test_a_table_of_somebody_else_is_left_alone(postgres_url: str) -> None:
    schema = postgres_url.rpartition("=")[2]
    sql(postgres_url, f'CREATE SCHEMA "{schema}"')
    sql(postgres_url, "CREATE TABLE llmops_spans (id INT)")
    with pytest.raises(StorageError, match="table of spans"):
        Store(PostgresStorage(postgres_url))
    assert sql(postgres_url, "SELECT * FROM llmops_spans") == []


def test_a_reader_makes_nothing(postgres_url: str) -> None:
    with pytest.raises(StorageError, match="There is no table"):
        open_storage(postgres_url)
    assert sql(postgres_url, "SELECT to_regclass('llmops_spans')::text") == [(None,)]


def test_ids_traces_times_and_sessions_have_an_index(store: Store, postgres_url: str) -> None:
    indexes = sql(
        postgres_url,
        "SELECT indexname FROM pg_indexes"
        " WHERE tablename = 'llmops_spans' AND schemaname = current_schema()",
    )
    named = {"pkey", "trace", "time", "session"}
    assert {row[0] for row in indexes} == {f"llmops_spans_{name}" for name in named}


# ---- set-up and secrets ----


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql:test", "no host"),
        ("postgresql://h/test?table=a;b", "Table name"),
        ("postgresql://h/test?schema=a.b", "Schema name"),
        ("postgresql://h/test?pool_size=0", "pool_size"),
        ("postgresql://h/test?sslmode=prefer", "sslmode"),
        ("postgresql://h/test?tabel=a", "Did you mean 'table'"),
    ],
)
def test_a_url_that_cannot_be_used_is_a_set_up_error(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PostgresStorage(url)


def test_a_superuser_is_warned_of(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    [(is_superuser,)] = sql(postgres_url, "SELECT current_setting('is_superuser') = 'on'")
    with caplog.at_level(logging.WARNING, "llmops"):
        Store(PostgresStorage(postgres_url)).close()
    assert ("used as a superuser" in caplog.text) is is_superuser


def test_no_password_is_shown_anywhere(unused_tcp_port: int) -> None:
    from urllib.parse import quote

    url = f"postgresql://u:{quote(SECRET)}@127.0.0.1:{unused_tcp_port}/test"
    storage = PostgresStorage(url)
    shown = [repr(storage), str(vars(storage)), repr(storage.url), str(vars(storage.url))]
    with pytest.raises(TypeError):
        pickle.dumps(storage.url.password)
    with pytest.raises(RetryableError) as caught:
        Store(storage)
    shown += ["".join(traceback.format_exception(caught.value))]
    with pytest.raises(LLMOpsError) as refused:
        open_storage(url)
    shown += ["".join(traceback.format_exception(refused.value))]
    with pytest.raises(ConfigError) as wrong:
        Monitor(storage=f"{url}?sslmode=on")
    shown += ["".join(traceback.format_exception(wrong.value))]
    assert not [text for text in shown if "hunter2" in text or quote(SECRET) in text]


# ---- encryption ----


class Endpoint:
    """Speaks TLS as PostgreSQL does, with a certificate, and notes what a client says behind it."""

    def __init__(self, certificate: Path | None, key: Path | None = None) -> None:
        self.said: list[bytes] = []
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate, key)

    def open(self, options: str) -> None:
        """Open a storage of this endpoint, which never lets anybody in."""

        async def run() -> None:
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
            async with server:
                port = server.sockets[0].getsockname()[1]
                url = f"postgresql://u:{SECRET.replace(';', '%3B')}@127.0.0.1:{port}/d?{options}"
                await PostgresStorage(url).open()

        asyncio.run(run())

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)  # the question for TLS
            writer.write(b"N" if self._context is None else b"S")
            await writer.drain()
            if self._context is not None:
                await writer.start_tls(self._context)
            self.said.append(await reader.read(1000))
        except (OSError, EOFError):
            pass  # the client went, which is what is tested
        finally:
            writer.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("self-signed", "refused: (self-signed|unable|certificate sig)"),
        ("wrong-host", "refused: IP address mismatch"),
        ("expired", "refused: certificate has expired"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(
    authority: Authority, tmp_path: Path, case: str, told: str
) -> None:
    """Before anything was sent: no server behind it would have to be asked."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    signer = Authority(tmp_path / "other") if case == "self-signed" else authority
    names = "DNS:other.example" if case == "wrong-host" else "IP:127.0.0.1"
    signer.issue(names, certificate, key, days=-1 if case == "expired" else 2)
    endpoint = Endpoint(certificate, key)
    with pytest.raises(StorageError, match="not trusted") as caught:
        endpoint.open(f"sslmode=verify-full&sslrootcert={authority.certificate}")
    assert not isinstance(caught.value, RetryableError)
    assert not any(endpoint.said)


def test_the_right_certificate_is_taken(authority: Authority, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.issue("IP:127.0.0.1", certificate, key)
    endpoint = Endpoint(certificate, key)
    with pytest.raises(RetryableError):  # it goes away, as a server that stops does
        endpoint.open(f"sslmode=verify-full&sslrootcert={authority.certificate}")
    assert b"llmops" in b"".join(endpoint.said)


def test_a_server_without_encryption_is_told_nothing(authority: Authority) -> None:
    endpoint = Endpoint(None)
    with pytest.raises(StorageError, match="does not encrypt"):
        endpoint.open(f"sslmode=verify-full&sslrootcert={authority.certificate}")
    assert not any(endpoint.said)


def test_other_hosts_are_verified_and_the_loopback_is_not_encrypted() -> None:
    def context(url: str) -> object:
        made = tls_context(DatabaseUrl(url, port=5432))
        return made and (made.check_hostname, made.verify_mode.name)

    assert context("postgresql://u@db.example/test") == (True, "CERT_REQUIRED")
    assert context("postgresql://u@10.0.0.1/test?sslmode=disable") is None
    assert context("postgresql://u@localhost/test?host=/var/run/postgresql") is None


# ---- errors ----


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncpg.NumericValueOutOfRangeError, PermanentError),
        (asyncpg.CharacterNotInRepertoireError, PermanentError),
        (asyncpg.NotNullViolationError, PermanentError),
        (asyncpg.ProgramLimitExceededError, PermanentError),
        (asyncpg.DeadlockDetectedError, RetryableError),
        (asyncpg.AdminShutdownError, RetryableError),
        (asyncpg.TooManyConnectionsError, RetryableError),
        (asyncpg.DiskFullError, RetryableError),
        (asyncpg.UndefinedTableError, RetryableError),
        (asyncpg.InsufficientPrivilegeError, RetryableError),
        (OSError, RetryableError),
        (TimeoutError, RetryableError),
    ],
)
def test_an_error_is_classed_by_its_code_and_repeats_no_content(
    error: type[Exception], kind: type[LLMOpsError]
) -> None:
    made = write_failure(error(SECRET))
    assert type(made) is kind
    assert "hunter2" not in str(made)
    assert "hunter2" not in str(read_failure(error(SECRET), 60.0))
    assert "hunter2" not in str(open_failure(error(SECRET), "the server"))
