"""The matrix: every part, with every fault, in every framework, called in every way.

Each cell is a process of its own, and is compared with the twin: the same program, unmonitored, in a
process of its own. A fault that hits the whole process is told as a limit: what it hits (stdout, the
directory, the locale) is not compared, everything else is.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final

from faults_acts import CHANGES, FAULTS, NO_FAULT, Fault
from faults_cell import ACTS, TURNS
from faults_hosts import WAYS, installed
from faults_parts import NO_PART, PARTS, Part, is_seen, must_count, pairs
from faults_zygote import Zygote
from rows import Row

__all__ = ["chosen", "matrix", "run_cells"]

PROCESSES: Final = 2
#: At set-up these may be the user's own: they are let through.
_THE_USERS: Final = ("raises KeyboardInterrupt", "raises CancelledError")
_CLOSE_SECONDS: Final = 3 + 1.0
#: What the cell itself counts, so that those are told who listen to failures.
_OF_THE_LAB: Final = "handler.lab: ValueError"
#: What a query raises where the storage raised what is no ordinary error, or nothing of use.
_ASKED: Final = {
    "SystemExit": "PluginLeftError",
    "KeyboardInterrupt": "PluginLeftError",
    "GeneratorExit": "PluginLeftError",
    "CancelledError": "StorageError",
    "TypeError": "StorageError",
    "TimeoutError": "StorageError",
}


def matrix(quick: bool) -> Iterator[Row]:
    """Yield a row for each cell; quickly, each fifth pair of part and fault, each in one place."""
    places = list(itertools.product(installed(), WAYS))
    cells = [
        {"part": part.name, "fault": fault.name, "framework": framework, "way": way}
        for part, fault in pairs()
        for framework, way in places
    ]
    if quick:
        cells = [
            {"part": part.name, "fault": fault.name, "framework": place[0], "way": place[1]}
            for (part, fault), place in zip(chosen(), itertools.cycle(places), strict=False)
        ]
    yield from run_cells(cells)


def chosen() -> list[tuple[Part, Fault]]:
    """Return each fifth pair, so that five neighbours have each part and each fault three times.

    Of the few that can change their spans all are there.
    """
    parts, faults = list(PARTS), list(FAULTS)
    return [
        (part, fault)
        for part, fault in pairs()
        if fault.name == CHANGES or (parts.index(part.name) + faults.index(fault.name)) % 5 == 0
    ]


def run_cells(cells: list[dict[str, Any]]) -> Iterator[Row]:
    """Yield a row for each cell, two at a time, after what they are compared with.

    That is, for each place, the unmonitored twin and the cell in which everybody is healthy.
    """
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
            healthy = dict(zip(places, pool.map(run, map(_healthy, places)), strict=True))
            for place in places:
                yield _healthy_row(place, healthy[place], twins[place])
            for cell, came in zip(cells, pool.map(run, cells), strict=True):
                place = cell["framework"], cell["way"]
                yield _row(cell, came, twins[place], _tree(healthy[place]["record"]))
    finally:
        for zygote in zygotes:
            zygote.close()


def _twin(place: tuple[str, str]) -> dict[str, Any]:
    return {"framework": place[0], "way": place[1]}


def _healthy(place: tuple[str, str]) -> dict[str, Any]:
    return {**_twin(place), "part": None, "fault": None}


def _tree(record: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Return how many spans there are of each name and kind."""
    return Counter((name, kind) for _, name, _, kind in record.get("stored", ()))


def _healthy_row(place: tuple[str, str], came: dict[str, Any], twin: dict[str, Any]) -> Row:
    """Judge what the others are compared with: the sinks agree, and it has what the program did."""
    tree, record = _tree(came["record"]), came["record"]
    problems = [*_host_problems(NO_FAULT, came, twin)]
    if "stats" in record:
        problems += _sink_problems(NO_PART, record, tree)
        problems += _spoilt_problems(record)
        problems += _counted_problems(NO_PART, NO_FAULT, record)
    kinds = Counter({kind: sum(n for (_, k), n in tree.items() if k == kind) for _, kind in tree})
    at_once = 2 if place[1] == "async" else 1
    # At the last turn the program fails before it asks a model.
    if kinds["workflow"] < TURNS * at_once or kinds["llm"] < (TURNS - 1) * at_once:
        problems.append(f"it recorded {dict(kinds)}")
    detail = "; ".join(problems) or f"{tree.total()} spans, of {len(tree)} names"
    return Row("faults", "everybody healthy", " ".join(place), not problems, detail)


def _row(
    cell: dict[str, Any],
    came: dict[str, Any],
    twin: dict[str, Any],
    healthy: Counter[tuple[str, str]],
) -> Row:
    part, fault = PARTS[cell["part"]], FAULTS[cell["fault"]]
    tree = healthy + Counter({span: TURNS * n for span, n in Counter(ACTS[part.needs]).items()})
    problems = [
        *_host_problems(fault, came, twin),
        *_our_problems(part, fault, came["record"], tree),
    ]
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


def _our_problems(
    part: Part, fault: Fault, record: dict[str, Any], tree: Counter[tuple[str, str]]
) -> Iterator[str]:
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
        yield from _counted_problems(part, fault, record)
        yield from _asked_problems(part, fault, record)
        yield from _close_problems(part, fault, record)
        yield from _spoilt_problems(record)
        if _storage_hangs_to_the_end(part, fault, record):
            yield from _journal_problems(record, tree)
        else:
            yield from _sink_problems(part, record, tree)


