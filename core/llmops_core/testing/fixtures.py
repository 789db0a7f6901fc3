"""Pytest fixtures: a monitor in memory with a clock that is moved by hand.

In a ``conftest.py`` or a test module::

    from llmops_core.testing.fixtures import spans

    def test_my_agent(spans):
        my_agent(callbacks=[LLMOpsCallbackHandler(spans.monitor)])
        assert spans.tree() == "llm scripted-1 ok 12+3 tokens\\n"
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

import pytest

from llmops_core import Monitor
from llmops_core.batch import spans_from_arrow
from llmops_core.forking import renew_after_fork
from llmops_core.render.span_tree import span_tree
from llmops_core.span import Span

__all__ = ["CapturedSpans", "FakeClock", "spans"]

_NS_PER_MS: Final = 1_000_000
#: 2026-01-01T00:00:00Z
_EPOCH_NS: Final = 1_767_225_600 * 1_000_000_000
#: Longer than the tracer waits for an end that is late, so that nothing stays open.
_SETTLE_MS: Final = 6_000
_FLUSH_SECONDS: Final = 10.0


class FakeClock:
    """A clock that each reading moves by one microsecond, and :meth:`advance` by as much as asked.

    Reading moves it so that two events in a row never have the same time, whatever the machine.
    """

    def __init__(self) -> None:
        self.after_fork()
        self._now_ns = 0
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Take a new lock, in a forked child: a thread of the parent's may have held the old one."""
        self._lock = threading.Lock()

    def monotonic_ns(self) -> int:
        """Return a reading that never goes back."""
        with self._lock:
            self._now_ns += 1_000
            return self._now_ns

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970, UTC."""
        return _EPOCH_NS + self._now_ns

    def advance(self, ms: float) -> None:
        """Move the clock."""
        with self._lock:
            self._now_ns += int(ms * _NS_PER_MS)


class CapturedSpans:
    """What a monitor in memory has stored. Call it for the spans; ``tree()`` draws them."""

    def __init__(self, monitor: Monitor, clock: FakeClock) -> None:
        self.monitor = monitor
        self.clock = clock

    def __call__(self) -> list[Span]:
        """Flush, let what stayed open be closed, and return every span."""
        self.monitor.flush(_FLUSH_SECONDS)
        self.clock.advance(_SETTLE_MS)
        self.monitor.flush(_FLUSH_SECONDS)
        return spans_from_arrow(self.monitor.query())

    def tree(self, *, content: bool = False, times: bool = False) -> str:
        """Return the spans as :func:`~llmops_core.testing.span_tree` draws them."""
        return span_tree(self(), content=content, times=times)


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    """A monitor with storage in memory and a clock moved by hand, closed after the test."""
    clock = FakeClock()
    monitor = Monitor(storage="memory:", clock=clock, durability="memory")
    try:
        yield CapturedSpans(monitor, clock)
    finally:
        monitor.close()
