"""The queue takes what fits, and drops in an order that keeps the picture whole."""

from __future__ import annotations

import threading
import tracemalloc
from typing import Any

import pytest

from llmops_core.clock import SystemClock
from llmops_core.failures import Failures
from llmops_core.freeze.freezer import Freezer
from llmops_core.intake import queue as queues
from llmops_core.intake.queue import END, EVENT_BYTES, POINT, START, HostEvent, IntakeQueue
from llmops_core.intake.recorder import Recorder

MEGABYTE = 1024 * 1024
freeze = Freezer().freeze


def event(what: int, run: int, parent: int | None = None, **fields: Any) -> HostEvent:
    weight = EVENT_BYTES + sum(getattr(v, "weight", 0) for v in fields.values())
    return (what, run, parent, run, run, {"name": str(run), **fields}, weight, False)


def queue(events: int = 10, size: int = MEGABYTE) -> IntakeQueue:
    return IntakeQueue(events, size, lambda: None)


def ledger_holds(q: IntakeQueue, consumed: int) -> bool:
    return q.received == consumed + q.waiting + sum(q.dropped.values())


def test_events_leave_in_the_order_in_which_they_came() -> None:
    q = queue()
    for run in range(5):
        q.put(event(START, run))
    assert [e[1] for e in q.take(3)] == [0, 1, 2]
    assert [e[1] for e in q.take(10)] == [3, 4]
    assert q.bytes == 0
    assert ledger_holds(q, 5)


def test_a_full_queue_refuses_whole_runs_and_never_an_end_alone() -> None:
    q = queue(events=4)
    q.put(event(START, 1))
    for run in range(2, 10):
        q.put(event(START, run, 1))
    for run in range(2, 10):
        q.put(event(END, run, 1, outcome="ok"))
    q.put(event(END, 1))
    kept = q.take(100)
    starts = {e[1] for e in kept if e[0] == START}
    ends = {e[1] for e in kept if e[0] == END}
    assert starts == ends == {1, 2, 3, 4}
    assert q.dropped == {"overload": 10}
    assert ledger_holds(q, len(kept))


def test_a_root_still_finds_room_when_ordinary_runs_do_not() -> None:
    q = queue(events=4)
    q.put(event(START, 1))
    for run in range(2, 10):
        q.put(event(START, run, 1))
    q.put(event(START, 100))
    assert 100 in {e[1] for e in q.take(100)}


def test_a_refused_run_that_fails_is_kept_with_what_its_start_said() -> None:
    q = queue(events=1)
    q.put(event(START, 1))
    q.put(event(START, 2, 1, kind="tool"))
    q.put(event(START, 3, 2, kind="tool"))
    q.take(1)
    q.put(event(END, 3, 2, outcome="error"))
    (end,) = q.take(10)
    assert end[:3] == (END, 3, 1), "its parent was refused too, so it hangs below the next one up"
    assert end[5]["kind"] == "tool"
    assert end[5]["_start"] == (3, 3)


def test_a_child_of_a_refused_run_hangs_below_the_next_one_up() -> None:
    q = queue(events=1)
    q.put(event(START, 1))
    q.put(event(START, 2, 1))
    q.take(10)
    q.put(event(START, 3, 2))
    (start,) = q.take(10)
    assert start[:3] == (START, 3, 1)


def test_content_is_shed_before_any_run_is_refused() -> None:
    q = queue(events=1000, size=100_000)
    text = freeze("x" * 8000)
    for run in range(1, 41):
        q.put(event(START, run, None if run == 1 else 1, input=text))
    kept = q.take(1000)
    assert len(kept) == 40
    assert q.content_shed > 20
    shed = kept[-1][5]["input"]
    assert shed.truncated
    assert shed.value is None
    assert kept[0][5]["input"].value == text.value


def test_bytes_stay_bounded_whatever_comes() -> None:
    q = queue(events=1_000_000, size=200_000)
    text = freeze("x" * 8000)
    for run in range(1, 5000):
        q.put(event(START, run, None if run == 1 else 1, input=text))
    assert q.bytes <= 200_000 + EVENT_BYTES
    assert ledger_holds(q, 0)


def recorder_of(q: IntakeQueue) -> Recorder:
    return Recorder(q, Freezer(), SystemClock(), Failures())


def test_the_end_of_a_streamed_chain_weighs_its_input_too() -> None:
    q = queue()
    one = {"input": freeze("x" * 8000), "output": freeze("y" * 4000)}
    recorder_of(q).end(1, None, one)
    assert q.bytes > EVENT_BYTES + 12_000


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": {f"key {n}": "x" * 1000 for n in range(8)}},
        {"attributes": {f"{n} " + "x" * 1000: "yes" for n in range(8)}},
        {"tags": tuple(f"{n} " + "x" * 1000 for n in range(8))},
        {"error_message": "x" * 2000},
        {"error_message": "語" * 2000},
        {"input": freeze("x" * 8000), "output": freeze("x" * 8000)},
    ],
    ids=["attributes", "keys", "tags", "message", "wide", "both"],
)
@pytest.mark.parametrize("sort", ["root", "child", "end"])
def test_long_texts_stay_within_the_bytes_of_the_queue_whoever_brings_them(
    sort: str, fields: dict[str, Any]
) -> None:
    events, most = 5000, 2 * MEGABYTE
    q = queue(events=events, size=most)
    recorder = recorder_of(q)
    tracemalloc.start()
    try:
        for run in range(1, events + 1):
            # Texts of its own, as in real life: nothing is shared but by accident.
            mine = {name: copied(value) for name, value in fields.items()}
            if sort == "end":
                recorder.end(run, None, {"outcome": "ok", "name": "n", **mine})
            else:
                recorder.start(run, None if sort == "root" else 1 << 90, {"name": "n", **mine})
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert q.received == len(q) + sum(q.dropped.values())
    # A quarter waits before anybody weighs; ends and roots are kept, bare, beyond the bytes.
    assert kept < 1.25 * most + events * EVENT_BYTES, f"{kept:,} bytes"