def _set_up_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    _, ordinary, text = record["set_up"]
    if ordinary and part.on_user_thread and "'bad'" not in text:
        yield f"the error does not name the plugin: {text}"
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
        if set(stats["cut_off"]) - {part.label}:
            yield f"others are cut off: {stats['cut_off']}"
    elif stats["cut_off"] and not _is_slow_enough(part, fault):
        yield f"cut off without need: {stats['cut_off']}"


def _counted_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    """Each failure is counted under the name of who failed, and nobody else failed."""
    counted, must = dict(record["stats"]["failures"]), must_count(part, fault)
    if not counted.pop(_OF_THE_LAB, 0):
        yield "what the cell counts is missing"
    if must:
        times = counted.pop(must, 0)
        if not times or (fault.sort != "hangs" and times != record["hits"]):
            yield f"{must} was counted {times} times, not {record['hits']}"
    if _is_slow_enough(part, fault):
        counted.pop(f"{part.counted}: TimeoutError", 0)
        counted.pop(f"plugins.llmops_{part.name[5:]}: TimeoutError", 0)  # we waited for a hook
    if fault.starves:
        # A close that waits for the listeners, by a shortened deadline, beside one that loops. That they
        # were told of every span all the same is asked below.
        counted.pop("plugins.llmops_spans_stored: TimeoutError", 0)
    if counted:
        yield f"counted as well: {counted}"


def _asked_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    """A query answers what it should: a table, or the error that it came to."""
    if part.name == "storage query":
        failed = _ASKED.get(fault.error, fault.error)
        wrong = set(record["asked"]) - {failed or "Table"}
        if wrong or len(record["asked"]) != TURNS:
            yield f"queries answered {record['asked']}, not {failed or 'Table'}"


def _close_problems(part: Part, fault: Fault, record: dict[str, Any]) -> Iterator[str]:
    # It takes a busy machine longer than a close waits to start 1,000 threads.
    slow = part.name == "exporter close" and _is_slow_enough(part, fault)
    hung_close = {"bad"} if slow else set()
    if set(record.get("close_waiting", ())) - hung_close:
        yield f"close waited for {record['close_waiting']}"
    if not record.get("closed_at_exit", True):
        yield "our exit handler left the monitor open"
    if record["close_seconds"] > _CLOSE_SECONDS:
        yield f"close took {record['close_seconds']:.1f} s"


def _is_slow_enough(part: Part, fault: Fault) -> bool:
    """Whether a part may be cut off for its slowness, but need not."""
    return (fault.sort == "hangs" and not part.repeats) or fault.name == "starts 1,000 threads"


def _storage_hangs_to_the_end(part: Part, fault: Fault, record: dict[str, Any]) -> bool:
    """Whether nobody let a storage go before the exit: then its spans are in the journal."""
    hung = fault.sort == "hangs" and part.name in ("storage write", "storage query")
    return hung and "closed_at_exit" in record


def _event_problems(record: dict[str, Any]) -> Iterator[str]:
    events = record["stats"]["events"]
    if events["received"] != events["consumed"] or events["dropped"]:
        yield f"events: {events}"


def _journal_problems(record: dict[str, Any], tree: Counter[tuple[str, str]]) -> Iterator[str]:
    """A storage that hangs to the end has lost nothing: the rest is in the journal."""
    yield from _event_problems(record)
    spans, stored = record["stats"]["spans"], {row[0] for row in record["stored"]}
    if not spans["made"] == spans["stored"] + spans["journaled"] == tree.total():
        yield f"spans: {spans}, {tree.total()} were expected"
    if spans["stored"] != len(record["told"]) or not set(record["told"]) <= stored:
        yield f"told of {len(record['told'])} spans, of {spans}"
    exported = record["exported"]
    if not len(exported) == len(set(exported)) == tree.total():
        yield f"exported: {len(exported)} of {tree.total()} spans"


def _sink_problems(
    part: Part, record: dict[str, Any], tree: Counter[tuple[str, str]]
) -> Iterator[str]:
    yield from _event_problems(record)
    stats, stored = record["stats"], [row[0] for row in record["stored"]]
    spans = stats["spans"]
    if not spans["made"] == spans["stored"] == len(stored) == len(set(stored)) > 0:
        yield f"spans: {spans}, {len(stored)} stored"
    if (had := _tree(record)) != tree:
        yield f"too many: {dict(had - tree)}, missing: {dict(tree - had)}"
    if not record.get("flushed", True):
        yield "the flush was not complete"
    sinks = [("exported", 0), ("told", 0)]
    if "rows" in record:  # none is asked for where the monitor is left open
        sinks.append(("rows", record["open"]))
    elif "closed_at_exit" not in record:
        yield "no query was answered"
    for who, still_open in sinks:
        got, missing = record[who], set(stored) - set(record[who])
        if len(got) + still_open != len(stored) or len(missing) != still_open:
            yield f"{who}: {len(set(got))} of {len(stored)} spans, {len(got)} in all"
    handoffs = [span_id for span_id, _, _, kind in record["stored"] if kind == "handoff"]
    if sorted(record["handed"]) != sorted(handoffs) or (part.needs == "handoff") > len(handoffs):
        yield f"told of {len(record['handed'])} of {len(handoffs)} handoffs"


def _spoilt_problems(record: dict[str, Any]) -> Iterator[str]:
    spoilt = [row for row in record["stored"] if row[1] == "spoilt" or "spoilt" in row[2]]
    if spoilt or "spoilt" in record["names"]:
        yield "another sink saw what the plugin changed"
    unseen = [row for row in record["stored"] if row[2].get("witnessed") != "yes"]
    if unseen:
        yield f"the other collector missed {len(unseen)} spans"
