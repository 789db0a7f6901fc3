"""The storage in MySQL or MariaDB passes the suite that third parties run."""

from __future__ import annotations

import pytest

from llmops_core import Storage
from llmops_core.testing import StorageConformance

pytest.importorskip("asyncmy")


class TestMySQLStorage(StorageConformance):
    @pytest.fixture
    def storage(self, mysql_empty: str) -> Storage:
        from llmops_core.storage.mysql import MySQLStorage

        return MySQLStorage(mysql_empty)
