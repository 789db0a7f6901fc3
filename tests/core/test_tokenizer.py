"""The provider's own counting API: asked beside the program, within a budget, and only if named."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmops_core import ConfigError, Monitor, Registry, hookimpl, monitor_llm
from llmops_core.collectors import tokenizer
from llmops_core.collectors.tokenizer import TokenizerCollector
from llmops_core.collectors.tokens import TokensCollector
from llmops_core.delivery import collecting
from llmops_core.delivery.collecting import merge_values
from llmops_core.measuring.provider_api import make_tokenizer
from llmops_core.testing import make_batch, make_span

KEY = "key-of-a-test"


class Provider:
    """A provider on the loopback that counts words, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.status = 200
        self.location = ""
        self.answer: Any = None
        self.release = threading.Event()
        self.release.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                provider.asked.append((self.path, headers, body))
                provider.release.wait(60)
                self.send_response(provider.status)
                if provider.location:
                    self.send_header("location", provider.location)
                self.end_headers()
                self.wfile.write(provider.told(body))

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def told(self, body: Any) -> bytes:
        if self.answer is not None:
            return bytes(self.answer)
        if "messages" in body:
            return json.dumps(
                {"input_tokens": len(body["messages"][0]["content"].split())}
            ).encode()
        text = body["contents"][0]["parts"][0]["text"]
        return json.dumps({"totalTokens": len(text.split())}).encode()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    made = Provider()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.release.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join(60)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time: what is claimed is not how fast the loopback answers."""
    monkeypatch.setattr(tokenizer, "BATCH_SECONDS", 60.0)
    monkeypatch.setattr(collecting, "LATE_SECONDS", 60.0)
    monkeypatch.setattr(collecting, "MAX_WAIT_SECONDS", 60.0)


def collector(provider: Provider, name: str = "anthropic", **options: Any) -> TokenizerCollector:
    options = {"batch_seconds": 60.0, **options}
    return TokenizerCollector(make_tokenizer(name, provider.url), **options)


def a_call(number: int = 1, **fields: Any) -> Any:
    given = {"kind": "llm", "model": "claude-sonnet-4-5", "usage_source": "missing"}
    return make_span(number, **{**given, "input": "one two", "output": "three", **fields})


# ---- what is asked ----


@pytest.mark.parametrize(
    ("name", "model", "path", "header"),
    [
        ("anthropic", "anthropic/claude-3-haiku", "/v1/messages/count_tokens", "x-api-key"),
        ("gemini", "gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro:countTokens", "x-goog-api-key"),
    ],
)
def test_a_provider_is_asked_in_its_own_way(
    provider: Provider, name: str, model: str, path: str, header: str
) -> None:
    batch = make_batch([a_call(model=model)])
    (row,) = merge_values(batch.rows, collector(provider, name).collect(batch))
    assert (row.input_tokens, row.output_tokens, row.usage_source) == (2, 1, "counted")
    assert [(asked[0], asked[1][header]) for asked in provider.asked] == [(path, KEY)] * 2
    if name == "anthropic":
        assert provider.asked[0][2]["model"] == "claude-3-haiku"


@pytest.mark.parametrize(
    "fields",
    [
        {"usage_source": "provider", "input_tokens": 9},
        {"usage_source": "counted", "input_tokens": 9},
        {"model": "gpt-4o"},
        {"model": None},
        {"kind": "tool"},
        {"input": None, "output": None},
    ],
)
def test_nobody_is_asked_where_there_is_nothing_to_ask(
    provider: Provider, fields: dict[str, Any]
) -> None:
    assert collector(provider).collect(make_batch([a_call(**fields)])) == {}
    assert provider.asked == []


def test_a_text_is_asked_for_once(provider: Provider) -> None:
    mine = collector(provider)
    batch = make_batch([a_call(1), a_call(2)])
    assert mine.collect(batch) == mine.collect(batch)  # for the exporters, and for the storage
    assert len(provider.asked) == 2  # its input and its output


def test_what_was_cut_is_scaled_and_an_estimate(provider: Provider) -> None:
    row = a_call(input="word " * 10, input_truncated=True, input_size=500)
    values = collector(provider).collect(make_batch([row]))
    assert (values["input_tokens"], values["usage_source"]) == ([100], ["estimated"])


def test_the_estimate_leaves_what_was_counted(provider: Provider) -> None:
    batch = make_batch([a_call()])
    counted = merge_values(batch.rows, collector(provider).collect(batch))
    assert TokensCollector().collect(make_batch(counted)) == {}


# ---- budgets and failures ----


def test_after_its_time_a_batch_goes_on_with_what_was_counted(provider: Provider) -> None:
    assert collector(provider, batch_seconds=0.0).collect(make_batch([a_call()])) == {}
    assert provider.asked == []


def test_a_minute_has_so_many_calls_and_no_more(provider: Provider) -> None:
    rows = [a_call(at, input=f"text {at}", output=None) for at in range(5)]
    values = collector(provider, calls_a_minute=3).collect(make_batch(rows))
    assert values["input_tokens"] == [2, 2, 2, None, None]
    assert len(provider.asked) == 3


def test_a_call_with_one_side_uncounted_gets_no_half_of_a_sum(provider: Provider) -> None:
    assert collector(provider, calls_a_minute=1).collect(make_batch([a_call()])) == {}


@pytest.mark.parametrize(
    ("status", "answer"),
    [(500, b"{}"), (200, b"not json"), (200, b'{"input_tokens": -1}'), (200, b"[]")],
)
def test_a_failure_is_raised_once_and_then_nobody_is_asked_for_a_while(
    provider: Provider, status: int, answer: bytes
) -> None:
    provider.status, provider.answer = status, answer
    mine = collector(provider)
    with pytest.raises(OSError, match="provider"):
        mine.collect(make_batch([a_call(1)]))
    for number in range(3):
        assert mine.collect(make_batch([a_call(number)])) == {}
    assert len(provider.asked) == 1


def test_a_redirect_is_not_followed(provider: Provider) -> None:
    provider.status, provider.location = 307, f"{provider.url}/elsewhere"
    with pytest.raises(OSError, match="answered 307"):
        collector(provider).collect(make_batch([a_call()]))
    assert len(provider.asked) == 1


def test_a_provider_that_hangs_is_left_within_the_budget(provider: Provider) -> None:
    provider.release.clear()
    with pytest.raises(OSError, match="timed out"):
        collector(provider, batch_seconds=0.05).collect(make_batch([a_call()]))


# ---- as a part of a monitor ----


@pytest.mark.usefixtures("patient")
def test_a_monitor_that_names_it_counts_on_a_thread_of_its_own(provider: Provider) -> None:
    with Monitor(
        storage="memory:",
        durability="memory",
        collectors=[f"tokenizer:anthropic:{provider.url}", "tokens"],
    ) as monitor:

        @monitor_llm(
            operation_type="llm_call", custom_attributes={"model": "claude-3-opus"}, monitor=monitor
        )
        def answer(prompt: str) -> str:
            return "a b c"

        answer("one two")
        assert monitor.flush(60).complete
        (row,) = monitor.query().to_pylist()
        assert monitor.stats()["failures"] == {}
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (2, 3, "counted")


def test_a_provider_that_hangs_delays_no_call_and_the_estimate_serves(provider: Provider) -> None:
    provider.release.clear()
    with Monitor(
        storage="memory:",
        durability="memory",
        collectors=[f"tokenizer:anthropic:{provider.url}", "tokens"],
    ) as monitor:

        @monitor_llm(
            operation_type="llm_call", custom_attributes={"model": "claude-3-opus"}, monitor=monitor
        )
        def answer(prompt: str) -> str:
            return "a b c"

        answer("one two")
        assert monitor.flush(60).complete  # although nobody has been answered
        (row,) = monitor.query().to_pylist()
        assert row["usage_source"] == "estimated"
        # Its own end, or the delivery's if that was sooner; a TimeoutError either way.
        assert "tokenizer.collect: TimeoutError" in monitor.stats()["failures"]
        provider.release.set()


@pytest.mark.usefixtures("patient")
def test_a_plugin_brings_a_tokenizer_of_its_own() -> None:
    class Mine:
        def __init__(self, argument: str) -> None:
            self.factor = int(argument)
            self.threads: set[str] = set()

        def knows(self, model: str) -> bool:
            return model == "ours"

        def count(self, text: str, model: str, seconds: float) -> int:
            assert threading.current_thread() is not threading.main_thread()
            assert seconds > 0
            return len(text) * self.factor

    class Plugin:
        name = "mine"

        @hookimpl
        def llmops_register(self, registry: Registry) -> None:
            registry.tokenizer("mine", Mine)
            registry.tokenizer("nothing", lambda argument: object())

    plugins = [Plugin()]
    with Monitor(
        storage="memory:", durability="memory", plugins=plugins, collectors=["tokenizer:mine:10"]
    ) as monitor:

        @monitor_llm(
            operation_type="llm_call", custom_attributes={"model": "ours"}, monitor=monitor
        )
        def answer(prompt: str) -> str:
            return "abc"

        answer("ab")
        assert monitor.flush(60).complete
        (row,) = monitor.query().to_pylist()
    assert (row["input_tokens"], row["output_tokens"]) == (20, 30)
    with pytest.raises(ConfigError, match="Expected one with knows and count"):
        Monitor(storage="memory:", plugins=[Plugin()], collectors=["tokenizer:nothing"])


# ---- set-up ----


@pytest.mark.parametrize(
    ("named", "key", "said"),
    [
        ("tokenizer", KEY, "Expected the name of a tokenizer: anthropic, gemini"),
        ("tokenizer:nobody", KEY, "Expected the name of a tokenizer"),
        ("tokenizer:anthropic", "", "ANTHROPIC_API_KEY"),
        ("tokenizer:anthropic:ftp://host", KEY, "Expected http"),
    ],
)
def test_what_cannot_work_is_told_at_set_up(
    monkeypatch: pytest.MonkeyPatch, named: str, key: str, said: str
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", key)
    with pytest.raises(ConfigError, match=said) as raised:
        Monitor(storage="memory:", collectors=[named])
    assert KEY not in str(raised.value)


def test_nothing_asks_a_provider_unless_it_is_named(provider: Provider) -> None:
    with Monitor(storage="memory:", durability="memory") as monitor:

        @monitor_llm(
            operation_type="llm_call",
            measurement="token",
            custom_attributes={"model": "claude-3-opus"},
            monitor=monitor,
        )
        def answer(prompt: str) -> str:
            return "a b c"

        answer("one two")
        assert monitor.flush(60).complete
        (row,) = monitor.query().to_pylist()
    assert row["usage_source"] == "estimated"
    assert provider.asked == []


class Second:
    """A tokenizer that counts once, and then fails."""

    def __init__(self) -> None:
        self.asked = 0

    def knows(self, model: str) -> bool:
        return True

    def count(self, text: str, model: str, seconds: float) -> int:
        self.asked += 1
        if self.asked > 2:  # both sides of the first call are counted
            raise ConnectionError("gone")
        return 7


def test_a_failure_behind_a_count_keeps_the_count_and_is_told_with_the_next_batch() -> None:
    made = TokenizerCollector(Second())
    spans = [a_call(number, input=f"text {number}") for number in (1, 2)]
    assert made.collect(make_batch(spans))["input_tokens"][0] == 7
    with pytest.raises(ConnectionError, match="gone"):
        made.collect(make_batch(spans))
    assert made.collect(make_batch(spans))["input_tokens"][0] == 7, "told once"


def test_a_tokenizer_that_fails_to_say_what_it_knows_is_not_asked_for_a_while() -> None:
    class Forgets:
        asked = 0

        def knows(self, model: str) -> bool:
            self.asked += 1
            if self.asked > 1:
                raise OSError("no list of models")
            return True

        def count(self, text: str, model: str, seconds: float) -> int:
            return 1

    forgets = Forgets()
    mine = TokenizerCollector(forgets, batch_seconds=60.0)
    known, other = make_batch([a_call(1)]), make_batch([a_call(2, model="another")])
    assert mine.collect(known)
    with pytest.raises(OSError, match="no list"):
        mine.collect(other)
    assert mine.collect(other) == {}
    assert mine.collect(known)  # what was counted before the pause is told again
    assert forgets.asked == 2
