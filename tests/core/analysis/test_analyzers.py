"""An aggregation of one's own: a registered analyzer over a query's answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from llmops_core import ConfigError, Monitor, Registry, UnknownPart, hookimpl, monitor_llm


class Longest:
    """The longest outputs, as many as its argument says."""

    def __init__(self, argument: str) -> None:
        self.many = int(argument or 1)
        self.thread: threading.Thread | None = None

    def analyze(self, spans: pa.Table) -> pa.Table:
        self.thread = threading.current_thread()
        return (
            spans.sort_by([("output_chars", "descending")]).slice(0, self.many).select(["output"])
        )


class Fails:
    def analyze(self, spans: pa.Table) -> pa.Table:
        raise ZeroDivisionError("mine")


class Plugin:
    name = "longest"

    @hookimpl
    def llmops_register(self, registry: Registry) -> None:
        registry.analyzer("longest", Longest)
        registry.analyzer("nothing", lambda argument: object())


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor(storage="memory:", durability="memory", plugins=[Plugin()]) as made:

        @monitor_llm(monitor=made)
        def say(text: str) -> str:
            return text

        @monitor_llm(operation_type="tool", monitor=made)
        def use(text: str) -> str:
            return text

        for text in ("a", "abc", "ab"):
            say(text)
        use("much longer")
        made.flush()
        yield made


def found(table: Any) -> list[str]:
    return [str(row["output"]) for row in table.to_pylist()]


def test_a_registered_analyzer_gets_what_the_query_answers(monitor: Monitor) -> None:
    assert found(monitor.analyze("longest")) == ["much longer"]
    assert found(monitor.analyze("longest", kind="workflow")) == ["abc"]
    assert found(monitor.analyze("longest:2", kind="workflow")) == ["abc", "ab"]


def test_an_object_is_taken_too_and_runs_on_the_callers_thread(monitor: Monitor) -> None:
    mine = Longest("3")
    assert len(monitor.analyze(mine, name="say")) == 3
    assert mine.thread is threading.current_thread()


def test_what_it_raises_reaches_the_caller_and_costs_nothing_else(monitor: Monitor) -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        monitor.analyze(Fails())
    assert monitor.stats()["failures"] == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("longst", "Did you mean 'longest'"),
        ("nothing", "object without analyze"),
        (Longest, "is a class"),
    ],
)
def test_what_is_no_analyzer_is_refused(monitor: Monitor, given: Any, said: str) -> None:
    with pytest.raises((ConfigError, UnknownPart), match=said):
        monitor.analyze(given)
