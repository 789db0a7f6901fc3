"""One span that a storage refuses for good costs itself, whatever else happens meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmops_core import (
    ConfigError,
    Monitor,
    PermanentError,
    RetryableError,
    SpanBatch,
    hookimpl,
    open_storage,
)
from llmops_core.cli.app import app
from llmops_core.delivery import storing
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.lane import Lane
from llmops_core.delivery.storing import STAGE, StoreWorker
from llmops_core.failures import Failures
from llmops_core.journal.quarantine import Quarantine, QuarantineFull
from llmops_core.journal.recovery import recover
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.testing import make_span


class Picky:
    """Takes ranges by name, as Parquet does, and refuses some spans; it may say which."""

    def __init__(self, bad: set[int], *, tells: bool) -> None:
        self.bad, self.tells = bad, tells
        self.ranges: dict[tuple[int, int], list[int]] = {}
        self.writes = 0
        self.down: set[int] = set()

    async def write(self, batch: SpanBatch) -> None:
        self.writes += 1
        if self.writes in self.down:
            raise RetryableError("down")
        for place, span in enumerate(batch.rows):
            if span.seq in self.bad:
                raise PermanentError("a bad span", place=place if self.tells else None)
        self.ranges.setdefault((batch.first_seq, batch.last_seq), [s.seq or 0 for s in batch.rows])

    @property
    def seqs(self) -> list[int]:
        return sorted(seq for rows in self.ranges.values() for seq in rows)


class Bench:
    def __init__(self, root: Path, store: Picky) -> None:
        self.root, self.store, self.failures = root, store, Failures()
        self.lane = Lane("test")
        self.journal = Journal(root, new_writer_id(), max_bytes=2**30)
        self.quarantine = Quarantine(root)
        self.made = 0
        self.worker = StoreWorker(
            store,  # type: ignore[arg-type]
            self.lane,
            journal=self.journal,
            quarantine=self.quarantine,
            writer_id=self.journal.writer_id,
            batch_spans=20,
            backlog_bytes=1_000,
            prepare=lambda batch: batch,
            stored=lambda batch, size: None,
            failures=self.failures,
        )

    def add(self, count: int) -> None:
        first = self.made + 1
        spans = [make_span(at, seq=at) for at in range(first, first + count)]
        self.journal.append(spans)
        self.made += count
        batch = SpanBatch(
            spans, writer_id=self.journal.writer_id, first_seq=first, last_seq=self.made
        )
        self.worker.count_in(batch, journaled=True)
        self.worker.add(batch, 100)

    def flush(self) -> bool:
        mark = FlushMark({STAGE})
        self.worker.mark(mark)
        return not mark.wait(30)

    def stop(self) -> None:
        self.worker.stop()
        self.lane.stop()
        self.lane.worker.join(10)
        self.journal.release()

    @property
    def kept(self) -> list[int]:
        return sorted(refused.span.seq or 0 for refused in self.quarantine)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "FIRST_RETRY_SECONDS", 0.002)
    monkeypatch.setattr(storing, "LAST_RETRY_SECONDS", 0.02)


@pytest.mark.parametrize(("tells", "most_writes"), [(True, 12), (False, 45)])
def test_each_bad_span_costs_itself_and_few_writes(
    tmp_path: Path, tells: bool, most_writes: int
) -> None:
    bench = Bench(tmp_path, Picky({1, 77, 200}, tells=tells))
    for _ in range(4):
        bench.add(50)
    assert bench.flush()
    worker = bench.worker
    assert bench.kept == [1, 77, 200]
    assert bench.store.seqs == [s for s in range(1, 201) if s not in (1, 77, 200)]
    assert (worker.stored, worker.quarantined, worker.in_quarantine) == (197, 3, 3)
    assert (worker.journaled, worker.queued, worker.dropped) == (0, 0, {})
    assert bench.store.writes <= most_writes
    assert worker.retries == 0, "nothing was tried again as it was"
    bench.stop()


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_while_a_batch_is_cut_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    bad = {rng.randint(1, 60) for _ in range(rng.randint(1, 5))}
    store = Picky(bad, tells=rng.random() < 0.5)
    store.down = set(range(rng.randint(2, 9), 10_000))  # it goes down in the middle
    bench = Bench(tmp_path, store)
    for _ in range(3):
        bench.add(20)
    while store.writes < min(store.down) + 1:
        bench.lane.call(lambda: None, timeout=10)
    worker = bench.worker
    bench.stop()
    assert worker.stored + worker.quarantined + worker.journaled == 60
    store.down = set()
    report = asyncio.run(recover(tmp_path, store.write, batch_spans=7))
    assert report.failed == []
    assert bench.kept == sorted(bad)
    assert store.seqs == [s for s in range(1, 61) if s not in bad], f"seed {seed}"


def test_a_full_quarantine_and_none_at_all_drop_by_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Picky({2, 3}, tells=True))
    bench.quarantine._max_spans = 1
    bench.add(4)
    assert bench.flush()
    assert (bench.worker.quarantined, bench.worker.dropped) == (1, {"quarantine_full": 1})
    bench.worker._quarantine = None
    bench.store.bad = {5}
    bench.add(2)
    assert bench.flush()
    assert bench.worker.dropped == {"quarantine_full": 1, "refused": 1}
    bench.stop()


def test_many_refused_spans_are_counted_in_one_listing_and_the_bound_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine, listings = Quarantine(tmp_path, max_spans=50), []
    monkeypatch.setattr("llmops_core.journal.quarantine._COUNT_SECONDS", 3600)
    paths = quarantine._paths
    monkeypatch.setattr(quarantine, "_paths", lambda: listings.append(1) or paths())
    spans = [make_span(number) for number in range(51)]
    for span in (*spans[:50], *spans[:50]):  # again, as after a crash: each is there once
        quarantine.add(span, PermanentError("bad"))
    with pytest.raises(QuarantineFull):
        quarantine.add(spans[50], PermanentError("bad"))
    assert len(listings) == 1
    assert len(paths()) == 50
    assert quarantine.remove([spans[0].span_id]) == 1
    quarantine.add(spans[50], PermanentError("bad"))
    with pytest.raises(QuarantineFull):
        quarantine.add(spans[0], PermanentError("bad"))


class Strict(ParquetStorage):
    """Refuses a name until it is told better."""

    strict = True

    async def write(self, batch: SpanBatch) -> None:
        if self.strict and "bad" in batch.values("name"):
            raise PermanentError("a bad name")
        await super().write(batch)


class Plugin:
    name = "strict"

    @hookimpl
    def llmops_register(self, registry: Any) -> None:
        registry.storage("strict", lambda url: Strict(url.partition(":")[2]))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder of which one span was refused, by a monitor that is closed."""
    with Monitor(Strict(tmp_path / "data"), exporters=[]) as monitor:
        for name in ("good", "bad", "fine"):
            run_id = uuid.uuid4().int
            monitor.recorder.start(run_id, None, {"kind": "task", "name": name})
            monitor.recorder.end(run_id, None, {})
        assert monitor.flush(timeout=30).complete
        stats = monitor.stats()
        assert stats["spans"]["stored"] == 2
        assert stats["spans"]["quarantined"] == 1
        assert stats["quarantine"]["spans"] == 1
    with Monitor(Strict(tmp_path / "data"), exporters=[]) as monitor:
        stats = monitor.stats()
        assert stats["spans"]["quarantined"] == 0
        assert stats["quarantine"]["spans"] == 1, "it survives"
    return f"parquet:{tmp_path / 'data'}"


