"""The API examples that users of the published product know run here with the import line changed.

They stand in ``published_snippets.md``, call for call. Each either runs, and what it should have
done is looked at, or it is in :data:`EXCLUDED` with the reason and the failure that it has today;
one that begins to run fails its test and leaves the list. Examples of other topics (analysis of
agents, anomalies, reading a WebSocket) are not among them.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import llmops_core
from llmops_core import (
    CollectorRegistry,
    ConfigError,
    default,
    holding,
    initialize_monitoring_sync,
    shutdown,
)

_PAGE: Final = (Path(__file__).parent / "published_snippets.md").read_text(encoding="utf-8")
SNIPPETS: Final[dict[str, str]] = dict(
    re.findall(r"^## (.*?)\n\n```python\n(.*?)^```$", _PAGE, re.MULTILINE | re.DOTALL)
)
#: The line that changes.
_IMPORT: Final = re.compile(r"^from (?:llamonitor|llmops_monitoring)[\w.]* import", re.MULTILINE)
#: What an example without an import line of its own uses: its page has imported it before.
_ASSUMED: Final = (
    "monitor_llm", "initialize_monitoring", "MonitorConfig", "StorageConfig", "DatadogConfig",
    "MetricCollector", "CollectorRegistry", "StorageBackend",
)  # fmt: skip
#: Why an example does not run with its import line changed, and how it fails.
EXCLUDED: Final[dict[str, tuple[str, tuple[type[Exception], ...], str]]] = {
    "Prometheus": ("no such exporter in this release", (ConfigError,), "no such part"),
    "Datadog": ("no such exporter in this release", (ConfigError,), "no such part"),
    "WebSocket": ("no live streaming in this release", (ConfigError,), "no such part"),
    "a REST server": ("no API server in this release", (ImportError,), "run_api_server"),
    "a GraphQL server": ("no API server in this release", (ImportError,), "create_api_server"),
    "cost of a call, read back": (
        "the dotted and nested columns of the old schema",
        (ImportError, OSError, KeyError),  # as pandas is there, and the folder
        "pandas|parquet|custom_attributes",
    ),
}  # fmt: skip


class Model:
    """Stands for the model client ``llm`` of the examples."""

    async def generate(self, prompt: str) -> dict[str, str]:
        return {"text": "Hello, world!"}

    async def classify(self, query: str) -> str:
        return "weather"


async def _echo(value: str) -> str:
    return value


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, no collectors, and a default monitor that the example may replace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMOPS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(CollectorRegistry, "_factories", {})
    monkeypatch.setattr(holding, "_default", holding._Default())
    monkeypatch.setattr(default, "_default", None)
    initialize_monitoring_sync(storage="memory:")
    yield
    shutdown()


def run(name: str) -> dict[str, Any]:
    """Run an example as a program, and return what it has defined."""
    code = _IMPORT.sub("from llmops_core import", SNIPPETS[name])
    assumed = {known: getattr(llmops_core, known) for known in _ASSUMED}
    helpers = {"llm": Model(), "search_kb": _echo, "generate_response": _echo}
    defined: dict[str, Any] = {**assumed, **helpers, "__name__": "__main__"}
    if "config" not in re.findall(r"^(\w+) =", code, re.MULTILINE):
        defined["config"] = llmops_core.MonitorConfig.for_local_dev()  # of the example before it
    made = eval(compile(code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), defined)
    if inspect.iscoroutine(made):
        asyncio.run(made)
    return defined


def rows() -> list[dict[str, Any]]:
    opened = default.current_default()
    assert opened is not None
    assert opened.flush(60).complete
    found: list[dict[str, Any]] = opened.query(order=["start_time"]).to_pylist()
    return found


def call(defined: dict[str, Any], function: str, *args: object) -> dict[str, Any]:
    """Call what an example has decorated; return its only span."""
    asyncio.run(defined[function](*args))
    (row,) = rows()
    return row


TEXT: Final = {"char_count": 13.0, "word_count": 2.0, "byte_size": 13.0, "line_count": 1.0}


def measured(name: str, function: str = "my_llm_call") -> tuple[Any, ...]:
    row = call(run(name), function, "Hello")
    measures = dict(row["measurements"] or {})
    return measures, row["input_tokens"], row["output_tokens"], row["usage_source"]


# ---- what each should have done ----


def a_first_call() -> None:
    run("a first call")
    (row,) = rows()
    assert (row["name"], row["model"], row["outcome"]) == ("generate_text", "gpt-4", "ok")
    assert dict(row["measurements"])["char_count"] == len("Generated response...")
    assert list(Path("dev_monitoring_data").rglob("events_*.parquet"))


def measurement_auto() -> None:
    assert measured("measurement auto") == (TEXT, 1, 4, "counted")


def measurement_token() -> None:
    assert measured("measurement token") == ({}, 1, 4, "counted")


def measurement_capacity() -> None:
    assert measured("measurement capacity") == (TEXT, None, None, None)


def measurement_hybrid() -> None:
    assert measured("measurement hybrid") == (TEXT, 1, 4, "counted")


def measurement_as_a_dictionary() -> None:
    # It names no model: ``hybrid`` counts all the same, and says that it is an estimate.
    assert measured("measurement as a dictionary")[0] == TEXT
    assert rows()[0]["usage_source"] == "estimated"


def from_capacity_to_tokens() -> None:
    row = call(run("from capacity to tokens"), "my_call", "Hello")
    assert not row["measurements"]  # the later of the two definitions counts tokens only
    assert row["output_tokens"] is not None


def a_text_by_itself() -> None:
    result = run("a text by itself")["result"]
    assert (result.total_tokens, result.char_count) == (4, 13)
    assert result.metadata.reliability.value == "exact"


def configuration_in_code() -> None:
    defined = run("configuration in code")
    call({"f": defined["monitor_llm"](_echo)}, "f", "a")
    shutdown()
    assert list(Path("my_data").rglob("events_*.parquet"))


def calls_within_calls() -> None:
    assert run("calls within calls")["result"] == "weather"
    outer, inner = rows()
    assert (outer["name"], outer["kind"]) == ("orchestrator", "workflow")
    assert (inner["name"], inner["parent_id"]) == ("classify_intent", outer["span_id"])
    assert {row["session_id"] for row in (outer, inner)} == {"user-123"}
    assert outer["trace_id"] == inner["trace_id"]
    assert dict(outer["attributes"])["trace_name"] == "conversation-1"


def cost_of_a_call() -> None:
    defined = run("cost of a call")
    row = call(defined, "my_llm_call", "Hello")
    assert dict(row["measurements"])["char_count"] == len("response...")


def a_cost_collector() -> None:
    assert call(run("a cost collector"), "my_function")["cost_usd"] == 0.002


def a_collector_of_ones_own() -> None:
    row = call(run("a collector of one's own"), "my_function")
    assert dict(row["measurements"]) == {"my_metric": 123.0}


def the_shape_of_a_collector() -> None:
    made = run("the shape of a collector")["MyCollector"]()
    assert made.metric_type == "my_metric"
    assert set(made.collect(None, (), {}, {})) == {"custom_attributes"}


def parquet() -> None:
    config = run("Parquet")["config"]
    initialize_monitoring_sync(config)
    call({"f": llmops_core.monitor_llm(_echo)}, "f", "a")
    shutdown()
    assert list(Path("monitoring_data").rglob("events_*.parquet"))


def of_a_database(name: str, url: str, **fields: object) -> Callable[[], None]:
    def looked_at() -> None:
        storage = run(name)["config"].storage
        given = storage.connection_string.get_secret_value()
        assert (given, storage.table_name) == (url, "metric_events")
        assert {field: getattr(storage, field) for field in fields} == fields
        assert storage.to_url()

    return looked_at


def datadog_through_its_agent() -> None:
    told = run("Datadog through its agent")["config"].extensions["datadog"]
    assert (told["use_statsd"], told["statsd_port"]) == (True, 8125)


def a_storage_of_ones_own() -> None:
    backend = run("a storage of one's own")["RedisBackend"]()
    initialize_monitoring_sync(storage=backend)
    asyncio.run(llmops_core.monitor_llm(_echo)("a"))
    opened = default.current_default()
    assert opened is not None
    assert opened.flush(60).complete
    assert opened.stats()["spans"]["stored"] == 1


RUNNING: Final[dict[str, Callable[[], None]]] = {
    "a first call": a_first_call,
    "measurement auto": measurement_auto,
    "measurement token": measurement_token,
    "measurement capacity": measurement_capacity,
    "measurement hybrid": measurement_hybrid,
    "measurement as a dictionary": measurement_as_a_dictionary,
    "from capacity to tokens": from_capacity_to_tokens,
    "a text by itself": a_text_by_itself,
    "configuration in code": configuration_in_code,
    "calls within calls": calls_within_calls,
    "cost of a call": cost_of_a_call,
    "a cost collector": a_cost_collector,
    "a collector of one's own": a_collector_of_ones_own,
    "the shape of a collector": the_shape_of_a_collector,
    "Parquet": parquet,
    "PostgreSQL": of_a_database(
        "PostgreSQL", "postgresql://user:pass@host:5432/db", backend="postgres", pool_size=20
    ),
    "MySQL": of_a_database(
        "MySQL", "mysql://user:pass@host:3306/monitoring", backend="mysql", pool_size=20
    ),
    "ClickHouse": of_a_database(
        "ClickHouse",
        "clickhouse://default:@localhost:9000/monitoring",
        schema_name="monitoring",
        batch_size=100,
    ),
    "Datadog through its agent": datadog_through_its_agent,
    "a storage of one's own": a_storage_of_ones_own,
}


@pytest.mark.parametrize("name", RUNNING)
def test_a_published_example_runs_and_does_what_it_says(name: str) -> None:
    RUNNING[name]()


@pytest.mark.parametrize("name", EXCLUDED)
def test_an_excluded_example_fails_as_its_reason_says(name: str) -> None:
    _, errors, said = EXCLUDED[name]
    with pytest.raises(errors, match=said):
        run(name)


def test_every_example_is_looked_at_or_excluded_with_a_reason_that_the_page_tells() -> None:
    assert set(SNIPPETS) == set(RUNNING) | set(EXCLUDED)
    assert not set(RUNNING) & set(EXCLUDED)
    page = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
    told = page.partition("## Snippets that do not run")[2]
    assert {reason for reason, _, _ in EXCLUDED.values() if reason not in told} == set()
