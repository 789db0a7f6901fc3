"""The monitor: from a recorded event to the storage, with every number accounted for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops_core import (
    ConfigError,
    LLMOpsError,
    Monitor,
    MonitorClosed,
    SpanBatch,
    UnknownPart,
    UnknownStorage,
    hookimpl,
    open_storage,
    spans_from_arrow,
)
from llmops_core.storage.memory import MemoryStorage

_ids = iter(range(1, 10_000_000))


def record(monitor: Monitor, count: int = 1, **fields: Any) -> list[int]:
    """Record finished root runs."""
    made = []
    for _ in range(count):
        run = next(_ids) + (1 << 100)
        made.append(run)
        start = {"kind": "workflow", "name": "root", **fields}
        monitor.recorder.start(run, None, start)
        monitor.recorder.end(run, None, {"output": monitor.recorder.freeze("out")})
    return made


def assert_ledgers(stats: dict[str, Any]) -> None:
    events, spans = stats["events"], stats["spans"]
    assert events["received"] == (
        events["consumed"] + events["queued"] + sum(events["dropped"].values())
    )
    assert spans["made"] == (
        spans["stored"]
        + spans["queued"]
        + spans["journaled"]
        + spans["quarantined"]
        + sum(spans["dropped"].values())
        + sum(spans["skipped"].values())
    )


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that another thread does; the test fails if it does not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.005)


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor("memory:") as opened:
        yield opened


def test_what_is_recorded_can_be_read_after_a_flush(monitor: Monitor) -> None:
    record(monitor, 3, session_id="s")
    report = monitor.flush()
    assert report.complete
    spans = spans_from_arrow(monitor.query(session_id="s"))
    assert len(spans) == 3
    assert spans[0].output == "out"
    assert spans[0].output_chars == 3, "the built-in collector measured it"
    assert_ledgers(monitor.stats())
    assert monitor.stats()["spans"]["stored"] == 3


async def test_async_callers_never_block_their_loop(monitor: Monitor) -> None:
    record(monitor)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(tick())
    assert (await monitor.aflush()).complete
    assert (await monitor.aquery()).num_rows == 1
    task.cancel()
    assert ticks > 1


class Blocks(MemoryStorage):
    """A storage that hangs in write until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.entered = threading.Event()

    async def write(self, batch: SpanBatch) -> None:
        self.entered.set()
        self.go.wait(30)
        await super().write(batch)


def test_flush_and_close_return_by_their_deadline_and_say_what_waits() -> None:
    storage = Blocks()
    monitor = Monitor(storage)
    record(monitor, 5)
    started = time.monotonic()
    report = monitor.flush(timeout=0.2)
    assert storage.entered.is_set(), "the fault really happened"
    assert not report.complete
    assert report.waiting == ("storage",)
    assert report.queued == 5
    closed = monitor.close(timeout=0.2)
    assert not closed.complete
    assert time.monotonic() - started < 5
    assert_ledgers(monitor.stats())
    storage.go.set()


class Fails(MemoryStorage):
    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def write(self, batch: SpanBatch) -> None:
        if self.times:
            self.times -= 1
            raise SystemExit("a plugin that leaves")
        await super().write(batch)


def test_a_failing_storage_is_tried_again_until_it_takes_the_batch() -> None:
    storage = Fails(2)
    with Monitor(storage) as monitor:
        record(monitor, 4)
        assert monitor.flush().complete
        stats = monitor.stats()
        assert stats["spans"]["stored"] == 4
        assert stats["storage"]["retries"] == 2
        assert stats["failures"] == {"storage.write: SystemExit": 2}
        assert_ledgers(stats)


class Exporter:
    def __init__(self, act: Callable[[SpanBatch], None]) -> None:
        self.act = act
        self.spans = 0

    async def export(self, batch: SpanBatch) -> None:
        self.act(batch)
        self.spans += len(batch)

    async def close(self) -> None:
        return


class Good(Exporter):
    def __init__(self) -> None:
        super().__init__(lambda batch: None)


