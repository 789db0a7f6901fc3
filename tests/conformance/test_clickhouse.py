"""ClickHouse passes the suite that third parties run, on its real engine."""

from __future__ import annotations

import pytest

from llmops_core import Storage
from llmops_core.storage.clickhouse import ClickHouseStorage
from llmops_core.testing import StorageConformance


class TestClickHouseStorage(StorageConformance):
    @pytest.fixture
    def storage(self, clickhouse_url: str) -> Storage:
        return ClickHouseStorage.of_url(clickhouse_url)
