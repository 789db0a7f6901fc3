"""The published form of a storage: what it is given, where it is accepted, and what it cannot do."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any

import pytest

from llmops_core import (
    ConfigError,
    MetricEvent,
    Monitor,
    MonitorConfig,
    StorageBackend,
    StorageConfig,
    StorageError,
    hookimpl,
    monitor_llm,
    open_storage,
)
from llmops_core.storage.memory import MemoryStorage
from llmops_core.storage.published import adapted, event_of
from llmops_core.testing import full_span, make_batch, make_span


class Events(StorageBackend):
    """Keeps what it is given, and the order of its calls."""

    def __init__(self, *, batches: bool = True) -> None:
        self.calls: list[str] = []
        self.events: list[MetricEvent] = []
        self.batches = batches

    async def initialize(self) -> None:
        self.calls.append("initialize")

    async def write_event(self, event: MetricEvent) -> None:
        self.calls.append("write_event")
        self.events.append(event)

    async def write_batch(self, events: list[MetricEvent]) -> None:
        self.calls.append("write_batch")
        self.events.extend(events)

    async def close(self) -> None:
        self.calls.append("close")

    def supports_batch_writes(self) -> bool:
        return self.batches


class Duck:
    """Has the four methods of the snippet and nothing else."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def initialize(self) -> None: ...
    async def write_event(self, event: Any) -> None: ...
    async def write_batch(self, events: Any) -> None:
        self.names += [event.operation_name for event in events]

    async def close(self) -> None: ...


def recorded(monitor: Monitor, name: str = "greet") -> None:
    @monitor_llm(name, measure_text=True, custom_attributes={"model": "gpt-4"}, monitor=monitor)
    def greet(who: str) -> dict[str, str]:
        return {"text": f"Hello, {who}!"}

    greet("world")
    assert monitor.flush(60).complete


def test_a_call_arrives_as_the_published_event() -> None:
    backend = Events()
    with Monitor(storage=backend) as monitor:
        recorded(monitor)
    assert backend.calls == ["initialize", "write_batch", "close"]
    (event,) = backend.events
    assert (event.operation_name, event.operation_type) == ("greet", "agent_workflow")
    assert event.session_id == event.trace_id
    assert event.text_metrics is not None
    assert (event.text_metrics.char_count, event.text_metrics.word_count) == (13, 2)
    assert event.custom_attributes == {"model": "gpt-4"}
    assert (event.error, event.error_type, event.image_metrics) == (None, None, None)
    told = json.loads(event.model_dump_json())
    assert told == json.loads(json.dumps(event.to_dict()))
    assert told["text_metrics"]["char_count"] == 13
    assert "span" not in told
    assert event.span.output == '{"text":"Hello, world!"}'


def test_each_column_that_the_event_has_a_place_for_is_in_it() -> None:
    span = full_span(1).replace(outcome="error", kind="llm")
    event = event_of(span)
    assert (event.session_id, event.parent_span_id) == (span.session_id, span.parent_id)
    assert (event.operation_type, event.duration_ms) == ("llm_call", span.duration_ms)
    assert event.timestamp == dt.datetime.fromtimestamp(span.end_time / 1e6, tz=dt.UTC)
    text, image = event.text_metrics, event.image_metrics
    assert text is not None
    assert image is not None
    assert (text.char_count, text.line_count) == (span.output_chars, span.output_lines)
    assert text.total_tokens == (span.input_tokens or 0) + (span.output_tokens or 0)
    assert (image.count, image.total_pixels) == (span.image_count, span.image_pixels)
    assert (event.error, event.error_type) == (span.error_message, span.error_type)
    assert event.custom_attributes["estimated_cost_usd"] == span.cost_usd
    assert event.custom_attributes["score"] == (span.measurements or {})["score"]
    json.dumps(event.to_dict())


def test_an_event_has_the_same_id_each_time() -> None:
    assert event_of(make_span(1)).event_id == event_of(make_span(1, name="other")).event_id
    assert event_of(make_span(1)).event_id != event_of(make_span(2)).event_id


@pytest.mark.parametrize("end", [-(2**62), 2**62])
def test_a_time_beyond_the_calendar_is_no_failure(end: int) -> None:
    assert event_of(make_span(1, start_time=0, end_time=end)).timestamp.tzinfo is dt.UTC


def test_one_without_batches_gets_event_after_event() -> None:
    backend = Events(batches=False)
    storage: Any = adapted(backend)
    asyncio.run(storage.write(make_batch([make_span(1), make_span(2)])))
    assert backend.calls == ["write_event", "write_event"]
    assert [event.span_id for event in backend.events] == [f"{n:016x}" for n in (1, 2)]


def test_a_failed_batch_comes_again_and_is_counted_until_then() -> None:
    class Failing(Events):
        async def write_batch(self, events: list[MetricEvent]) -> None:
            await super().write_batch(events)
            if len(self.calls) < 4:
                raise OSError("not now")

    backend = Failing()
    with Monitor(storage=backend, batch_size=1) as monitor:
        recorded(monitor)
        assert monitor.stats()["spans"]["stored"] == 1
    assert len(backend.events) == 3
    assert len({event.event_id for event in backend.events}) == 1


class Plugin:
    name = "events"

    def __init__(self, made: object) -> None:
        self.made = made

    @hookimpl
    def llmops_register(self, registry: Any) -> None:
        registry.storage("events", lambda url: self.made)


def test_it_is_accepted_wherever_a_storage_is() -> None:
    duck = Duck()
    with Monitor(storage=duck) as monitor:  # type: ignore[arg-type]
        recorded(monitor, "object")
    with Monitor(storage="events:", plugins=[Plugin(duck)]) as monitor:
        recorded(monitor, "scheme")
    with MonitorConfig(storage=StorageConfig(backend=duck)).open() as monitor:
        recorded(monitor, "StorageConfig")
    config = MonitorConfig(
        storage=StorageConfig(backend="events", connection_string="events:"),
        plugins=[Plugin(duck)],
    )
    with config.open() as monitor:
        recorded(monitor, "backend")
    assert duck.names == ["object", "scheme", "StorageConfig", "backend"]


def test_a_query_says_that_it_is_only_written_to() -> None:
    with Monitor(storage=Events()) as monitor:
        with pytest.raises(StorageError, match="Events cannot be read back"):
            monitor.query()
    with pytest.raises(StorageError, match="cannot be read back"):
        open_storage(Events())


def test_one_with_a_query_is_read() -> None:
    class Readable(Events):
        def __init__(self) -> None:
            super().__init__()
            self.kept = MemoryStorage()

        async def write_batch(self, events: list[MetricEvent]) -> None:
            await self.kept.write(make_batch([event.span for event in events]))

        async def query(self, query: Any) -> Any:
            return await self.kept.query(query)

    with Monitor(storage=Readable()) as monitor:
        recorded(monitor)
        assert monitor.query(columns=["name"])["name"].to_pylist() == ["greet"]


def test_a_class_instead_of_an_object_is_a_set_up_error() -> None:
    for make in (
        lambda: Monitor(storage=Duck),  # type: ignore[arg-type]
        lambda: StorageConfig(backend=Duck),
        lambda: open_storage(Duck),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match=r"write Duck\(\)|is a class|not a storage"):
            make()


def test_an_object_takes_no_options_of_a_url() -> None:
    config = MonitorConfig(storage=StorageConfig(backend=Duck(), table_name="t"))
    with pytest.raises(ConfigError, match="table_name"):
        config.monitor_arguments()