def raise_it(error: BaseException) -> Callable[[SpanBatch], None]:
    def act(batch: SpanBatch) -> None:
        raise error

    return act


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), SystemExit(3), KeyboardInterrupt(), RecursionError(), GeneratorExit()],
)
def test_an_exporter_that_raises_costs_nobody_else_anything(error: BaseException) -> None:
    good, bad = Good(), Exporter(raise_it(error))
    with Monitor("memory:", exporters=[bad, good]) as monitor:
        record(monitor, 10)
        assert monitor.flush().complete
        stats = monitor.stats()
        assert good.spans == stats["spans"]["stored"] == 10
        assert stats["exporters"]["Exporter"]["failed"] == 10
        assert any(key.startswith("Exporter.export") for key in stats["failures"])
        assert_ledgers(stats)


def test_an_exporter_that_hangs_delays_nobody_else() -> None:
    go = threading.Event()
    good, bad = Good(), Exporter(lambda batch: bool(go.wait(30)) and None)
    monitor = Monitor("memory:", exporters=[bad, good])
    record(monitor, 10)
    report = monitor.flush(timeout=1)
    assert report.waiting == ("Exporter",)
    assert good.spans == monitor.stats()["spans"]["stored"] == 10
    go.set()
    assert monitor.close().complete


def test_after_five_failures_in_a_row_an_exporter_is_cut_off() -> None:
    bad = Exporter(raise_it(ValueError("x")))
    with Monitor("memory:", exporters=[bad]) as monitor:
        for _ in range(7):
            record(monitor)
            assert monitor.flush().complete
        stats = monitor.stats()
        assert stats["cut_off"] == ["Exporter"]
        ledger = stats["exporters"]["Exporter"]
        assert (ledger["failed"], ledger["dropped"], ledger["queued"]) == (5, 2, 0)


class Collector:
    def __init__(self, act: Callable[[SpanBatch], Any]) -> None:
        self.act = act

    def collect(self, batch: SpanBatch) -> Any:
        return self.act(batch)


def test_a_collector_adds_columns_measurements_and_attributes() -> None:
    collector = Collector(
        lambda batch: {
            "image_count": [2] * len(batch),
            "politeness": [0.5] * len(batch),
            "mood": ["good"] * len(batch),
        }
    )
    with Monitor("memory:", collectors=[collector]) as monitor:
        record(monitor, attributes={"mine": "kept"})
        monitor.flush()
        (span,) = spans_from_arrow(monitor.query())
    assert span.image_count == 2
    assert span.measurements == {"politeness": 0.5}
    assert span.attributes == {"mine": "kept", "mood": "good"}


@pytest.mark.parametrize(
    "act",
    [
        raise_it(ValueError("x")),
        raise_it(SystemExit()),
        lambda batch: None,
        lambda batch: {"input_tokens": [1]},
        lambda batch: {"input_tokens": ["many"] * len(batch)},
        lambda batch: {"span_id": ["x"] * len(batch)},
        lambda batch: {"n": [object()] * len(batch)},
        lambda batch: {3: [1.0] * len(batch)},
    ],
)
def test_a_collector_that_fails_costs_only_its_own_values(act: Any) -> None:
    with Monitor("memory:", collectors=[Collector(act), "capacity"]) as monitor:
        record(monitor, 3)
        assert monitor.flush().complete
        spans = spans_from_arrow(monitor.query())
        assert [s.output_chars for s in spans] == [3, 3, 3]
        assert any(k.startswith("Collector.collect") for k in monitor.stats()["failures"])


def test_a_batch_is_not_lost_when_a_collector_tries_to_change_it() -> None:
    def spoil(batch: SpanBatch) -> Any:
        batch.rows[0].name = "spoiled"  # type: ignore[misc]

    with Monitor("memory:", collectors=[Collector(spoil)]) as monitor:
        record(monitor)
        monitor.flush()
        (span,) = spans_from_arrow(monitor.query())
    assert span.name == "root"


class Listener:
    """A plugin that hears of everything, and fails where it is told to."""

    def __init__(self, fail: bool = False) -> None:
        self.heard: list[str] = []
        self.fail = fail

    @hookimpl
    def llmops_monitor_started(self, monitor: Monitor) -> None:
        self._hear("started")

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self._hear(f"stored {len(batch)}")

    @hookimpl
    def llmops_monitor_stopping(self, monitor: Monitor) -> None:
        self._hear("stopping")

    @hookimpl
    def llmops_plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        self._hear(f"failed {plugin}.{where} {type(error).__name__}")

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if self.fail:
            raise ValueError(what)


