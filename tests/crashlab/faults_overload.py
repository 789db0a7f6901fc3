"""Ten times what can be taken, huge events, very many runs at once, runs without end.

The capacity is made small by slowing the intake down, so that the tenfold load is one on any machine.
The ledger is checked by id against what the program issued.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from faults_zygote import Zygote
from rows import Row

__all__ = ["overload"]

CAPACITY: Final = 2000
TIMES: Final = 10
CALLERS: Final = 4
BLOCK_SECONDS: Final = 0.25
MAX_CPU_US: Final = 250.0
#: What the machine may add to a wait: other processes run too.
GRACE_SECONDS: Final = 0.5
QUEUE_MB: Final = 64
MAX_MANY_MB: Final = 150
MAX_GROWTH_MB: Final = 40


def _ledger_problems(stats: dict[str, Any]) -> list[str]:
    events, spans = stats["events"], stats["spans"]
    problems = []
    if events["received"] != events["consumed"] + events["queued"] + sum(
        events["dropped"].values()
    ):
        problems.append(f"events {events}")
    kept = sum(spans[n] for n in ("stored", "queued", "journaled", "quarantined"))
    if spans["made"] != kept + sum(spans["dropped"].values()) + sum(spans["skipped"].values()):
        problems.append(f"spans {spans}")
    return problems


class _Slow:
    """Slows an intake down to a number of events a second, until it is let go."""

    def __init__(self, monitor: Any, per_second: float) -> None:
        from llmops_core.intake import thread

        thread.DRAIN_EVENTS = 32  # type: ignore[misc]
        self.go = threading.Event()
        intake = monitor._pipeline.intake
        consume = intake._consume

        def slowly(events: list[Any]) -> bool:
            self.go.wait(len(events) / per_second)
            return bool(consume(events))

        intake._consume = slowly


class _Roots:
    """Sees each root that the queue refuses, and whether an ordinary run waited there then."""

    def __init__(self, queue: Any) -> None:
        from llmops_core.intake.queue import START

        self.refused = self.wrongly = 0
        put = queue.put

        def watched(event: Any) -> None:
            put(event)
            if event[0] != START or event[2] is not None:
                return
            with queue._lock:
                if event[1] in queue._refused:
                    self.refused += 1
                    waiting = any(e[0] == START and e[2] is not None for e in queue._items)
                    self.wrongly += waiting

        queue.put = watched


class _Caller:
    """Issues traces of fifty spans; notes ids, and what each call took."""

    def __init__(self, monitor: Any, number: int) -> None:
        self.recorder, self.rng = monitor.recorder, random.Random(number)
        self.first = self.next = (number + 1) << 96
        self.roots: list[int] = []
        self.errors: list[int] = []
        self.issued = 0
        self.cpu: list[float] = []
        self.wall: list[float] = []

    def trace(self) -> None:
        """Issue one trace: a hundred events."""
        root = self._run()
        self._call(self.recorder.start, root, None, {"kind": "workflow", "name": "root"})
        for _ in range(49):
            run = self._run()
            text = self.recorder.freeze("what is asked" * 8)
            self._call(self.recorder.start, run, root, {"kind": "tool", "name": "t", "input": text})
            outcome = "error" if self.rng.random() < 0.02 else "ok"
            self._call(self.recorder.end, run, root, {"outcome": outcome})
            if outcome == "error":
                self.errors.append(run)
        self._call(self.recorder.end, root, None, {"outcome": "ok"})
        self.roots.append(root)

    def runs(self) -> range:
        """Return all runs that were issued."""
        return range(self.first + 1, self.next + 1)

    def _run(self) -> int:
        self.next += 1
        self.issued += 1
        return self.next

    def _call(self, function: Any, *args: Any) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        function(*args)
        self.cpu.append((time.thread_time() - cpu) * 1e6)
        self.wall.append(time.perf_counter() - wall)

    def behind(self, began: float) -> float:
        """Return how many seconds this caller is ahead of its rate; below 0 it is behind."""
        due = self.issued * 2 / (CAPACITY * TIMES / CALLERS)
        return due - (time.monotonic() - began)


def load_child(cell: dict[str, Any], side: Path) -> None:
    """Call for some seconds, ten times faster than the intake takes; then let it take the rest."""
    from llmops_core import Monitor
    from llmops_core.intake.tracer import span_id_of

    monitor = Monitor(
        "memory:", overload=cell["policy"], block_seconds=BLOCK_SECONDS, queue_events=2000
    )
    slow, refused = _Slow(monitor, CAPACITY), _Roots(monitor.recorder.queue)
    callers = [_Caller(monitor, number) for number in range(CALLERS)]
    began = time.monotonic()
    end = began + cell["for_seconds"]

    def work(caller: _Caller) -> None:
        while time.monotonic() < end:
            caller.trace()
            time.sleep(max(0.0, caller.behind(began)))

    async def awork(caller: _Caller) -> None:
        while time.monotonic() < end:
            caller.trace()
            await asyncio.sleep(max(0.0, caller.behind(began)))

    async def all_of_them() -> None:
        await asyncio.gather(*map(awork, callers))

    if cell["asynchronous"]:
        asyncio.run(all_of_them())
    else:
        threads = [threading.Thread(target=work, args=(caller,)) for caller in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seconds = time.monotonic() - began
    slow.go.set()
    flushed = monitor.flush(60).complete
    ids = monitor.query()["span_id"].to_pylist()
    stats = monitor.stats()
    stored = set(ids)
    roots = {span_id_of(run) for c in callers for run in c.roots}
    errors = {span_id_of(run) for c in callers for run in c.errors}
    issued = {span_id_of(run) for c in callers for run in c.runs()}
    cpu, wall = [t for c in callers for t in c.cpu], [t for c in callers for t in c.wall]
    came = {
        "times": len(cpu) / seconds / CAPACITY, "flushed": flushed,
        "roots": [len(roots & stored), len(roots)], "errors": [len(errors & stored), len(errors)],
        "doubled": len(ids) - len(stored), "foreign": len(stored - issued),
        "stored": len(ids), "events": stats["events"],
        "refused": refused.refused, "wrongly": refused.wrongly,
        "issued": len(issued), "calls": len(cpu), "problems": _ledger_problems(stats),
        "cpu_p99": statistics.quantiles(cpu, n=100)[98],
        "wall_p99": statistics.quantiles(wall, n=100)[98] * 1e6, "wall_max": max(wall),
    }  # fmt: skip
    monitor.close(10)
    side.write_text(json.dumps(came))


def _loss_problems(came: dict[str, Any]) -> Iterator[str]:
    roots, errors = came["roots"], came["errors"]
    if came["doubled"] or not came["flushed"]:
        yield f"{came['doubled']} doubled, flushed {came['flushed']}"
    # An event that is lost before it is counted would leave both ledgers balanced.
    if not came["events"]["received"] == came["calls"] == 2 * came["issued"]:
        yield f"{came['events']['received']:,} events received of {2 * came['issued']:,}"
    if came["foreign"]:
        yield f"{came['foreign']} spans are stored that nobody issued"
    if came["wrongly"]:
        yield f"{came['wrongly']} roots were refused while ordinary runs waited"
    # An intake that the machine starves may meet a queue of nothing but roots.
    if roots[1] - roots[0] > came["refused"]:
        yield "roots are missing that were not refused"
    if errors[0] < errors[1]:
        yield "errors are missing"


def _wait_problems(policy: str, where: str, came: dict[str, Any]) -> Iterator[str]:
    dropped, blocked = came["events"]["dropped"], came["events"]["blocked"]
    if policy == "drop" or where == "async":
        if came["times"] < TIMES / 2 or not dropped:
            yield f"the load was {came['times']:.1f} times the capacity"
        if blocked["calls"]:
            yield f"it waited: {blocked}"
        if came["cpu_p99"] > MAX_CPU_US:
            yield "a call is too dear"
        return
    if not blocked["calls"] or came["wall_max"] > BLOCK_SECONDS + GRACE_SECONDS:
        yield f"it waited wrongly: {blocked}"
    if came["times"] > TIMES / 2:
        yield "waiting did not slow the callers down"


def _load_row(zygote: Zygote, policy: str, where: str, seconds: float) -> Row:
    cell = {
        "run": "faults_overload:load_child", "policy": policy, "for_seconds": seconds,
        "asynchronous": where == "async", "seconds": seconds + 120,
    }  # fmt: skip
    ran = zygote.run(cell)
    came, name = ran["record"], f"ten times the capacity, {policy}"
    if not came:
        return Row("faults", name, where, False, ran["stderr"][-500:])
    problems = [*came["problems"], *_loss_problems(came), *_wait_problems(policy, where, came)]
    blocked = came["events"]["blocked"]
    roots, errors = came["roots"], came["errors"]
    detail = (
        f"{came['times']:.1f} times; {came['stored']:,} of {came['issued']:,} spans stored, roots "
        f"{roots[0]:,} of {roots[1]:,}, errors {errors[0]:,} of {errors[1]:,}; a call p99 "
        f"{came['cpu_p99']:.0f} us of CPU, {came['wall_p99']:.0f} us, at most "
        f"{came['wall_max'] * 1000:.0f} ms; {blocked['calls']:,} waited"
    )
    return Row("faults", name, where, not problems, "; ".join([detail, *problems]))


def bytes_child(cell: dict[str, Any], side: Path) -> None:
    """Issue texts of 1 kB and 1 MB while the intake stands still; watch the memory."""
    import psutil

    from llmops_core import Monitor

    monitor = Monitor("memory:", content_limit=1_000_000, queue_bytes=QUEUE_MB * 2**20)
    slow = _Slow(monitor, 0.001)
    recorder, process = monitor.recorder, psutil.Process()
    recorder.start(1, None, {"kind": "workflow", "name": "root"})
    base = peak = process.memory_info().rss
    offered = 0
    for number in range(2, cell["events"]):
        size = 1_000_000 if number % 3 == 0 else 1000
        text = f"{number:09d}" + "x" * (size - 9)
        offered += size
        recorder.start(number, 1, {"kind": "llm", "name": "m", "input": recorder.freeze(text)})
        recorder.end(number, 1, {"outcome": "ok"})
        peak = max(peak, process.memory_info().rss)
    recorder.end(1, None, {"outcome": "ok"})
    slow.go.set()
    flushed = monitor.flush(60).complete
    stats = monitor.stats()
    came = {
        "grown": (peak - base) / 2**20, "offered": offered / 2**20, "events": stats["events"],
        "problems": _ledger_problems(stats), "flushed": flushed, "rows": monitor.query().num_rows,
    }  # fmt: skip
    monitor.close(10)
    side.write_text(json.dumps(came))


def _bytes_row(zygote: Zygote, events: int) -> Row:
    ran = zygote.run({"run": "faults_overload:bytes_child", "events": events, "seconds": 180})
    came = ran["record"]
    if not came:
        return Row("faults", "1 kB and 1 MB mixed", "core", False, ran["stderr"][-500:])
    shed = came["events"]["content_shed"]
    passed = (
        came["grown"] <= QUEUE_MB * 1.25 and shed > 0 and came["flushed"] and not came["problems"]
        and came["offered"] > 4 * QUEUE_MB
    )  # fmt: skip
    detail = (
        f"{came['offered']:,.0f} MB offered, memory {came['grown']:+.0f} MB of {QUEUE_MB} MB and a "
        f"quarter; {shed:,} events without content, {came['rows']:,} spans stored"
    )
    return Row(
        "faults", "1 kB and 1 MB mixed", "core", passed, "; ".join([detail, *came["problems"]])
    )


def overload(quick: bool) -> Iterator[Row]:
    """Yield the rows of overload."""
    from faults_many import many

    zygote = Zygote()
    try:
        for policy, where in (("drop", "threads"), ("block", "threads"), ("block", "async")):
            yield _load_row(zygote, policy, where, 3 if quick else 60)
        yield _bytes_row(zygote, 1000 if quick else 6000)
        yield from many(zygote, quick)
    finally:
        zygote.close()
