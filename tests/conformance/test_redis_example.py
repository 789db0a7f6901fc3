"""The example of a storage of one's own, in Redis, passes the suite that third parties run."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llmops_core import ConfigError, RetryableError, Storage, StorageError, open_storage
from llmops_core.testing import StorageConformance

EXAMPLE = Path(__file__).parents[2] / "examples" / "redis_storage.py"
URL = os.environ.get("LLMOPS_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("redis_storage", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["redis_storage"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def example() -> ModuleType:
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(URL, socket_connect_timeout=5) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            pytest.skip(f"no Redis server at {URL.rpartition('@')[2]}: {error}")
    return loaded()


@pytest.fixture
def redis_url(example: ModuleType) -> Iterator[str]:
    import redis

    prefix = f"llmops-test-{secrets.token_hex(6)}"
    yield f"{URL}?prefix={prefix}"
    with redis.Redis.from_url(URL) as client:
        client.delete(f"{prefix}:spans", f"{prefix}:starts")


class TestRedisStorage(StorageConformance):
    @pytest.fixture
    def storage(self, example: ModuleType, redis_url: str) -> Storage:
        made: Storage = example.RedisStorage(redis_url)
        return made


def test_a_reader_makes_nothing(example: ModuleType, redis_url: str) -> None:
    with pytest.raises(StorageError, match="Nothing is stored"):
        open_storage(redis_url, plugins=[example])


def test_a_server_that_is_away_is_told_without_the_password(example: ModuleType) -> None:
    storage: Any = example.RedisStorage("redis://ann:hunter2@127.0.0.1:1")
    with pytest.raises(RetryableError) as caught:
        asyncio.run(storage.open())
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(ConfigError):
        example.RedisStorage("redis://127.0.0.1?nothing=1")


def said(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_stores_a_call_and_reads_it_back(example: ModuleType, tmp_path: Path) -> None:
    assert said(str(EXAMPLE), cwd=tmp_path) == "in Redis: llm greet Hello, Ann!\n"


def test_the_example_says_what_it_needs_where_it_is_not_there(tmp_path: Path) -> None:
    run = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
    hidden = f"import sys; sys.modules['redis'] = None; {run}"
    assert "pip install redis" in said("-c", hidden, str(EXAMPLE), cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text(EXAMPLE.read_text().replace("127.0.0.1:6379/0", "127.0.0.1:1/0"))
    pytest.importorskip("redis")
    assert "Redis" in said(str(elsewhere), cwd=tmp_path)
