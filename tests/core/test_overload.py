"""More than can be taken: what waits, what is dropped first, and that every number adds up."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

import pytest
import trio

from llmops_core import ConfigError, Monitor
from llmops_core.intake import room
from llmops_core.intake.queue import END, EVENT_BYTES, POINT, START, HostEvent, IntakeQueue

MEGABYTE = 1024 * 1024


def event(what: int, run: int, parent: int | None = None, **fields: Any) -> HostEvent:
    return (what, run, parent, run, run, {"name": str(run), **fields}, EVENT_BYTES, False)


def queue(events: int = 4, seconds: float = 0.0) -> IntakeQueue:
    return IntakeQueue(events, MEGABYTE, lambda: None, block_seconds=seconds)


def fill(q: IntakeQueue, count: int = 4) -> None:
    for run in range(1, count + 1):
        q.put(event(START, run, None if run == 1 else 1))


def test_a_caller_waits_until_there_is_room() -> None:
    q = queue(seconds=30)
    fill(q)
    caller = threading.Thread(target=q.put, args=(event(START, 9, 1),))
    caller.start()
    time.sleep(0.05)
    assert caller.is_alive(), "it really waits"
    assert len(q) == 4
    q.take(1)
    caller.join(20)
    assert not caller.is_alive()
    assert q.dropped == {}
    assert q.blocked()["calls"] == 1


def test_a_caller_waits_no_longer_than_its_deadline_and_nobody_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "STANDSTILL_SECONDS", 0.0)
    q = queue(seconds=0.2)
    fill(q)
    began = time.monotonic()
    q.put(event(START, 9, 1))
    assert time.monotonic() - began >= 0.19, "it really waits"
    for run in range(10, 1000):
        q.put(event(START, run, 1))
    assert q.blocked()["calls"] == 1, "an intake that stands still costs one deadline"
    assert q.dropped == {"overload": 991}
    q.take(1)
    fill(q, 1)
    q.put(event(START, 2000, 1))
    assert q.blocked()["calls"] == 2, "something was taken: there is hope again"


async def test_the_thread_of_an_event_loop_never_waits() -> None:
    q = queue(seconds=30)
    fill(q)
    q.put(event(START, 9, 1))
    assert q.blocked()["calls"] == 0
    assert q.dropped == {"overload": 1}
    waiting = asyncio.create_task(asyncio.to_thread(q.put, event(START, 10, 1)))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "a thread of the loop's pool may"
    q.take(4)
    await asyncio.wait_for(waiting, 20)


def test_the_thread_of_a_trio_loop_never_waits_and_one_of_its_pool_may() -> None:
    q = queue(seconds=30)
    fill(q)

    async def main() -> None:
        q.put(event(START, 9, 1))
        assert q.blocked()["calls"] == 0
        assert q.dropped == {"overload": 1}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, q.put, event(START, 10, 1))
            await trio.sleep(0.05)
            q.take(4)

    trio.run(main)
    assert q.blocked()["calls"] == 1


def test_a_trio_that_cannot_say_whether_it_runs_is_asked_for_its_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(trio.lowlevel, "in_trio_run")

    async def ask() -> bool:
        return room._in_event_loop()

    assert trio.run(ask)
    assert not room._in_event_loop()
    monkeypatch.delattr(trio, "lowlevel")  # one that is being imported
    assert not room._in_event_loop()


def test_a_queue_that_closes_lets_those_who_wait_go() -> None:
    q = queue(seconds=30)
    fill(q)
    caller = threading.Thread(target=q.put, args=(event(START, 9, 1),))
    caller.start()
    time.sleep(0.02)
    q.closed = True
    q.take(1)
    caller.join(20)
    assert not caller.is_alive()
    assert q.dropped == {"closed": 1}


def test_no_root_is_dropped_while_an_ordinary_run_waits() -> None:
    q = queue(events=100)
    q.put(event(START, 1))
    for run in range(2, 101):
        q.put(event(START, run, 1))
    for run in range(2, 50):
        q.put(event(END, run, 1, outcome="error" if run == 7 else "ok"))
    for run in range(1000, 1140):
        q.put(event(START, run))
    kept = q.take(1000)
    roots = {e[1] for e in kept if e[0] == START and e[2] is None}
    assert roots == {1, *range(1000, 1140)}
    assert [e[1] for e in kept if e[0] == END] == [7], "the error stays, with what its start said"
    assert not [e for e in kept if e[0] == START and e[2] is not None]
    assert q.received == len(kept) + sum(q.dropped.values())
    q.put(event(END, 60, 1, outcome="ok"))
    assert q.take(1) == [], "the end of a run that was given up is not kept alone"


def test_no_root_is_dropped_while_a_run_waits_that_came_after_others_were_given_up() -> None:
    q = queue(events=100)
    fill(q, 100)
    for run in range(1000, 1051):
        q.put(event(START, run))
    assert len(q) == 52, "the ordinary ones were given up"
    for run in range(2000, 2040):
        q.put(event(START, run, 1))
    for run in range(3000, 3098):
        q.put(event(START, run))
    kept = q.take(1000)
    assert [e[1] for e in kept] == [1, *range(1000, 1051), *range(3000, 3098)]
    assert q.received == len(kept) + sum(q.dropped.values())


def test_no_root_is_dropped_while_an_event_waits() -> None:
    q = queue(events=100)
    q.put(event(START, 1))
    for run in range(2, 101):
        q.put(event(POINT, run, 1))
    for run in range(1000, 1149):
        q.put(event(START, run))
    kept = q.take(1000)
    assert [e[1] for e in kept] == [1, *range(1000, 1149)]
    assert q.dropped == {"overload": 99}


def test_no_error_of_a_refused_run_is_dropped_while_an_ordinary_run_waits() -> None:
    q = IntakeQueue(1000, 100 * EVENT_BYTES, lambda: None)
    fill(q, 101)
    for run in range(200, 220):
        q.put(event(START, run, 101))
    for run in range(300, 500):
        q.put(event(START, run, 101))
        q.put(event(END, run, 101, outcome="error"))
        assert not [e for e in q._items if e[2] in q._refused], "its parent may be given up for it"
    kept = q.take(1000)
    errors = kept[1:]
    assert kept[0][:2] == (START, 1)
    assert [e[1] for e in errors] == list(range(300, 300 + len(errors)))
    assert len(errors) == 75, "with the refused runs that are remembered, half as many bytes again"
    assert {e[2] for e in errors} == {1}
    assert q.received == len(kept) + sum(q.dropped.values())


def test_when_only_roots_are_left_they_are_dropped_and_counted() -> None:
    q = queue(events=100)
    for run in range(500):
        q.put(event(START, run))
    assert len(q) == 150
    assert q.dropped == {"overload": 350}


@pytest.mark.parametrize("seed", range(20))
def test_under_any_load_ends_match_starts_and_errors_and_roots_outlive_the_others(
    seed: int,
) -> None:
    rng = random.Random(seed)
    q = queue(events=200)
    kept: list[HostEvent] = []
    opened: list[tuple[int, int | None]] = []
    failed: set[int] = set()
    for run in range(1, 8000):
        parent = rng.choice(opened)[0] if opened and rng.random() < 0.7 else None
        q.put(event(START, run, parent))
        opened.append((run, parent))
        while len(opened) > 60:
            ended, above = opened.pop(rng.randrange(len(opened)))
            if rng.random() < 0.05:
                failed.add(ended)
            q.put(event(END, ended, above, outcome="error" if ended in failed else "ok"))
        if rng.random() < 0.5:
            kept += q.take(rng.randrange(2, 6))
            assert q.bytes == sum(e[6] for e in q._items)
    kept += q.take(10**6)
    assert q.received == len(kept) + sum(q.dropped.values())
    assert q.dropped["overload"] > 1000, "it was overloaded"
    starts = {e[1] for e in kept if e[0] == START}
    ends = {e[1] for e in kept if e[0] == END}
    alive = {run for run, _ in opened}
    assert starts - ends <= alive
    restored = {e[1] for e in kept if e[0] == END and "_start" in e[5]}
    assert ends - starts == restored <= failed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"overload": "wait"},
            r"overload='wait'. Expected one of drop, block. Write overload='drop'",
        ),
        ({"overload": None}, "overload=None"),
        ({"block_seconds": 0}, "block_seconds=0. Expected a number from 0.001 to 60"),
        ({"block_seconds": "1"}, "block_seconds='1'"),
        ({"overlaod": "drop"}, "did you mean 'overload'"),
    ],
)
def test_a_bad_policy_is_refused_at_set_up(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="(?i)" + said):
        Monitor("memory:", **settings)


def test_a_monitor_that_blocks_loses_nothing_of_a_caller_that_can_wait() -> None:
    with Monitor(
        "memory:", overload="block", block_seconds=30, queue_events=50, batch_size=1000
    ) as monitor:
        for run in range(1, 3001):
            monitor.recorder.start(run + (1 << 103), None, {"kind": "tool", "name": "t"})
            monitor.recorder.end(run + (1 << 103), None, {"outcome": "ok"})
        assert monitor.flush(60).complete
        stats = monitor.stats()
    assert stats["events"]["dropped"] == {}
    assert stats["spans"]["stored"] == 3000
    assert stats["events"]["blocked"]["calls"] > 0