def test_plugins_hear_of_start_batches_failures_and_stop() -> None:
    listener = Listener()
    bad = Exporter(raise_it(ValueError("x")))
    with Monitor("memory:", plugins=[listener], exporters=[bad]) as monitor:
        record(monitor, 2)
        monitor.flush()
        until(lambda: "stored 2" in listener.heard)
    assert listener.heard[0] == "started"
    assert "failed Exporter.export ValueError" in listener.heard
    assert listener.heard[-1] == "stopping"


def test_a_batch_that_is_stored_while_closing_is_told_of() -> None:
    listener = Listener()
    monitor = Monitor("memory:", plugins=[listener])
    record(monitor, 2)
    monitor.close()
    assert "stored 2" in listener.heard


def test_a_listener_that_fails_at_everything_changes_nothing() -> None:
    listener = Listener(fail=True)
    with Monitor("memory:", plugins=[listener]) as monitor:
        record(monitor, 2)
        assert monitor.flush().complete
        until(lambda: "stored 2" in listener.heard)
        assert monitor.query().num_rows == 2
    assert monitor.stats()["failures"]["Listener.llmops_monitor_started: ValueError"] == 1


def test_a_span_of_wrong_types_costs_at_most_itself(monitor: Monitor) -> None:
    monitor.recorder.start(1, None, {"kind": 7, "name": ["x"], "tags": 3, "input_tokens": "12"})
    monitor.recorder.end(1, None, {"output": "not frozen", "outcome": "splendid", "odd": 1})
    monitor.recorder.start("no number", None, {})  # type: ignore[arg-type]
    record(monitor, 2)
    assert monitor.flush().complete
    spans = {s.name: s for s in spans_from_arrow(monitor.query())}
    assert len(spans) == 2
    odd = next(s for s in spans.values() if s.name != "root")
    assert (odd.kind, odd.outcome) == ("chain", "incomplete")
    assert odd.attributes is not None
    assert odd.attributes["input_tokens"] == "12"
    stats = monitor.stats()
    assert stats["sanitized"]["wrong_type"] >= 3
    assert_ledgers(stats)


def test_closing_stores_what_is_open_as_incomplete(tmp_path: Path) -> None:
    url = f"parquet:{tmp_path / 'data'}"
    monitor = Monitor(url)
    monitor.recorder.start(1, None, {"kind": "workflow", "name": "endless"})
    assert monitor.close().complete
    with open_storage(url) as storage:
        (span,) = spans_from_arrow(storage.query())
    assert (span.name, span.outcome) == ("endless", "incomplete")
    assert not list((tmp_path / "data" / ".journal").iterdir()), "nothing is left to recover"


def test_a_closed_monitor_counts_what_it_refuses(monitor: Monitor) -> None:
    monitor.close()
    record(monitor)
    assert monitor.stats()["events"]["dropped"] == {"closed": 2}
    with pytest.raises(MonitorClosed, match="open_storage"):
        monitor.query()
    assert monitor.close().complete, "closing twice does nothing"
    assert monitor.flush().complete


def test_a_storage_that_was_down_gets_everything_in_the_end(tmp_path: Path) -> None:
    class Down(MemoryStorage):
        volatile = False
        journal_root = tmp_path
        up = False

        async def write(self, batch: SpanBatch) -> None:
            if not self.up:
                raise ConnectionError("down")
            await super().write(batch)

    storage = Down()
    with Monitor(storage, backlog_bytes=64 * 1024, batch_size=50) as monitor:
        record(monitor, 2_000)
        assert not monitor.flush(timeout=0.5).complete
        until(lambda: monitor.stats()["spans"]["journaled"] == 2_000)
        stats = monitor.stats()
        assert stats["storage"]["retries"] > 0
        assert_ledgers(stats)
        storage.up = True
        assert monitor.flush(timeout=20).complete
        stats = monitor.stats()
        assert stats["spans"]["stored"] == 2_000
        assert stats["spans"]["journaled"] == 0
        assert_ledgers(stats)
        assert monitor.query(aggregates=["count"]).to_pylist() == [{"count": 2_000}]


