"""The memory storage, beyond what the suite for every storage shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from llmops_core import ConfigError
from llmops_core.plugins import PluginHost
from llmops_core.storage.memory import MemoryStorage
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(MemoryStorage(max_spans=3))
    yield store
    store.close()


def held(store: Store) -> MemoryStorage:
    assert isinstance(store.storage, MemoryStorage)
    return store.storage


def test_spans_are_listed_in_the_order_in_which_they_were_written(store: Store) -> None:
    store.write(make_span(2), make_span(1))
    assert [s.name for s in held(store).spans] == ["span-2", "span-1"]


def test_the_oldest_are_evicted_and_counted(store: Store) -> None:
    for number in range(1, 6):
        store.write(make_span(number))
        assert store.names(order=["start_time"]) == [s.name for s in held(store).spans]
    assert [s.name for s in held(store).spans] == ["span-3", "span-4", "span-5"]
    assert held(store).evicted == 2


def test_a_batch_larger_than_the_store_keeps_its_end(store: Store) -> None:
    store.write(make_span(1))
    assert store.names() == ["span-1"]
    store.write(*(make_span(at) for at in range(2, 9)))
    assert store.names(order=["start_time"]) == ["span-6", "span-7", "span-8"]
    assert held(store).evicted == 5


def test_a_span_with_a_known_id_stays_as_it_is(store: Store) -> None:
    store.write(make_span(1, name="first"))
    store.write(make_span(1, name="second"))
    assert [s.name for s in held(store).spans] == ["first"]


def test_each_url_makes_a_new_store() -> None:
    host = PluginHost()
    assert host.storage("memory:") is not host.storage("memory:")
    with pytest.raises(ConfigError, match="Expected none"):
        host.storage("memory:somewhere")


def test_a_store_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_spans=0"):
        MemoryStorage(max_spans=0)


def test_threads_may_write_and_query_at_once() -> None:
    storage = MemoryStorage()
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            store = Store(storage)
            for at in range(20):
                store.run(storage.write(make_batch([make_span(thread * 100 + at)])))
                assert f"span-{thread * 100 + at}" in store.names()
            store._runner.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(storage.spans) == 80
