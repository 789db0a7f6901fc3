"""PostgreSQL passes the suite that third parties run, on a real server."""

from __future__ import annotations

import pytest

from llmops_core import Storage
from llmops_core.storage.postgres import PostgresStorage
from llmops_core.testing import StorageConformance


class TestPostgresStorage(StorageConformance):
    @pytest.fixture
    def storage(self, postgres_url: str) -> Storage:
        return PostgresStorage(postgres_url)
