"""The matrix: every part, with every fault, in every framework, called in every way.

Each cell is a process of its own, and is compared with the twin: the same program, unmonitored, in a
process of its own. A fault that hits the whole process is told as a limit: what it hits (stdout, the
directory, the locale) is not compared, everything else is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final

from faults_acts import FAULTS, Fault
from faults_hosts import WAYS, installed
from faults_parts import PARTS, Part, is_seen
from faults_zygote import Zygote
from rows import Row

__all__ = ["matrix", "run_cells"]

PROCESSES: Final = 2
#: At set-up these may be the user's own: they are let through.
_THE_USERS: Final = ("raises KeyboardInterrupt", "raises CancelledError")
_CLOSE_SECONDS: Final = 3 + 1.0


def matrix(quick: bool) -> Iterator[Row]:
    """Yield a row for each cell; quickly, each fifth pair of part and fault, each in one place."""
    places = list(itertools.product(installed(), WAYS))
    cells = [
        {"part": p, "fault": f, "framework": framework, "way": way}
        for p, f in itertools.product(PARTS, FAULTS)
        for framework, way in places
    ]
    if quick:  # five neighbours have each part and each fault at least three times
        names = list(PARTS), list(FAULTS)
        chosen = [
            (p, f)
            for p, f in itertools.product(*names)
            if (names[0].index(p) + names[1].index(f)) % 5 == 0
        ]
        cells = [
            {"part": p, "fault": f, "framework": place[0], "way": place[1]}
            for (p, f), place in zip(chosen, itertools.cycle(places), strict=False)
        ]
    yield from run_cells(cells)


def run_cells(cells: list[dict[str, Any]]) -> Iterator[Row]:
    """Yield a row for each cell, two at a time, after the twins that they are compared with."""
    places = list(dict.fromkeys((cell["framework"], cell["way"]) for cell in cells))
    idle: SimpleQueue[Zygote] = SimpleQueue()
    zygotes = [Zygote() for _ in range(PROCESSES)]
    for zygote in zygotes:
        idle.put(zygote)

    def run(cell: dict[str, Any]) -> dict[str, Any]:
        zygote = idle.get()
        try:
            return zygote.run(cell)
        finally:
            idle.put(zygote)

    try:
        with ThreadPoolExecutor(PROCESSES) as pool:
            twins = dict(zip(places, pool.map(run, map(_twin, places)), strict=True))
            for cell, came in zip(cells, pool.map(run, cells), strict=True):
                yield _row(cell, came, twins[cell["framework"], cell["way"]])
    finally:
        for zygote in zygotes:
            zygote.close()


def _twin(place: tuple[str, str]) -> dict[str, Any]:
    return {"framework": place[0], "way": place[1]}


def _row(cell: dict[str, Any], came: dict[str, Any], twin: dict[str, Any]) -> Row:
    part, fault = PARTS[cell["part"]], FAULTS[cell["fault"]]
    problems = [*_host_problems(fault, came, twin), *_our_problems(part, fault, came["record"])]
    detail = "; ".join(problems)
    if not problems:
        detail = f"{came['record']['hits']} times"
        if is_seen(part, fault):
            detail += ", cut off" if part.label == "bad" else ", told, then stored"
        elif came["record"].get("set_up"):
            detail += f", set-up raised {came['record']['set_up'][0]}"
        if fault.limit:
            detail += f"; LIMIT: {fault.limit}"
        elif part.on_user_thread and fault.name in _THE_USERS:
            detail += "; LIMIT: at set-up it may be the user's own"
        elif part.on_user_thread and fault.sort == "hangs":
            detail += "; LIMIT: set-up waits for it"
    where = f"{cell['framework']} {cell['way']}"
    return Row("faults", f"{part.name} {fault.name}", where, not problems, detail)


def _host_problems(fault: Fault, came: dict[str, Any], twin: dict[str, Any]) -> Iterator[str]:
    if came["late"]:
        yield "it did not end"
    for what in ("exit", "stderr", "stdout"):
        if what == "stdout" and fault.name == "closes stdout":
            continue
        if came[what] != twin[what]:
            yield f"{what} is {came[what]!r}, not {twin[what]!r}"
    for what in ("values", "signals", "cwd", "locale"):
        if what in ("cwd", "locale") and fault.name.startswith("changes directory"):
            continue
        if came["record"].get(what) != twin["record"][what]:
            yield f"{what} are {came['record'].get(what)!r}"


def _our_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    if not record.get("hits"):
        yield "the fault did not happen"
    refused = part.at_set_up and (
        fault.sort == "raises"
        or (fault.sort == "lies" and "lies" not in part.ignores)
        or (fault.sort == "hangs" and not part.on_user_thread)
    )
    if refused != ("set_up" in record):
        yield f"set-up: {record.get('set_up')}"
    if "set_up" in record:
        yield from _set_up_problems(part, fault, record)
    elif "stats" not in record:
        yield "no stats"
    else:
        yield from _seen_problems(part, fault, record)
        yield from _sink_problems(record)
        yield from _close_problems(part, fault, record)


def _set_up_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    _, ordinary, _ = record["set_up"]
    if not ordinary and not (part.on_user_thread and fault.name in _THE_USERS):
        yield f"set-up raised {record['set_up']}"
    if record["threads_after_set_up"] > (fault.sort == "hangs"):
        yield f"{record['threads_after_set_up']} threads left by a set-up that failed"


def _seen_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    stats = record["stats"]
    if is_seen(part, fault):
        if not record["seen"]:
            yield f"not seen in stats: {stats['cut_off']}, {stats['storage']}"
        if not record["doctor"]:
            yield "not seen by the doctor"
    elif stats["cut_off"] and not _is_slow_enough(part, fault):
        yield f"cut off without need: {stats['cut_off']}"


def _close_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    hung_close = {"bad"} if part.name == "exporter close" and fault.sort == "hangs" else set()
    if set(record["close_waiting"]) - hung_close:
        yield f"close waited for {record['close_waiting']}"
    if record["close_seconds"] > _CLOSE_SECONDS:
        yield f"close took {record['close_seconds']:.1f} s"


def _is_slow_enough(part: Part, fault: Fault) -> bool:
    """Whether a part may be cut off for its slowness, but need not."""
    return (fault.sort == "hangs" and not part.repeats) or fault.name == "starts 1,000 threads"


def _sink_problems(record: dict[str, Any]) -> Iterator[str]:
    stats, stored = record["stats"], [row[0] for row in record["stored"]]
    events, spans = stats["events"], stats["spans"]
    if events["received"] != events["consumed"] or events["dropped"]:
        yield f"events: {events}"
    if not spans["made"] == spans["stored"] == len(stored) == len(set(stored)) > 0:
        yield f"spans: {spans}, {len(stored)} stored"
    if not record["flushed"]:
        yield "the flush was not complete"
    for who, still_open in (("rows", record["open"]), ("exported", 0), ("told", 0)):
        got, missing = record[who], set(stored) - set(record[who])
        if len(got) + still_open != len(stored) or len(missing) != still_open:
            yield f"{who}: {len(set(got))} of {len(stored)} spans, {len(got)} in all"
    spoilt = [row for row in record["stored"] if row[1] == "spoilt" or "spoilt" in row[2]]
    if spoilt or "spoilt" in record["names"]:
        yield "another sink saw what the plugin changed"
    unseen = [row for row in record["stored"] if row[2].get("witnessed") != "yes"]
    if unseen:
        yield f"the other collector missed {len(unseen)} spans"
