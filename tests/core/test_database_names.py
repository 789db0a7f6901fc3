"""Names of tables, schemas and the like become part of a statement: none but plain ones are taken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from urllib.parse import quote

import pytest

from llmops_core import ConfigError
from llmops_core.configuration import StorageConfig
from llmops_core.databases.url import DatabaseUrl
from llmops_core.plugins import PluginHost
from payloads import PAYLOADS

SCHEMES = {
    "postgresql": "asyncpg",
    "mysql": "asyncmy",
    "mariadb": "asyncmy",
    "clickhouse": "clickhouse_connect",
}


def taken(make: Callable[[str], object]) -> list[str]:
    """Return the payloads that are not refused at set-up."""
    found = []
    for payload in PAYLOADS:
        with contextlib.suppress(ConfigError):
            make(payload)
            found.append(payload)
    return found


@pytest.mark.parametrize("option", ["table", "schema", "table_name", "schema_name"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_payload_in_a_url_is_the_name_of_a_table_or_a_schema(scheme: str, option: str) -> None:
    pytest.importorskip(SCHEMES[scheme])
    host = PluginHost()
    assert taken(lambda p: host.storage(f"{scheme}://localhost/d?{option}={quote(p)}")) == []
    assert host.storage(f"{scheme}://localhost/{'' if 'schema' in option else 'd'}?{option}=a_1")


@pytest.mark.parametrize("option", ["cluster", "ttl_days"])
def test_no_payload_is_the_name_of_a_cluster_or_a_lifetime(option: str) -> None:
    pytest.importorskip("clickhouse_connect")
    host = PluginHost()
    assert taken(lambda p: host.storage(f"clickhouse://localhost/d?{option}={quote(p)}")) == []
    assert taken(lambda p: host.storage(f"clickhouse://localhost/{quote(p, safe='')}")) == []


@pytest.mark.parametrize("field", ["table_name", "schema_name", "partition_by"])
def test_no_payload_in_a_configuration_is_a_name(field: str) -> None:
    def make(payload: str) -> object:
        config = StorageConfig(
            backend="postgresql", connection_string="postgresql://h/d", **{field: payload}
        )
        return DatabaseUrl(config.to_url(), port=5432)

    assert taken(make) == []
