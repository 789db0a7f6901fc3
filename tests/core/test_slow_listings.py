"""A folder that takes long to list: files may come and go meanwhile, and nothing is missed or waits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmops_core.storage.parquet import ParquetStorage
from llmops_core.storage.parquet import files as files_module
from llmops_core.storage.parquet.files import compacted_name, list_day
from llmops_core.storage.parquet.lock import CompactorLock
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.store import Store


@pytest.fixture
def day(tmp_path: Path) -> Path:
    store = Store(ParquetStorage(tmp_path))
    for n in range(3):
        store.run(store.storage.write(make_batch([make_span(n)], writer_id=f"w{n}")))
    store.close()
    return tmp_path / "2026-01-01"


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Every listing is slow; what is in here happens during the second one, before it sees a file."""
    entries = files_module._entries
    during: list[Callable[[], object]] = []
    monkeypatch.setattr(files_module, "_SLOW_SCAN_SECONDS", 0.0)
    count = 0

    def slow(folder: Path) -> Iterator[os.DirEntry[str]]:
        nonlocal count
        count += 1
        assert count < 20, "it lists without an end"
        listed = list(entries(folder))
        if count == 2:
            for act in during:
                act()
            listed = [e for e in listed if Path(e.path).exists()]
        return iter(listed)

    monkeypatch.setattr(files_module, "_entries", slow)
    return during


def names(day: Path) -> set[str]:
    return {Path(file.path).name for file in list_day(day)}


def test_a_folder_that_takes_long_to_list_is_listed_twice_at_most(
    day: Path, scans: list[Callable[[], object]]
) -> None:
    assert len(list_day(day)) == 3


def test_files_that_a_compaction_replaces_during_a_slow_listing_are_not_missed(
    day: Path, scans: list[Callable[[], object]]
) -> None:
    before = {path.name for path in day.glob("*.parquet")}
    lock = CompactorLock(day.parent)

    def compact() -> None:
        """Put one in the place of all, behind where the listing is."""
        assert lock.take()
        (day / compacted_name()).touch()
        for name in before:
            (day / name).unlink()
        lock.release()

    scans.append(compact)
    assert names(day) == before, "neither they nor what replaced them"


def test_what_is_deleted_by_hand_during_a_slow_listing_is_gone(
    day: Path, scans: list[Callable[[], object]]
) -> None:
    first = min(day.glob("*.parquet"))
    scans.append(first.unlink)
    assert len(names(day)) == 2


def test_a_query_of_a_folder_that_is_slow_and_written_to_ends(
    day: Path, scans: list[Callable[[], object]]
) -> None:
    store = Store(ParquetStorage(day.parent))
    scans.append((day / "events_w9_1-1.parquet.part").touch)
    assert len(store.spans()) == 3
    store.write(make_span(9))
    store.close()