def copied(value: Any) -> Any:
    if isinstance(value, str):
        return value[:-1] + value[-1:]
    if isinstance(value, dict):
        return {copied(key): copied(text) for key, text in value.items()}
    if isinstance(value, tuple):
        return tuple(map(copied, value))
    return freeze(copied(value.value))


def test_what_is_weighed_is_not_asked() -> None:
    class Asked(str):  # noqa: SLOT000 - one that has a say in everything
        def __len__(self) -> int:
            raise AssertionError

        __iter__ = __sizeof__ = __hash__ = __len__  # type: ignore[assignment]

    q = queue(events=10_000, size=64 * 1024)
    for run in range(100):
        fields = {"attributes": {"a": Asked("x")}, "tags": [Asked("x")], "name": Asked("x")}
        recorder_of(q).start(run, None, fields)
    assert q.received == len(q) == 100


def test_a_run_that_is_refused_and_gets_no_end_is_forgotten_in_time() -> None:
    q = queue(events=1)
    q.put(event(START, 1))
    q.put(event(START, 2, 1))
    q.take(10)
    later = 1 + queues.REFUSED_NS
    q.put((END, 1, None, later, later, {"outcome": "ok"}, EVENT_BYTES, False))
    assert 2 in q._refused, "it may still come to its end"
    later += 10
    q.put((POINT, 9, None, later, later, {}, EVENT_BYTES, False))
    assert not q._refused, "the quick way is open again"
    assert q._refused_bytes == 0


def test_of_refused_runs_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_REFUSED", 3)
    q = queue(events=1)
    q.put(event(START, 1))
    for run in range(2, 12):
        q.put(event(START, run, 1))
    assert list(q._refused) == [9, 10, 11]
    q.take(10)
    q.put(event(END, 11, 1, outcome="ok"))
    assert not len(q), "the end of the latest is refused with it"


def test_refused_runs_count_against_the_bytes_of_the_queue() -> None:
    q = queue(events=10, size=200_000)
    for run in range(1, 5000):
        q.put(event(START, run, None if run == 1 else 1, tags=("x" * 1000,)))
    assert 50_000 < q._refused_bytes <= 100_000
    assert q._refused_bytes == sum(e[6] for e in q._refused.values())
    for run in list(q._refused):
        q.put(event(END, run, 1, outcome="ok"))
    assert q._refused_bytes == 0


@pytest.mark.parametrize("said", [{}, {"attributes": {"a": "x" * 4000}}, {"tags": ("x" * 4000,)}])
def test_refused_runs_that_fail_stay_within_half_as_many_bytes_again(said: dict[str, Any]) -> None:
    most = MEGABYTE
    q = queue(events=50_000, size=most)
    recorder = recorder_of(q)
    tracemalloc.start()
    try:
        recorder.start(1, None, {"kind": "workflow"})
        for run in range(2, 5000):
            mine = {name: copied(value) for name, value in said.items()}
            recorder.start(run, 1, {"kind": "tool", "name": "t", **mine})
            recorder.end(run, 1, {"kind": "tool", "name": "t", "outcome": "error", **mine})
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert q.bytes <= 1.5 * most
    assert kept < 1.5 * most, f"{kept:,} bytes"
    assert q.bytes == sum(e[6] for e in q._items)
    assert ledger_holds(q, 0)
    assert bool(q.content_shed) == bool(said), "texts that were lost are counted"
    assert [e for e in q._items if e[0] == START] == [q._items[0]], (
        "the root; no ordinary run waits"
    )
    assert len(q) - 1 > most / (EVENT_BYTES + 400), "what is there are the errors"


def test_a_refused_run_that_fails_loses_what_its_start_said_at_length_before_it_is_lost() -> None:
    q = queue(events=1000, size=100_000)
    for run in range(1, 200):
        q.put(event(START, run, None if run == 1 else 1, kind="tool", tags=("x" * 1000,)))
    refused = list(q._refused)[-1]
    q.put(event(END, refused, 1, outcome="error", error_message="why " * 1000))
    end = q.take(1000)[-1]
    assert end[:3] == (END, refused, 1)
    assert end[5]["kind"] == "tool"
    assert end[5]["_start"] == (refused, refused)
    assert "tags" not in end[5]
    assert end[5]["error_message"].startswith("why why")
    assert end[6] < 2 * EVENT_BYTES


def test_a_closed_queue_takes_nothing_and_counts_it() -> None:
    q = queue()
    q.closed = True
    q.put(event(POINT, 1))
    assert q.dropped == {"closed": 1}
    assert ledger_holds(q, 0)


def test_the_sleeper_is_woken_once_each_time_it_sleeps() -> None:
    woken: list[int] = []
    q = IntakeQueue(10, MEGABYTE, lambda: woken.append(len(q)))
    for number in range(3):  # a busy host: the sleeper has not got the interpreter yet
        q.put(event(START, number))
    assert woken == [1]
    q.idle = True  # it sleeps again
    q.put(event(START, 4))
    assert woken == [1, 4]


def test_a_thousand_threads_lose_and_double_nothing() -> None:
    q = queue(events=100_000, size=100 * MEGABYTE)
    start = threading.Barrier(50)

    def work(number: int) -> None:
        start.wait()
        for i in range(200):
            q.put(event(START, number * 1000 + i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = q.take(100_000)
    assert len({e[1] for e in taken}) == len(taken) == q.received == 10_000
    assert q.bytes == 0
