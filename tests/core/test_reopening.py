"""A forked child opens what it needs once, whoever asks first, and nobody waits for anybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from llmops_core import forking


def _on_this_thread(call: Callable[[], None]) -> None:
    call()


def _on_another_thread(call: Callable[[], None]) -> None:
    other = threading.Thread(target=call)
    other.start()
    other.join(30)
    assert not other.is_alive(), "it waits"


@pytest.mark.parametrize("elsewhere", [_on_this_thread, _on_another_thread])
def test_two_first_events_at_once_open_one_pipeline(
    elsewhere: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    go, again = threading.Event(), [True]

    def open_it() -> bool:
        opened.append(1)
        return go.wait(30)

    reopening = forking.Reopening(open_it, lambda error: None)

    def monotonic() -> float:
        # The clock is read when the checks are done and nothing has been begun: there the second
        # comes, of another thread or of a signal handler.
        if again:
            again.clear()
            elsewhere(reopening.start)
        return time.monotonic()

    monkeypatch.setattr(forking, "time", SimpleNamespace(monotonic=monotonic))
    reopening.start()
    go.set()
    assert reopening.wait(30)
    assert opened == [1]
