"""A forked child opens what it needs once, whoever asks first, and nobody waits for anybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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


def _begin_with(start: Callable[[threading.Thread], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let *start* start the threads that open something."""

    class Begun(threading.Thread):
        def start(self) -> None:
            start(super())  # type: ignore[arg-type]

    given: dict[str, Any] = {**vars(threading), "Thread": Begun}
    monkeypatch.setattr(forking, "threading", SimpleNamespace(**given))


def test_whoever_waits_before_the_thread_has_started_is_answered_as_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, said = threading.Event(), list[bool]()
    waiting = threading.Thread(target=lambda: said.append(reopening.wait(30)), daemon=True)

    def start(thread: threading.Thread) -> None:
        _on_another_thread(lambda: said.append(reopening.wait(0)))
        waiting.start()
        thread.start()

    _begin_with(start, monkeypatch)
    reopening = forking.Reopening(lambda: go.wait(30), lambda error: None)
    reopening.start()
    assert said == [False]
    go.set()
    waiting.join(30)
    assert said == [False, True]


@pytest.mark.parametrize("started", [False, True])
def test_an_interrupt_while_the_thread_starts_leaves_the_next_one_to_open_once(
    started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, interrupts = list[int](), [KeyboardInterrupt()]

    def start(thread: threading.Thread) -> None:
        if started or not interrupts:
            thread.start()
        if interrupts:
            raise interrupts.pop()

    def open_it() -> bool:
        opened.append(1)
        return True

    _begin_with(start, monkeypatch)
    reopening = forking.Reopening(open_it, lambda error: None)
    with pytest.raises(KeyboardInterrupt):
        reopening.start()
    assert reopening.wait(30)
    assert opened == [1]


def test_an_attempt_that_failed_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Exception] = []

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    _begin_with(start, monkeypatch)
    reopening = forking.Reopening(lambda: True, told.append)
    monkeypatch.setattr(reopening._changed, "wait", lambda *_: pytest.fail("it waits"))
    assert not reopening.wait(30)
    assert not reopening.wait(30)
    assert [str(error) for error in told] == ["can't start new thread"]