def run(*arguments: str) -> tuple[int, Any]:
    result = CliRunner().invoke(app, ["quarantine", *arguments, "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout else None


def names(url: str) -> list[str]:
    with open_storage(url) as storage:
        found: list[str] = storage.query(columns=["name"], order=["start_time"])["name"].to_pylist()
        return found


def test_a_person_lists_and_stores_again_what_was_refused(url: str) -> None:
    assert names(url) == ["good", "fine"]
    code, told = run("list", "--storage", url)
    assert code == 0
    [span] = told["spans"]
    assert (span["name"], span["reason"]) == ("bad", "A bad name.")
    text = CliRunner().invoke(app, ["quarantine", "list", "--storage", url]).stdout
    assert "bad" in text
    assert "1 span in quarantine." in text
    assert run("retry", "--storage", url) == (0, {**_of(told), "stored": 1, "refused": {}})
    assert sorted(names(url)) == ["bad", "fine", "good"]
    assert run("list", "--storage", url)[1]["spans"] == []


def test_a_person_drops_what_was_refused_by_saying_so(url: str) -> None:
    told = run("list", "--storage", url)[1]
    span_id = told["spans"][0]["span_id"]
    with pytest.raises(Exception, match="--all"):
        CliRunner().invoke(app, ["quarantine", "drop", "--storage", url], catch_exceptions=False)
    assert run("drop", span_id, "--storage", url) == (0, {**_of(told), "dropped": 1})
    assert run("list", "--storage", url)[1]["spans"] == []
    assert names(url) == ["good", "fine"]


def test_a_span_that_is_refused_again_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParquetStorage, "write", Strict.write)
    monkeypatch.setattr(ParquetStorage, "strict", True, raising=False)
    [span] = run("list", "--storage", url)[1]["spans"]
    code, told = run("retry", "--storage", url)
    assert code == 1
    assert (told["stored"], list(told["refused"])) == (0, [span["span_id"]])
    assert run("list", "--storage", url)[1]["spans"] == [span]


def test_a_retry_while_the_storage_is_away_loses_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run("list", "--storage", url)[1]["spans"]

    async def away(self: ParquetStorage, batch: SpanBatch) -> None:
        raise RetryableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(ParquetStorage, "write", away)
        result = CliRunner().invoke(app, ["quarantine", "retry", "--storage", url])
        assert isinstance(result.exception, RetryableError)
    assert run("list", "--storage", url)[1]["spans"] == before
    assert run("retry", before[0]["span_id"], "--storage", url)[1]["stored"] == 1


def test_an_id_that_is_not_in_quarantine_changes_nothing(url: str) -> None:
    for command in ("retry", "drop"):
        with pytest.raises(ConfigError, match="No span 'f00'"):
            CliRunner().invoke(
                app, ["quarantine", command, "f00", "--storage", url], catch_exceptions=False
            )
    assert len(run("list", "--storage", url)[1]["spans"]) == 1


def test_what_a_real_database_refused_is_stored_once_it_takes_it(
    mysql_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from servers import mysql_statements

    monkeypatch.setenv("LLMOPS_STATE_DIR", str(tmp_path))
    server, _, table = mysql_url.rpartition("table=")
    with Monitor(mysql_url, exporters=[]) as monitor:
        check = f"ALTER TABLE `{table}` ADD CONSTRAINT no_bad CHECK (name <> 'bad')"
        asyncio.run(mysql_statements(server.rstrip("?&"), check))
        for name in ("good", "bad", "fine"):
            run_id = uuid.uuid4().int
            monitor.recorder.start(run_id, None, {"kind": "task", "name": name})
            monitor.recorder.end(run_id, None, {})
        assert monitor.flush(timeout=60).complete
        assert monitor.stats()["spans"]["quarantined"] == 1
    assert run("retry", "--storage", mysql_url)[0] == 1
    dropped = f"ALTER TABLE `{table}` DROP CONSTRAINT no_bad"
    asyncio.run(mysql_statements(server.rstrip("?&"), dropped))
    code, told = run("retry", "--storage", mysql_url)
    assert (code, told["stored"]) == (0, 1)
    assert sorted(names(mysql_url)) == ["bad", "fine", "good"]


def _of(told: dict[str, Any]) -> dict[str, Any]:
    return {"storage": told["storage"]}
