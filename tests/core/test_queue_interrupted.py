"""An event may be put in the middle of a put: by a signal handler, or by what is garbage collected.

Not by chance here but at each step in turn: wherever a function begins or ends, ours or one in C, which
is where the interpreter looks for signals.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from llmops_core.holding import HoldingQueue
from llmops_core.intake.queue import END, EVENT_BYTES, MARK, POINT, START, HostEvent, IntakeQueue

MEGABYTE = 1024 * 1024
EVENTS = 20


def event(what: int, run: int, parent: int | None = None, **fields: Any) -> HostEvent:
    return (what, run, parent, run, run, {"name": str(run), **fields}, EVENT_BYTES, False)


def interrupted(call: Callable[[], object], step: int, by: Callable[[], object]) -> bool:
    """Call *call*, and *by* at one step of it; return whether there are so many."""
    left = step
    before = sys.getprofile()

    def profile(_frame: FrameType, _what: str, _arg: object) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            by()  # which is not profiled itself

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
    return left < 0


def full_of_ordinary_runs() -> IntakeQueue:
    """Return a queue with one root, runs of which some have ended, and events; no root fits more."""
    q = IntakeQueue(EVENTS, MEGABYTE, lambda: None)
    q.put(event(START, 1))
    for run in range(2, 12):
        q.put(event(START, run, run - 1))
    for run in range(12, EVENTS + 4):  # the last ones are refused
        q.put(event(POINT if run % 2 else START, run, 1))
    for run in range(2, 8):
        q.put(event(END, run, run - 1, outcome="error" if run % 2 else "ok"))
    for run in range(100, 100 + EVENTS):
        if len(q) < EVENTS * 3 // 2:
            q.put(event(START, run))
    return q


def full_of_events() -> IntakeQueue:
    """Return a queue of which nothing stays when room is made."""
    q = IntakeQueue(EVENTS, MEGABYTE, lambda: None)
    for run in range(2, EVENTS + 2):
        q.put(event(POINT, run, 1))
    q._max_events = EVENTS * 2 // 3
    return q


def nearly_full() -> IntakeQueue:
    """Return a queue where one more event fits, and no refused run is known."""
    q = IntakeQueue(EVENTS, EVENTS * EVENT_BYTES * 4 // 3, lambda: None)
    q._unweighed = q._weighed_from = EVENTS
    for run in range(1, EVENTS):
        q.put(event(START, run, None if run == 1 else 1))
    return q


STATES = [full_of_ordinary_runs, full_of_events, nearly_full]
PUTS = {
    "a root": [event(START, 1000)],
    "a run": [event(START, 1001, 9)],
    "an end": [event(END, 9, 8, outcome="ok")],
    "an error": [event(END, 22, 1, outcome="error")],
    "a refused end": [event(END, 23, 1, outcome="ok")],
    "a mark": [event(MARK, 22)],
    "a point": [event(POINT, 1002, 22)],
    "roots": [event(START, run) for run in range(2000, 2000 + EVENTS)],
}


def put_all(q: IntakeQueue, events: list[HostEvent]) -> None:
    for each in events:
        q.put(each)


def check(q: IntakeQueue, taken: int = 0) -> None:
    assert q.received == taken + q.waiting + sum(q.dropped.values())
    assert q.waiting == len(q), "nothing is left undecided"
    assert q.bytes == sum(e[6] for e in q._items)
    assert q._refused_bytes == sum(e[6] for e in q._refused.values())
    before = [e[1] for e in q._items if e[1] < 1000 and e[0] == START]
    assert before == sorted(before), "what was there is still in order"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("inner", PUTS)
@pytest.mark.parametrize("outer", ["a root", "a run", "an end", "an error", "a point"])
def test_an_event_in_the_middle_of_a_put_is_counted_once(
    state: Callable[[], IntakeQueue], inner: str, outer: str
) -> None:
    def play(step: int) -> bool:
        q = state()
        reached = interrupted(
            lambda: put_all(q, PUTS[outer]), step, lambda: put_all(q, PUTS[inner])
        )
        check(q)
        return reached

    step = 0
    while play(step):
        step += 1
    assert step > 3, "there was something to interrupt"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("inner", PUTS)
@pytest.mark.parametrize("limit", [3, 1000])
def test_an_event_in_the_middle_of_a_take_is_counted_once(
    state: Callable[[], IntakeQueue], inner: str, limit: int
) -> None:
    def play(step: int) -> bool:
        q, taken = state(), []
        reached = interrupted(
            lambda: taken.extend(q.take(limit)), step, lambda: put_all(q, PUTS[inner])
        )
        check(q, len(taken))
        return reached

    step = 0
    while play(step):
        step += 1
    assert step > 3


def test_an_event_comes_behind_those_that_waited_when_it_was_put() -> None:
    """Not among them: the pass that gives up ordinary runs turns the queue once around."""

    def play(step: int) -> bool:
        q = full_of_ordinary_runs()
        reached = interrupted(
            lambda: q.put(event(START, 1000)), step, lambda: q.put(event(END, 1, None))
        )
        assert {e[1] for e in list(q._items)[-2:]} == {1000, 1} or not reached
        return reached

    step = 0
    while play(step):
        step += 1
    assert step > 3


@pytest.mark.parametrize("state", STATES)
def test_what_waits_can_be_counted_while_events_come(state: Callable[[], IntakeQueue]) -> None:
    def play(step: int) -> bool:
        q = state()
        reached = interrupted(lambda: q.waiting, step, lambda: put_all(q, PUTS["roots"]))
        check(q)
        return reached

    step = 0
    while play(step):
        step += 1
    assert step > 0


def test_an_event_that_comes_while_one_is_dropped_or_counted_is_counted_too() -> None:
    def play(step: int) -> bool:
        q = full_of_ordinary_runs()

        def drop_all() -> None:
            q.count_dropped("off", 3)
            q.closed = True
            q.put(event(POINT, 5000))
            q.drop_rest("closed")

        reached = interrupted(drop_all, step, lambda: q.put(event(POINT, 5001)))
        q.drop_rest("closed")
        check(q)
        return reached

    step = 0
    while play(step):
        step += 1
    assert step > 3


def test_an_event_that_interrupts_a_put_does_not_wait_for_room() -> None:
    """The lock is its own thread's: while it waited, nothing could be taken."""
    q = IntakeQueue(EVENTS, MEGABYTE, lambda: None, block_seconds=0.01)
    for run in range(1, EVENTS + 1):
        q.put(event(START, run))
    under_pressure, inner = q._under_pressure, [event(START, 1001, 1)]

    def watched(each: HostEvent) -> HostEvent | None:
        while inner:
            q.put(inner.pop())
        return under_pressure(each)

    q._under_pressure = watched  # type: ignore[method-assign]
    q.put(event(START, 1000, 1))
    assert q.blocked()["calls"] == 1, "the outer one"
    assert q.dropped == {"overload": 2}
    check(q)


def test_no_event_is_left_behind_when_a_monitor_takes_over() -> None:
    def play(step: int) -> bool:
        held, q = HoldingQueue(), IntakeQueue(EVENTS, MEGABYTE, lambda: None)
        held._begun = True  # no timer
        put_all(held, [event(START, run) for run in range(1, 4)])
        held.count_dropped("overload", 2)
        reached = interrupted(lambda: held.hand_over(q), step, lambda: held.put(event(START, 1000)))
        held.put(event(POINT, 1001))
        assert q.received == (7 if reached else 6)
        assert q.dropped == {"overload": 2}
        assert not len(held)
        check(q)
        return reached

    step = 0
    while play(step):
        step += 1
    assert step > 3
