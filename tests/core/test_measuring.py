"""What decorated functions ask to be measured: text, tokens, images, own collectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from llmops_core import (
    CollectorRegistry,
    ConfigError,
    MetricCollector,
    Monitor,
    Span,
    hookimpl,
    monitor_llm,
)
from llmops_core.collectors.cache import CacheCollector
from llmops_core.collectors.latency import LatencyCollector
from llmops_core.measuring import published
from llmops_core.measuring.texts import text_of
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.fixtures import CapturedSpans, spans

__all__ = ["spans"]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CollectorRegistry, "_factories", {})


def one(spans: CapturedSpans) -> Span:
    (span,) = spans()
    return span


# ---- which text ----


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("plain", "plain"),
        ('{"text": "a", "id": 3}', "a"),
        ('{"content": "a", "role": "user"}', "a"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "ai", "content": "b"}]}', "a\nb"),
        ('["a", {"text": "b"}, 3, null]', "a\nb"),
        ('{"question": "a", "context": ["b"]}', "a\nb"),
        ('{"choices": [{"message": {"content": "a"}}], "model": "m"}', "a"),
        ('{"content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "x"}]}', "a"),
        ('{"role": "ai", "content": "", "tool_calls": [{"id": "1", "name": "f", "args": {"q": "x"}}]}',
         "f\nx"),
        ('{"mime": "image/png", "sha256": "00", "size": 3}', ""),
        ("{not json", "{not json"),
        ("12", "12"),
        (None, None),
    ],
)  # fmt: skip
def test_the_rule_which_text_is_measured(stored: str | None, text: str | None) -> None:
    assert text_of(stored) == text


def test_the_measures_of_the_result_have_their_published_names(spans: CapturedSpans) -> None:
    @monitor_llm(measure_text=True, monitor=spans.monitor)
    def answer(prompt: str) -> dict[str, str]:
        return {"text": "zwei Wörter\nhier"}

    answer("x")
    assert one(spans).measurements == {
        "char_count": 16, "word_count": 3, "byte_size": 17, "line_count": 2
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "measures", "tokens"),
    [
        ({"measure_text": ["char_count"]}, {"char_count"}, None),
        ({"measure_text": True, "measurement": "token"}, set(), "counted"),
        ({"measure_text": ["char_count"], "measurement": "hybrid"}, {"char_count"}, "counted"),
        ({"measure_text": ["char_count"], "measurement": "capacity"}, {"char_count"}, None),
        ({"measurement": "auto"}, set(), "counted"),
        ({}, set(), None),
    ],
)
def test_the_mode_says_what_is_measured(
    spans: CapturedSpans, options: dict[str, Any], measures: set[str], tokens: str | None
) -> None:
    @monitor_llm(monitor=spans.monitor, custom_attributes={"model": "gpt-4o"}, **options)
    def answer(prompt: str) -> str:
        return "Hello, world!"

    answer("Hello")
    span = one(spans)
    assert set(span.measurements or {}) == measures
    assert span.usage_source == tokens
    assert span.output_tokens == (4 if tokens else None)


# ---- own collectors ----


class Words(MetricCollector):
    def collect(self, result: Any, args: Any, kwargs: Any, context: Any) -> dict[str, Any]:
        return {
            "custom_attributes": {
                "words": len(result["text"].split()),
                "who": context["session_id"],
            },
            "cost_usd": 0.25,
            "flag": True,
            "nested": {"a": [1]},
            "none": None,
        }

    @property
    def metric_type(self) -> str:
        return "words"


def test_a_published_collector_gets_the_calls_own_objects(spans: CapturedSpans) -> None:
    seen: list[Any] = []

    class Looks(Words):
        def collect(self, result: Any, args: Any, kwargs: Any, context: Any) -> dict[str, Any]:
            seen.extend([threading.current_thread(), result, args, kwargs, context])
            return super().collect(result, args, kwargs, context)

    CollectorRegistry.register("my_custom", Looks)
    kept = published.live_calls()  # those of other tests, whose collectors still run

    @monitor_llm(collectors=["my_custom"], session_id_from="session", monitor=spans.monitor)
    def answer(prompt: str, *, session: str) -> dict[str, str]:
        return made

    made = {"text": "two words"}
    answer("a", session="s-1")
    span = one(spans)
    assert span.measurements == {"words": 2.0}
    assert span.cost_usd == 0.25
    attributes = span.attributes or {}
    assert (attributes["who"], attributes["flag"], attributes["nested"]) == (
        "s-1",
        "true",
        '{"a":[1]}',
    )
    thread, result, args, kwargs, context = seen
    assert thread is not threading.main_thread()
    assert result is made
    assert (args, kwargs) == (("a",), {"session": "s-1"})
    assert (context["operation_name"], context["span_id"]) == ("answer", span.span_id)
    assert published.live_calls() <= kept


@pytest.mark.parametrize("given", [Words, Words()])
def test_a_collector_may_be_a_class_or_an_object(spans: CapturedSpans, given: object) -> None:
    @monitor_llm(collectors=[given], monitor=spans.monitor)
    def answer() -> dict[str, str]:
        return {"text": "a b c"}

    answer()
    assert one(spans).measurements == {"words": 3.0}


def test_a_generators_collector_gets_what_it_yielded(spans: CapturedSpans) -> None:
    class Length(MetricCollector):
        def collect(self, result: Any, *rest: Any) -> dict[str, Any]:
            return {"length": len(result)}

    @monitor_llm(collectors=[Length], monitor=spans.monitor)
    def stream() -> Iterator[str]:
        yield from "abc"

    list(stream())
    assert one(spans).measurements == {"length": 3.0}


class Raises(MetricCollector):
    def collect(self, *args: Any) -> dict[str, Any]:
        raise ValueError("mine")


class Nonsense(MetricCollector):
    def collect(self, *args: Any) -> Any:
        return [1, 2]


class BadValue(MetricCollector):
    def collect(self, *args: Any) -> Any:
        return {"a": object()}


class BadColumn(MetricCollector):
    def collect(self, *args: Any) -> Any:
        return {"span_id": "mine"}


@pytest.mark.parametrize("bad", [Raises, Nonsense, BadValue, BadColumn])
def test_a_collector_that_fails_costs_nobody_else_anything(
    spans: CapturedSpans, bad: type[MetricCollector]
) -> None:
    CollectorRegistry.register("bad", bad)

    @monitor_llm(collectors=["bad", Words], measure_text=["char_count"], monitor=spans.monitor)
    def answer() -> dict[str, str]:
        return {"text": "a b"}

    answer()
    assert one(spans).measurements == {"words": 2.0, "char_count": 3.0}
    failures = spans.monitor.stats()["failures"]
    assert [name for name in failures if name.startswith("bad.collect")]


def test_one_bad_call_does_not_cost_the_others(spans: CapturedSpans) -> None:
    class Picky(MetricCollector):
        def collect(self, result: Any, *rest: Any) -> dict[str, Any]:
            return {"half": 10 / result}

    @monitor_llm(collectors=[Picky], monitor=spans.monitor)
    def answer(number: int) -> int:
        return number

    for number in (1, 0, 2):
        answer(number)
    found = {span.output: (span.measurements or {}).get("half") for span in spans()}
    assert found == {"1": 10.0, "0": None, "2": 5.0}


def test_a_collector_that_hangs_is_left_behind_and_named() -> None:
    release = threading.Event()

    class Hangs(MetricCollector):
        def collect(self, *args: Any) -> dict[str, Any]:
            release.wait(60)
            return {}

    with Monitor(storage="memory:", durability="memory") as monitor:

        @monitor_llm(collectors=[Hangs], measure_text=["char_count"], monitor=monitor)
        def answer() -> str:
            return "abc"

        answer()
        assert monitor.flush(30).complete
        (row,) = monitor.query().to_pylist()
        assert row["measurements"] == [("char_count", 3.0)]
        stats = monitor.stats()
        release.set()
    assert stats["collectors"]["missed"] == {"Hangs": 1}
    assert "Hangs.collect: TimeoutError" in stats["failures"]


def test_a_name_that_nobody_has_is_reported_and_the_call_goes_on(
    spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    @monitor_llm(collectors=["nobody"], monitor=spans.monitor)
    def answer() -> str:
        return "a"

    assert answer() == "a"
    assert len(spans()) == 1
    assert "nobody.collect: LookupError" in spans.monitor.stats()["failures"]
    assert caplog.text.count("collectors=['nobody']: no collector of that name is registered") == 1


def test_a_plugins_collector_runs_for_the_calls_that_name_it_only() -> None:
    class Double:
        def collect(self, batch: Any) -> dict[str, Any]:
            return {"double": [2.0 * len(row.output or "") for row in batch.rows]}

    class Plugin:
        name = "doubles"

        @hookimpl
        def llmops_register(self, registry: Any) -> None:
            registry.collector("double", lambda argument: Double())

    with Monitor(storage="memory:", durability="memory", plugins=[Plugin()]) as monitor:

        @monitor_llm(collectors=["double"], monitor=monitor)
        def named() -> str:
            return "ab"

        @monitor_llm(monitor=monitor)
        def other() -> str:
            return "ab"

        named()
        other()
        monitor.flush()
        rows = monitor.query(columns=["name", "measurements"]).to_pylist()
    assert {r["name"]: r["measurements"] for r in rows} == {
        "named": [("double", 4.0)], "other": None
    }  # fmt: skip


def test_the_objects_of_calls_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "MAX_LIVE", 3)
    monkeypatch.setattr(published, "_live", published._LiveCalls())
    CollectorRegistry.register("words", Words)
    for number in range(10):
        published.keep_live(str(number), ("words",), {}, (), {})
    published.keep_live("11", ("cost",), {}, (), {})  # no published one: nothing to keep
    assert published.live_calls() == 3


@pytest.mark.parametrize("wrong", [object(), "x", lambda: None])
def test_what_cannot_collect_is_not_registered(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        CollectorRegistry.register("wrong", wrong)


# ---- small built-ins ----


def test_the_share_of_cached_tokens() -> None:
    rows = [
        make_span(1, kind="llm", input_tokens=200, cache_read_tokens=50),
        make_span(2, kind="llm", input_tokens=200),
        make_span(3, kind="llm", input_tokens=0, cache_read_tokens=0),
    ]
    assert CacheCollector().collect(make_batch(rows)) == {"cache_hit_rate": [0.25, None, None]}


def test_the_pattern_of_a_calls_time() -> None:
    rows = [
        make_span(1, kind="llm", duration_ms=1_000.0, ttft_ms=200.0, output_tokens=81),
        make_span(2, kind="llm", duration_ms=500.0, output_tokens=50),
        make_span(3, kind="tool", duration_ms=500.0),
    ]
    assert LatencyCollector().collect(make_batch(rows)) == {
        "generation_ms": [800.0, 500.0, None],
        "tokens_per_second": [100.0, 100.0, None],
        "ttft_share": [0.2, None, None],
    }
