"""MySQL's storage against a server of its own: encrypted, killed, hanging, and lost after a commit."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from certificates import Authority
from llmops_core import Monitor, RetryableError, StorageError, monitor_llm, open_storage
from llmops_core.databases.url import DatabaseUrl, tls_context
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.store import Store
from mariadb import MariaDB, missing

pytest.importorskip("asyncmy")

from llmops_core.storage.mysql import MySQLStorage

IPV4 = "IP:127.0.0.1"


class Encrypted:
    """The server, and the files of its certificate."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.authority = Authority(folder / "ca")
        self.authority.issue(IPV4, self.certificate, self.key)
        self.server = MariaDB(
            folder / "db", f"--ssl-cert={self.certificate}", f"--ssl-key={self.key}"
        )
        self.server.start()

    def present(self, names: str, *, days: int = 2, authority: Authority | None = None) -> None:
        """Let the server present another certificate from now on."""
        (authority or self.authority).issue(names, self.certificate, self.key, days=days)
        self.server.sql("FLUSH SSL")

    def connect(self, sslmode: str, *, trusted: bool = True) -> None:
        url = f"{self.server.url}?sslmode={sslmode}"
        if trusted:
            url += f"&sslrootcert={self.authority.certificate}"
        Store(MySQLStorage(url)).close()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    why = missing()
    if why is not None:
        pytest.skip(why)
    made = Encrypted(tmp_path_factory.mktemp("mariadb"))
    yield made
    made.server.stop()


@pytest.fixture
def server(encrypted: Encrypted) -> Iterator[MariaDB]:
    """The server with an empty database."""
    yield encrypted.server
    encrypted.server.sql("DROP DATABASE test", "CREATE DATABASE test")


# ---- encryption ----


def test_other_hosts_are_verified_and_the_loopback_is_not_encrypted() -> None:
    def context(url: str) -> object:
        made = tls_context(DatabaseUrl(url, port=3306))
        return made and (made.check_hostname, made.verify_mode.name)

    assert context("mysql://u@db.example/test") == (True, "CERT_REQUIRED")
    assert context("mysql://u@10.0.0.1/test") == (True, "CERT_REQUIRED")
    assert context("mysql://u@db.example/test?sslmode=disable") is None
    assert context("mysql://u@127.0.0.1/test") is None
    assert context("mysql://u@localhost/test?host=/run/mysqld/mysqld.sock") is None


def test_the_right_certificate_is_taken(encrypted: Encrypted) -> None:
    encrypted.present(IPV4)
    encrypted.connect("verify-full")


def test_a_wrong_certificate_is_refused(encrypted: Encrypted, tmp_path: Path) -> None:
    encrypted.present(IPV4, authority=Authority(tmp_path / "other"))  # nobody known has signed it
    with pytest.raises(StorageError, match=r"refused: (self-signed|unable|certificate sig)"):
        encrypted.connect("verify-full")
    encrypted.present("DNS:other.example")
    with pytest.raises(StorageError, match="refused: IP address mismatch"):
        encrypted.connect("verify-full")
    encrypted.connect("verify-ca")
    encrypted.present(IPV4, days=-1)
    with pytest.raises(StorageError, match="refused: certificate has expired"):
        encrypted.connect("verify-full")
    encrypted.connect("require", trusted=False)
    encrypted.present(IPV4)
    with pytest.raises(StorageError, match="refused: unable to get local issuer"):
        encrypted.connect("verify-full", trusted=False)


# ---- outages ----


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def outcome(server: MariaDB) -> tuple[int, int]:
    """Return how many spans are stored, and how many different ones."""
    with open_storage(server.url) as reader:
        found = reader.query(columns=["span_id"])["span_id"].to_pylist()
    return len(found), len(set(found))


@pytest.mark.parametrize("way", ["killed", "hanging"])
def test_what_is_recorded_in_an_outage_is_stored_once_after_it(server: MariaDB, way: str) -> None:
    with Monitor(storage=server.url, batch_size=10) as monitor:

        @monitor_llm("call", monitor=monitor)
        def call(number: int) -> int:
            return number

        for number in range(50):
            call(number)
        until(lambda: monitor.stats()["spans"]["stored"] >= 10)
        server.signal(signal.SIGKILL if way == "killed" else signal.SIGSTOP)
        for number in range(50):
            call(number)
        if way == "killed":
            until(lambda: monitor.stats()["storage"]["retries"] >= 2)
            server.start()
        else:
            assert not monitor.flush(1).complete
            server.signal(signal.SIGCONT)
        assert monitor.flush(120).complete
    assert outcome(server) == (100, 100)


def test_a_server_that_hangs_is_given_up(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmops_core.storage.mysql import connecting, storage

    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(storage, "WRITE_SECONDS", 0.5)
    store = Store(MySQLStorage(server.url))
    store.write(make_span(1))
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(2):  # on the connection that was there, and on a new one
            with pytest.raises(RetryableError, match="did not answer in time"):
                store.write(make_span(2))
    finally:
        server.signal(signal.SIGCONT)
    until(lambda: _is_stored(store))
    assert store.names(order=["start_time"]) == ["span-1", "span-2"]
    store.close()


def _is_stored(store: Store) -> bool:
    try:
        store.write(make_span(2))
    except RetryableError:
        return False
    return True


def test_a_monitor_starts_while_its_server_is_away(server: MariaDB) -> None:
    server.signal(signal.SIGKILL)
    with Monitor(storage=server.url) as monitor:
        monitor_llm("call", monitor=monitor)(lambda: None)()
        assert not monitor.flush(0.5).complete
        server.start()
        assert monitor.flush(120).complete
    assert outcome(server) == (1, 1)


class Dropping:
    """Passes bytes between a client and the server; loses the answer to the *n*-th commit."""

    def __init__(self, port: int, lose: int) -> None:
        self.server_port, self.lose, self.lost = port, lose, 0
        self._commits = 0
        self._served: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._listening.close()
        await asyncio.gather(*self._served)

    def _accept(self, near: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        self._served.add(asyncio.create_task(self._serve(near, out)))

    async def _serve(self, near: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        far, into = await asyncio.open_connection("127.0.0.1", self.server_port)
        losing = asyncio.Event()

        async def back() -> None:
            while data := await far.read(65536):
                if losing.is_set():
                    self.lost += 1
                    break
                out.write(data)
            out.close()

        answers = asyncio.create_task(back())
        while data := await near.read(65536):
            if data[4:] == b"\x03COMMIT":
                self._commits += 1
                if self._commits == self.lose:
                    losing.set()
            into.write(data)
        into.close()
        await answers
        await asyncio.gather(into.wait_closed(), out.wait_closed(), return_exceptions=True)


def test_a_commit_whose_answer_is_lost_doubles_nothing(server: MariaDB) -> None:
    async def lived() -> int:
        # Opening does not commit by hand, so the first commits are those of the writes.
        async with Dropping(server.port, lose=2) as between:
            storage = MySQLStorage(f"mysql://root@127.0.0.1:{between.port}/test?pool_size=1")
            await storage.open()
            batches = [make_batch([make_span(at * 10 + n) for n in range(10)]) for at in range(5)]
            failures = 0
            while batches:
                try:
                    await storage.write(batches[0])
                    batches.pop(0)
                except RetryableError:
                    failures += 1
                    assert failures < 5
            await storage.close()
            assert between.lost == 1
            return failures

    assert asyncio.run(lived()) == 1
    assert outcome(server) == (50, 50)
