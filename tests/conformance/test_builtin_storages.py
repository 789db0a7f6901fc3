"""The built-in storages pass the suite that third parties run."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops_core import Storage
from llmops_core.storage.memory import MemoryStorage
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.testing import StorageConformance


class TestMemoryStorage(StorageConformance):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


class TestParquetStorage(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return ParquetStorage(tmp_path / "it's a=b [data]*")
