"""A decorated call's bad collector is named by ``llmops doctor``, while the monitor lives."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmops_core import CollectorRegistry, MetricCollector, Monitor, monitor_llm

Call = Callable[..., Any]

#: The monitor writes of itself every two seconds.
PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CollectorRegistry, "_factories", {})


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


class Raises(MetricCollector):
    def collect(self, *args: Any) -> dict[str, Any]:
        raise ValueError("a secret of the call")


class Nonsense(MetricCollector):
    def collect(self, *args: Any) -> Any:
        return "nonsense"


class Hangs(MetricCollector):
    def __init__(self, released: threading.Event) -> None:
        self.released = released

    def collect(self, *args: Any) -> dict[str, Any]:
        self.released.wait(PATIENCE_SECONDS)
        return {}


@pytest.mark.parametrize(
    ("sort", "said"),
    [
        ("raises", "mine.collect: ValueError"),
        ("nonsense", "mine.collect: TypeError"),
        ("hangs", "mine.collect: TimeoutError"),
    ],
)
def test_doctor_names_a_decorators_bad_collector(
    url: str, llmops: Call, released: threading.Event, sort: str, said: str
) -> None:
    bad = {"raises": Raises(), "nonsense": Nonsense(), "hangs": Hangs(released)}[sort]
    CollectorRegistry.register("mine", bad)
    with Monitor(storage=url) as monitor:

        @monitor_llm(collectors=["mine"], measure_text=["char_count"], monitor=monitor)
        def answer() -> str:
            return "abc"

        answer()
        assert monitor.flush(PATIENCE_SECONDS).complete
        (row,) = monitor.query().to_pylist()
        assert dict(row["measurements"]) == {"char_count": 3.0}  # the others' values are there
        (writer,) = _writers_with_trouble(llmops)
        assert said in writer["trouble"]["failures"]
        shown = llmops("doctor").out
        released.set()
    assert f"? {said}: " in shown
    assert "secret" not in shown


def test_doctor_says_which_collector_was_cut_off(url: str, llmops: Call) -> None:
    CollectorRegistry.register("mine", Raises())
    with Monitor(storage=url) as monitor:

        @monitor_llm(collectors=["mine"], monitor=monitor)
        def answer() -> str:
            return "abc"

        for _ in range(6):  # each flush is a batch of its own
            answer()
            assert monitor.flush(PATIENCE_SECONDS).complete
        assert monitor.stats()["cut_off"] == ["mine"]
        _writers_with_trouble(llmops, "cut_off")
        assert "✗ plugin mine is cut off" in llmops("doctor").out
        assert len(monitor.query()) == 6


def _writers_with_trouble(llmops: Call, what: str = "failures") -> list[dict[str, Any]]:
    """Return the writers once the monitor has written of itself."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        writers: list[dict[str, Any]] = json.loads(llmops("doctor", "--json").out)["journals"][
            "writers"
        ]
        if any(what in writer["trouble"] for writer in writers):
            return writers
        assert time.monotonic() < deadline, f"no monitor told of {what}: {writers}"
        time.sleep(0.05)
