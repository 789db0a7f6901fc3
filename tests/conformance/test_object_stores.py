"""Parquet in object stores passes the suite that third parties run: on S3, and through fsspec."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops_core import Storage
from llmops_core.plugins import PluginHost
from llmops_core.storage.parquet import mirror
from llmops_core.storage.parquet.remote import RemoteParquetStorage
from llmops_core.testing import StorageConformance


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(RemoteParquetStorage, "grace_seconds", 0.0)


class TestS3(StorageConformance):
    @pytest.fixture
    def storage(self, s3_url: str) -> Storage:
        return PluginHost(()).storage(s3_url)  # type: ignore[return-value]


class TestFsspec(StorageConformance):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return PluginHost(()).storage(f"parquet:memory://bucket{tmp_path.as_posix()}")  # type: ignore[return-value]
