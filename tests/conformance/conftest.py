"""Every built-in storage, new and empty, on a real engine: what a test asks of one it asks of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from llmops_core.plugins import PluginHost
from llmops_core.storage.memory import MemoryStorage
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.testing.store import Store


def _memory(request: pytest.FixtureRequest) -> object:
    return MemoryStorage()


def _parquet(request: pytest.FixtureRequest) -> object:
    folder: Path = request.getfixturevalue("tmp_path")
    return ParquetStorage(folder / "data")


def _at(fixture: str) -> Callable[[pytest.FixtureRequest], object]:
    """Make the storage of a URL that a fixture gives."""
    return lambda request: PluginHost().storage(request.getfixturevalue(fixture))


def _s3(request: pytest.FixtureRequest) -> object:
    storage = PluginHost().storage(request.getfixturevalue("s3_url"))
    storage.grace_seconds = 0.0  # nobody else reads it
    return storage


STORAGES: Final[dict[str, Callable[[pytest.FixtureRequest], object]]] = {
    "memory": _memory,
    "parquet": _parquet,
    "postgres": _at("postgres_url"),
    "mysql": _at("mysql_url"),
    "clickhouse": _at("clickhouse_url"),
    "s3": _s3,
}


@pytest.fixture(params=list(STORAGES))
def any_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Each built-in storage in turn, open."""
    store = Store(STORAGES[request.param](request))  # type: ignore[arg-type]
    yield store
    store.close()
