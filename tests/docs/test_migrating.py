"""The page for those who come from the published product: its names exist, its exclusions are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import llmops_core
from llmops_core import ConfigError, MonitorConfig, PrometheusConfig, StorageConfig

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
NAMES = (
    "monitor_llm", "initialize_monitoring", "shutdown", "monitoring_session", "monitoring_trace",
    "measure_text", "MonitorConfig", "StorageConfig", "PrometheusConfig", "DatadogConfig",
    "WebSocketConfig", "MetricCollector", "CollectorRegistry", "StorageBackend",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_published_name_is_told_and_can_be_imported(name: str) -> None:
    assert f"`{name}" in PAGE
    assert name in llmops_core.__all__
    assert getattr(llmops_core, name) is not None


def test_each_parameter_of_the_published_decorator_is_there() -> None:
    import inspect

    published = [
        "operation_name", "operation_type", "measure_text", "measure_images", "collectors",
        "measurement", "custom_attributes", "session_id_from", "trace_id_from", "enabled",
    ]  # fmt: skip
    assert list(inspect.signature(llmops_core.monitor_llm).parameters)[:10] == published


def test_the_snippets_that_the_page_excludes_are_refused_with_a_reason() -> None:
    excluded = PAGE.partition("## Snippets that do not run")[2]
    assert len(re.findall(r"^\| `", excluded, re.MULTILINE)) == 5
    with pytest.raises(ConfigError, match="no such part"):
        MonitorConfig(
            extensions={"prometheus": PrometheusConfig(enabled=True).model_dump()}
        ).monitor_arguments()
    with pytest.raises(ConfigError, match="partition_by"):
        StorageConfig(partition_by="session_id").to_url()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
def test_a_production_configuration_opens_the_database_of_its_url(scheme: str) -> None:
    pytest.importorskip("asyncpg" if scheme == "postgresql" else "asyncmy")
    config = MonitorConfig.for_production(f"{scheme}://user:hunter2@host.invalid/monitoring")
    with pytest.raises(llmops_core.StorageError, match="host that is not known") as caught:
        config.open()
    assert "hunter2" not in str(caught.value)