def test_without_a_journal_an_outage_drops_beyond_the_bound_and_counts_it() -> None:
    class Down(MemoryStorage):
        async def write(self, batch: SpanBatch) -> None:
            raise ConnectionError("down")

    monitor = Monitor(Down(), backlog_bytes=64 * 1024, batch_size=50)
    record(monitor, 2_000)
    monitor.flush(timeout=0.5)
    until(lambda: monitor.stats()["events"]["consumed"] == 4_000)
    until(lambda: monitor.stats()["spans"]["dropped"].get("storage_behind", 0) > 1_000)
    stats = monitor.stats()
    assert stats["spans"]["queued"] > 0
    assert_ledgers(stats)
    report = monitor.close(timeout=0.2)
    assert report.dropped["storage_behind"] > 1_000


def test_where_nothing_is_writable_monitoring_goes_on_in_memory_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")

    class Elsewhere(MemoryStorage):
        volatile = False
        journal_root = tmp_path / "file" / "journal"

    with Monitor(Elsewhere()) as monitor:
        record(monitor, 3)
        assert monitor.flush().complete
        stats = monitor.stats()
        assert stats["journal"]["level"] == "memory"
        assert stats["spans"]["stored"] == 3
    assert len([r for r in caplog.records if "journal" in r.getMessage()]) == 1


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Monitor(Fails(4)) as monitor:
        record(monitor)
        monitor.flush(timeout=20)
    lines = [r.getMessage() for r in caplog.records if r.name == "llmops"]
    began, ended = lines
    assert began.startswith("storage Fails takes no spans (SystemExit);")
    assert "a plugin that leaves" not in began, "an error's text may hold anything"
    assert ended.startswith("storage Fails takes spans again, after ")


BAD = [
    ({"storage": "clickhose://x"}, UnknownStorage, "no storage handles"),
    ({"storage": "parqet:./x"}, UnknownStorage, "Did you mean 'parquet'"),
    ({"storage": "no_scheme"}, UnknownStorage, "no scheme"),
    ({"storage": "parquet:"}, LLMOpsError, "parquet:"),
    ({"storage": 3}, ConfigError, "open, write, query, close"),
    ({"storage": MemoryStorage}, ConfigError, "Write MemoryStorage()"),
    ({"exporters": ["otpl"]}, UnknownPart, "unknown exporter 'otpl'"),
    ({"exporters": "console"}, ConfigError, r"exporters=\['console'\]"),
    ({"exporters": [object()]}, ConfigError, "export, close"),
    ({"collectors": ["capacty"]}, UnknownPart, "Did you mean 'capacity'"),
    ({"batch_size": -1}, ConfigError, "batch_size=-1"),
    ({"batch_size": "many"}, ConfigError, "whole number"),
    ({"queue_bytes": 10}, ConfigError, "queue_bytes=10"),
    ({"queue_events": True}, ConfigError, "queue_events=True"),
    ({"durability": "fsync"}, ConfigError, "journal, memory"),
    ({"service": 3}, ConfigError, "service=3"),
    ({"content_limit": 2**30}, ConfigError, "content_limit"),
    ({"bach_size": 3}, ConfigError, "Did you mean 'batch_size'"),
    ({"plugins": ["nonesuch"]}, LLMOpsError, "no plugin named 'nonesuch'"),
    ({"plugins": [object()]}, LLMOpsError, "implements no hook"),
]


@pytest.mark.parametrize(("arguments", "error", "says"), BAD)
def test_bad_input_is_a_clear_error_and_leaves_nothing_behind(
    arguments: dict[str, Any],
    error: type[Exception],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(threading.enumerate())
    with pytest.raises(error, match="(?i)" + says):
        Monitor(**arguments)
    assert list(tmp_path.iterdir()) == []
    assert not set(threading.enumerate()) - before, "no thread is left behind"


def test_a_file_where_the_folder_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(LLMOpsError, match="data") as caught:
        Monitor(f"parquet:{tmp_path / 'data'}")
    assert caught.value.do or caught.value.expected
    assert (tmp_path / "data").read_text() == "a file"
