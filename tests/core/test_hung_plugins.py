"""A plugin that hangs, lies or vandalises costs its own work: it is seen, left behind, and cut off."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmops_core import (
    CollectorRegistry,
    Monitor,
    PluginError,
    SpanBatch,
    StorageError,
    hookimpl,
    monitor_llm,
    running,
    spans_from_arrow,
)
from llmops_core.delivery import collecting, exporting, isolation, notifying, storing
from llmops_core.failures import Failures
from llmops_core.intake import thread as intake_thread
from llmops_core.measuring import published
from llmops_core.plugins import PluginHost
from llmops_core.storage.memory import MemoryStorage
from llmops_core.testing import make_batch, make_span

_ids = iter(range(1, 10_000_000))


def record(monitor: Monitor, count: int = 1, **fields: Any) -> None:
    for _ in range(count):
        run = next(_ids) + (1 << 102)
        monitor.recorder.start(run, None, {"kind": "tool", "name": "t", **fields})
        monitor.recorder.end(run, None, {"outcome": "ok"})


def soon(condition: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of a twentieth of a second."""
    for module in (collecting, notifying, isolation):
        monkeypatch.setattr(module, "LATE_SECONDS", 0.05)
    monkeypatch.setattr(collecting, "SPAN_SECONDS", 0.0)
    monkeypatch.setattr(isolation, "DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(exporting, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(storing, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr("llmops_core.delivery.thread.WATCH_SECONDS", 0.02)
    monkeypatch.setattr(intake_thread, "OPEN_FILE_SECONDS", 0.02)
    monkeypatch.setattr(intake_thread, "HOUSEKEEPING_SECONDS", 0.02)


@pytest.fixture
def go() -> Iterator[threading.Event]:
    running.look()  # as a watchdog does, which keeps the clock going; not each test has one
    released = threading.Event()
    yield released
    released.set()


class Tag:
    """A collector that works."""

    def __init__(self, name: str = "tag") -> None:
        self.name = name

    def collect(self, batch: SpanBatch) -> dict[str, list[str]]:
        return {self.name: ["x"] * len(batch)}


class HungCollector(Tag):
    def __init__(self, go: threading.Event) -> None:
        super().__init__("hung")
        self.go, self.calls = go, 0

    def collect(self, batch: SpanBatch) -> dict[str, list[str]]:
        self.calls += 1
        self.go.wait(60)
        return super().collect(batch)


def marks(monitor: Monitor) -> list[set[str]]:
    rows = spans_from_arrow(monitor.query())
    return [set(row.attributes or {}) for row in rows]


def test_spans_go_on_without_a_collector_that_hangs_and_it_is_cut_off(
    impatient: None, go: threading.Event
) -> None:
    hung = HungCollector(go)
    with Monitor("memory:", collectors=[hung, Tag()]) as monitor:
        record(monitor, 3)
        assert monitor.flush().complete
        assert marks(monitor) == [{"tag"}] * 3
        assert soon(lambda: monitor.stats()["cut_off"] == ["hung"])
        stats = monitor.stats()
        assert stats["collectors"]["missed"] == {"hung": 3}
        assert stats["failures"] == {"hung.collect: TimeoutError": 1}
        assert hung.calls == 1


def test_a_collector_that_comes_back_measures_again(
    impatient: None, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "DEADLINE_SECONDS", 60)
    with Monitor("memory:", collectors=[HungCollector(go), Tag()]) as monitor:
        record(monitor)
        assert monitor.flush().complete
        lane = monitor._pipeline.collecting._lane  # type: ignore[union-attr]
        assert lane is not None
        assert "hung" in lane.late
        go.set()
        assert soon(lambda: not lane.late)
        record(monitor)
        assert monitor.flush().complete
        assert sorted(map(len, marks(monitor))) == [1, 2]
        assert monitor.stats()["cut_off"] == []


def test_a_collector_whose_turn_does_not_come_is_not_blamed(
    impatient: None, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "SPAN_SECONDS", 20.0)  # a recovery's batch may take its time
    monkeypatch.setattr(collecting, "MAX_WAIT_SECONDS", 60.0)
    hung, failures = HungCollector(go), Failures()
    both = collecting.Collecting({"hung": hung, "tag": Tag()}, failures)
    spans = [make_span(number) for number in range(3)]
    recovery = threading.Thread(target=both.collect, args=(make_batch(spans),))
    recovery.start()
    assert soon(lambda: hung.calls)
    monkeypatch.setattr(collecting, "SPAN_SECONDS", 0.0)
    both.collect(make_batch(spans[:1]))
    assert both.missed == {"hung": 1, "tag": 1}
    assert failures.counts() == {}
    assert both._lane is not None
    assert both._lane.late == {}
    go.set()
    recovery.join(20)
    assert both.missed == {"hung": 1, "tag": 1}
    both.close()


def test_a_call_that_waits_behind_one_that_is_left_gets_the_new_thread(go: threading.Event) -> None:
    lane = isolation.SharedLane("test", Failures())
    hung = lane.call("hung", lambda: go.wait(60))
    assert soon(lambda: hung.began)
    waits = lane.call("waits", lambda: threading.current_thread().name)
    lane.leave("hung", hung)
    assert waits.done.result(20) == "llmops-test"
    assert list(lane.late) == ["hung"]
    go.set()
    assert soon(lambda: not lane.late)
    lane.stop()
    assert lane.call("late", bool).done.cancelled()


def test_a_call_that_nobody_waits_for_does_not_keep_the_thread(go: threading.Event) -> None:
    lane = isolation.SharedLane("test", Failures())
    hung = lane.call("hung", lambda: go.wait(60))
    assert soon(lambda: hung.began)
    lane.leave_after(60)
    assert lane.late == {}
    lane.leave_after(0)
    assert list(lane.late) == ["hung"]
    lane.stop()


def test_a_plugin_has_one_call_at_a_time_whatever_waits(go: threading.Event) -> None:
    lane, calls = isolation.SharedLane("test", Failures()), []
    hung = lane.call("hung", lambda: calls.append(1) or go.wait(60))
    assert soon(lambda: hung.began)
    waits = lane.call("hung", lambda: calls.append(2))
    lane.leave("hung", hung)
    later = lane.call("hung", lambda: calls.append(3))
    for turn in (waits, later):
        with pytest.raises(isolation.NoTurnError):
            turn.done.result(20)
    assert calls == [1]
    go.set()
    assert soon(lambda: not lane.late)
    assert lane.call("hung", lambda: 4).done.result(20) == 4
    lane.stop()


def test_a_call_that_outlives_its_monitor_leaves_no_thread_behind(go: threading.Event) -> None:
    lane = isolation.SharedLane("outlived", Failures())
    hung = lane.call("hung", lambda: go.wait(60))
    assert soon(lambda: hung.began)
    worker = lane.worker
    lane.stop()
    lane.leave("hung", hung)
    assert lane.worker is worker
    go.set()
    assert soon(lambda: not worker.is_alive())
    assert "llmops-outlived" not in {thread.name for thread in threading.enumerate()}


class Leaves(Tag):
    """A collector, and a listener, that leaves a task on the loop it is called in; that blocks."""

    def __init__(self, go: threading.Event) -> None:
        super().__init__("leaves")
        self.go, self.tasks = go, []

    def collect(self, batch: SpanBatch) -> dict[str, list[str]]:
        self.leave()
        return super().collect(batch)

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self.leave()

    def leave(self) -> None:
        async def block() -> None:
            self.go.wait(60)

        if not self.tasks:
            self.tasks.append(asyncio.get_running_loop().create_task(block()))


class Hears:
    """A listener that works."""

    def __init__(self) -> None:
        self.heard = 0

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self.heard += 1


def test_a_thread_blocked_by_what_a_collector_left_behind_is_told_and_replaced(
    impatient: None, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "BLOCKED_SECONDS", 1.0)
    with Monitor("memory:", collectors=[Leaves(go), Tag()]) as monitor:
        record(monitor)
        assert monitor.flush().complete
        blocked = "collectors.left_behind: TimeoutError"
        assert soon(lambda: blocked in monitor.stats()["failures"])

        def both_measure() -> bool:
            record(monitor)
            return monitor.flush().complete and {"leaves", "tag"} in marks(monitor)

        assert soon(both_measure)
        assert monitor.stats()["cut_off"] == []


def test_a_thread_blocked_by_what_a_listener_left_behind_is_told_and_replaced(
    impatient: None, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "BLOCKED_SECONDS", 1.0)
    hears = Hears()
    with Monitor("memory:", plugins=[Leaves(go), hears]) as monitor:
        record(monitor)
        assert monitor.flush().complete
        blocked = "plugins.left_behind: TimeoutError"
        assert soon(lambda: blocked in monitor.stats()["failures"])
        heard = hears.heard
        record(monitor)
        assert monitor.flush().complete
        assert soon(lambda: hears.heard > heard)


def test_whoever_waits_for_a_slow_collector_moves_and_watches_the_others(
    go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A batch of 5,000 may be waited for ten seconds; an exporter's deadline may end meanwhile.
    monkeypatch.setattr(collecting, "LATE_SECONDS", 10.0)
    hung, looks = HungCollector(go), []
    monitor = Monitor("memory:", collectors=[hung])
    pipeline = monitor._pipeline
    assert pipeline is not None
    delivery = pipeline.delivery
    delivery._watch_others = (lambda: looks.append(delivery.worker.beat),)
    record(monitor)
    assert soon(lambda: hung.calls)
    before = len(looks)
    assert soon(lambda: len(looks) >= before + 3)
    assert looks[-1] > looks[-2] > looks[-3]
    go.set()
    monitor.close(20)


def test_handoffs_that_wait_for_a_slow_hook_are_bounded_by_bytes(
    go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        calls = 0

        @hookimpl
        def llmops_handoff(self, handoff: Any) -> None:
            self.calls += 1
            go.wait(60)

    monkeypatch.setattr(notifying, "MAX_QUEUED_BYTES", 10_000)
    slow = Slow()
    notifier = notifying.Notifier(PluginHost([slow]), Failures())
    for first in range(0, 300, 100):
        spans = [make_span(first + n, kind="handoff") for n in range(100)]
        notifier.stored(make_batch(spans, first_seq=first + 1), 9_000)
    assert notifier.missed == 200
    go.set()
    assert soon(lambda: slow.calls == 100)
    spans = [make_span(300 + n, kind="handoff") for n in range(100)]
    notifier.stored(make_batch(spans, first_seq=301), 9_000)
    assert soon(lambda: slow.calls == 200), "what was told waits no more"
    notifier.close(20)


def test_a_named_collector_that_hangs_keeps_no_calls_objects(
    impatient: None, go: threading.Event
) -> None:
    class Hangs:
        def collect(self, result: Any, args: Any, kwargs: Any, context: Any) -> dict[str, Any]:
            go.wait(60)
            return {}

    CollectorRegistry.register("hangs_at_a_call", Hangs())
    kept = published.live_calls()
    with Monitor("memory:") as monitor:
        answer = monitor_llm(lambda: "x", collectors=["hangs_at_a_call"], monitor=monitor)
        for _ in range(3):
            answer()
        assert monitor.flush().complete
        assert published.live_calls() <= kept
        assert soon(lambda: monitor.stats()["cut_off"] == ["hangs_at_a_call"])
        answer()
        assert monitor.flush().complete
        assert published.live_calls() <= kept


def test_a_collectors_own_timeout_is_an_ordinary_failure() -> None:
    class Slow(Tag):
        def collect(self, batch: SpanBatch) -> dict[str, list[str]]:
            raise TimeoutError("mine")

    with Monitor("memory:", collectors=[Slow("slow")], batch_size=1) as monitor:
        for number in range(1, 8):
            record(monitor)
            assert monitor.flush().complete
            assert monitor.stats()["cut_off"] == (["slow"] if number >= 5 else [])


def test_a_hook_that_hangs_keeps_no_other_plugin_from_its_hooks(
    impatient: None, go: threading.Event
) -> None:
    class Hangs:
        name = "hangs"

        @hookimpl
        def llmops_spans_stored(self, batch: SpanBatch) -> None:
            go.wait(60)

    class Counts:
        name = "counts"
        spans = 0

        @hookimpl
        def llmops_spans_stored(self, batch: SpanBatch) -> None:
            self.spans += len(batch)

    counts = Counts()
    with Monitor("memory:", plugins=[Hangs(), counts, Second(counts)]) as monitor:
        record(monitor, 2)
        assert monitor.flush().complete
        assert soon(lambda: counts.spans == 4)
        assert soon(lambda: monitor.stats()["cut_off"] == ["hangs"])
        go.set()
        record(monitor)
        assert monitor.flush().complete
        assert soon(lambda: counts.spans == 6)


class Second:
    """Another listener, so that one stands on either side of the one that hangs."""

    name = "second"

    def __init__(self, counts: Any) -> None:
        self.counts = counts

    @hookimpl
    def llmops_spans_stored(self, batch: SpanBatch) -> None:
        self.counts.spans += len(batch)


class Hung(MemoryStorage):
    volatile = False

    def __init__(self, root: Path, go: threading.Event, *, blocks: bool) -> None:
        super().__init__()
        self.journal_root, self.go, self.blocks = root, go, blocks

    async def write(self, batch: SpanBatch) -> None:
        if self.blocks:
            self.go.wait(60)
        else:
            await asyncio.to_thread(self.go.wait, 60)
        await super().write(batch)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_storage_that_hangs_is_seen_and_gets_everything_when_it_returns(
    impatient: None, go: threading.Event, tmp_path: Path, blocks: bool
) -> None:
    class Sees:
        def __init__(self) -> None:
            self.spans = 0

        async def export(self, batch: SpanBatch) -> None:
            self.spans += len(batch)

        async def close(self) -> None:
            pass

    sees = Sees()
    with Monitor(Hung(tmp_path, go, blocks=blocks), exporters=[sees]) as monitor:
        record(monitor, 3)
        assert soon(lambda: monitor.stats()["storage"]["state"] == "hung")
        record(monitor, 3)
        assert monitor.flush(2).waiting == ("storage",)
        assert sees.spans == 6
        assert monitor.stats()["spans"]["journaled"] == 6
        if blocks:
            with pytest.raises(StorageError, match="has not answered for"):
                monitor.query()
        (folder,) = tmp_path.iterdir()
        assert soon(lambda: "hung" in (folder / "state").read_text())
        assert json.loads((folder / "state").read_text())["storage"]["state"] == "hung"
        go.set()
        assert monitor.flush(20).complete
        assert soon(lambda: monitor.stats()["storage"]["state"] == "ok")
        assert monitor.query().num_rows == 6


def vandalise(batch: SpanBatch) -> None:
    for span in batch.rows:
        msgspec.structs.force_setattr(span, "name", "spoilt")
        if span.attributes is not None:
            span.attributes["spoilt"] = "yes"
    batch._rows = ()


def test_what_a_plugin_does_to_its_spans_by_force_nobody_else_sees() -> None:
    class Vandal:
        name = "vandal"
        batches = 0

        def collect(self, batch: SpanBatch) -> dict[str, list[str]]:
            values = {"more": ["x"] * len(batch)}
            vandalise(batch)
            return values

        async def export(self, batch: SpanBatch) -> None:
            assert batch.arrow.num_rows == len(batch)
            vandalise(batch)
            self.batches += 1

        async def close(self) -> None:
            pass

        @hookimpl
        def llmops_spans_stored(self, batch: SpanBatch) -> None:
            vandalise(batch)

    vandal = Vandal()
    with Monitor(
        "memory:", collectors=[Tag(), vandal], exporters=[vandal], plugins=[vandal]
    ) as monitor:
        record(monitor, 2)
        assert monitor.flush().complete
        rows = spans_from_arrow(monitor.query())
    assert [row.name for row in rows] == ["t", "t"]
    assert [row.attributes for row in rows] == [{"tag": "x", "more": "x"}] * 2
    assert vandal.batches == 1
    assert monitor.stats()["failures"] == {}


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
def test_a_plugin_that_leaves_at_set_up_is_a_set_up_error(error: BaseException) -> None:
    class Leaves:
        name = "leaves"

        @hookimpl
        def llmops_register(self, registry: Any) -> None:
            raise error

    class Factory:
        name = "factory"

        @hookimpl
        def llmops_register(self, registry: Any) -> None:
            def make(text: str) -> object:
                raise error

            registry.exporter("leaves", make)

    with pytest.raises(PluginError, match="'leaves' failed in llmops_register"):
        Monitor("memory:", plugins=[Leaves()])
    with pytest.raises(PluginError, match=r"(?i)exporter 'leaves' could not be made"):
        Monitor("memory:", plugins=[Factory()], exporters=["leaves"])


def test_a_storage_that_does_not_open_in_time_is_a_set_up_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Never(MemoryStorage):
        async def open(self) -> None:
            await asyncio.sleep(60)

    monkeypatch.setattr("llmops_core.pipeline.OPEN_SECONDS", 0.05)
    with pytest.raises(StorageError, match=r"'Never' did not open within .* Check that"):
        Monitor(Never())


@pytest.mark.parametrize("error", [GeneratorExit(), asyncio.CancelledError(), SystemExit(2)])
def test_a_storage_that_leaves_is_tried_again(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "FIRST_RETRY_SECONDS", 0.002)

    class Leaves(MemoryStorage):
        volatile = False
        journal_root = tmp_path
        left = 3

        async def write(self, batch: SpanBatch) -> None:
            self.left -= 1
            if self.left >= 0:
                raise error
            await super().write(batch)

    with Monitor(Leaves()) as monitor:
        record(monitor)
        assert monitor.flush().complete
        state = monitor.stats()["storage"]
        assert (state["state"], state["retries"]) == ("ok", 3)
        assert state["last_error"] == type(error).__name__


def test_a_query_that_nobody_waits_for_any_more_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmops_core.monitor.QUERY_SECONDS", 0.05)
    ended = threading.Event()

    class Slow(MemoryStorage):
        async def query(self, query: Any) -> Any:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.set()
                raise

    with Monitor(Slow()) as monitor:
        with pytest.raises(StorageError, match="took longer"):
            monitor.query()
        assert ended.wait(20)


def test_a_storage_that_cancels_a_query_is_not_taken_for_a_closed_monitor() -> None:
    class Odd(MemoryStorage):
        async def query(self, query: Any) -> Any:
            raise asyncio.CancelledError

    with Monitor(Odd()) as monitor:
        with pytest.raises(StorageError, match="cancelled the query"):
            monitor.query()
        with pytest.raises(StorageError, match="cancelled the query"):
            asyncio.run(monitor.aquery())


def test_a_storage_that_answers_with_something_else_is_named() -> None:
    class Lies(MemoryStorage):
        async def query(self, query: Any) -> Any:
            return 5

    said = r"'Lies' answered a query with int\. Expected a pyarrow\.Table"
    with Monitor(Lies()) as monitor:
        with pytest.raises(StorageError, match=said):
            monitor.query()
        with pytest.raises(StorageError, match=said):
            asyncio.run(monitor.aquery())


def test_closing_waits_for_a_helper_thread_that_is_about_to_end() -> None:
    finished: list[bool] = []

    class Late(MemoryStorage):
        async def query(self, query: Any) -> Any:
            def work() -> None:
                time.sleep(0.4)
                finished.append(True)

            await asyncio.to_thread(work)

    monitor = Monitor(Late())
    asked = monitor._submit_query(None, {})
    time.sleep(0.05)
    monitor.close(20)
    assert finished == [True]
    assert asked.done()


def test_a_plugin_that_leaves_is_counted_by_what_it_raised() -> None:
    class Leaves(Tag):
        def collect(self, batch: SpanBatch) -> dict[str, list[str]]:
            raise SystemExit(3)

    with Monitor("memory:", collectors=[Leaves("leaves")]) as monitor:
        record(monitor)
        assert monitor.flush().complete
        assert monitor.stats()["failures"] == {"leaves.collect: SystemExit": 1}


def test_a_timeout_of_asyncio_is_counted_as_a_timeout() -> None:
    class Waits:
        name = "waits"

        async def export(self, batch: SpanBatch) -> None:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)

        async def close(self) -> None:
            pass

    with Monitor("memory:", exporters=[Waits()]) as monitor:
        record(monitor)
        assert monitor.flush().complete
        assert monitor.stats()["failures"] == {"waits.export: TimeoutError": 1}


class Sends:
    """An exporter that awaits, or blocks its thread, until it is let go."""

    name = "sends"

    def __init__(self, go: threading.Event, *, blocks: bool) -> None:
        self.go, self.blocks, self.calls = go, blocks, 0

    async def export(self, batch: SpanBatch) -> None:
        self.calls += 1
        if self.blocks:
            self.go.wait(60)
        elif not self.go.is_set():
            await asyncio.sleep(60)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("blocks", [False, True])
def test_an_export_past_its_deadline_is_cancelled_and_one_that_blocks_is_the_last(
    go: threading.Event, monkeypatch: pytest.MonkeyPatch, blocks: bool
) -> None:
    now = [0.0]
    monkeypatch.setattr(exporting, "running_seconds", lambda: now[0])
    failures, sends = Failures(), Sends(go, blocks=blocks)
    worker = exporting.ExportWorker("sends", sends, failures)

    def watch_at(seconds: float) -> None:
        now[0] = seconds
        worker.watch()

    worker.offer(make_batch([make_span(1)]))
    assert soon(lambda: sends.calls)
    watch_at(exporting.DEADLINE_SECONDS - 0.1)
    assert failures.counts() == {}
    watch_at(exporting.DEADLINE_SECONDS)
    if blocks:
        # The process was stopped meanwhile: whoever was cancelled had no time to end.
        watch_at(exporting.DEADLINE_SECONDS + exporting.CANCEL_SECONDS)
        assert not worker.cut_off
        watch_at(exporting.DEADLINE_SECONDS + 2 * exporting.CANCEL_SECONDS)
        assert worker.cut_off
        assert worker.stats()["dropped"] == 1
    else:
        assert soon(lambda: worker.failed == 1)
        go.set()  # its server answers again
        worker.offer(make_batch([make_span(2)]))
        assert soon(lambda: worker.exported == 1)
        assert not worker.cut_off
    assert failures.counts() == {"sends.export: TimeoutError": 1}
    worker.stop()


def test_an_exporter_that_hangs_is_cancelled_while_the_monitor_closes(
    impatient: None, go: threading.Event
) -> None:
    monitor = Monitor("memory:", exporters=[Sends(go, blocks=False)])
    record(monitor)
    report = monitor.close(50)  # the export itself would take 60 seconds
    assert report.complete
    assert monitor.stats()["failures"] == {"sends.export: TimeoutError": 1}


def test_a_close_that_fails_in_the_middle_ends_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monitor = Monitor("memory:")
    record(monitor)
    assert monitor.flush().complete
    pipeline = monitor._pipeline
    assert pipeline is not None
    with monkeypatch.context() as patched:

        def fails(timeout: float) -> tuple[str, ...]:
            raise OSError("no descriptor left")

        patched.setattr(pipeline, "close", fails)
        assert monitor.close(5).waiting == ("closing",)
    assert monitor.closed
    assert monitor.close(60).waiting == ("closing",)  # at once: there is nobody to wait for
    assert monitor.stats()["failures"] == {"monitor.close: OSError": 1}
    pipeline.close(10)


def test_at_the_limit_of_descriptors_a_close_waits_for_a_slow_hook(
    go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        @hookimpl
        def llmops_spans_stored(self, batch: SpanBatch) -> None:
            go.wait(60)

    monitor = Monitor("memory:", plugins=[Slow()])
    record(monitor)
    assert monitor.flush().complete

    def none_left() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", none_left)
    threading.Timer(3, go.set).start()  # past the half second after which it is left behind
    assert monitor.close(30).complete
    assert "monitor.close: OSError" not in monitor.stats()["failures"]
    assert monitor._pipeline is not None
    assert not monitor._pipeline.lane.worker.is_alive(), "the rest was closed, too"
