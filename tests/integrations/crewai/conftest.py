"""Keeps CrewAI offline and in a folder of its own, and makes the kit importable."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = str(Path(__file__).parent)
if _HERE not in sys.path:
    sys.path.append(_HERE)

# Before CrewAI is imported: it looks its servers up, writes keys into the home folder, and asks
# questions at its first run.
if importlib.util.find_spec("crewai") is not None:
    _HOME = tempfile.mkdtemp(prefix="llmops-crewai-")
    atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
    os.environ.update(
        HOME=_HOME,
        CREWAI_STORAGE_DIR=_HOME,
        CREWAI_DISABLE_TELEMETRY="true",
        CREWAI_DISABLE_VERSION_CHECK="true",
        CREWAI_TESTING="true",
    )


class ShiftedClock:
    """The machine's clock, with a monotonic part that can be moved on.

    CrewAI's events bring their own wall clock times, so the wall clock has to be the real one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shift_ns = 0

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self._shift_ns

    def wall_ns(self) -> int:
        return time.time_ns()

    def advance(self, ms: float) -> None:
        with self._lock:
            self._shift_ns += int(ms * 1_000_000)


@pytest.fixture
def spans() -> Iterator[object]:
    """A monitor in memory; ``spans()`` are the spans, ``spans.tree()`` draws them."""
    from crewai.events import event_context

    from llmops_core import Monitor
    from llmops_core.testing.fixtures import CapturedSpans

    event_context._event_id_stack.set(())  # what an earlier test never ended
    clock = ShiftedClock()
    monitor = Monitor(storage="memory:", clock=clock, durability="memory")
    try:
        yield CapturedSpans(monitor, clock)  # type: ignore[arg-type]
    finally:
        monitor.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """CrewAI uses its own deprecated fields, and leaves connections to its SQLite files open."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            for warning in ("DeprecationWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{warning}"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
