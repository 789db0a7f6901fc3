"""One cell, run in a process of its own: a program, monitored with a part that has a fault, or not.

The program prints what it gets and ends in its way. What a cell is judged by besides goes into a
side file: values, signals, stats, what the witnesses got, what the doctor would read.
"""

from __future__ import annotations

import json
import locale
import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from faults_acts import FAULTS, NO_FAULT, Hits
from faults_hosts import ENDS, FRAMEWORKS, LEFT_OPEN, WAYS
from faults_last import LAST
from faults_parts import NO_PART, PARTS, Bad, LabStorage, Witness, is_seen, must_count

__all__ = ["ACTS", "TURNS", "run_cell"]

#: Calls of the program: more than the failures after which a plugin is cut off.
TURNS: Final = 7
#: How often is looked after what waits: a cell does not wait for it.
_PACES: Final = {
    "delivery.storing.FIRST_RETRY_SECONDS": 0.002,
    "delivery.storing.LAST_RETRY_SECONDS": 0.02,
    "delivery.thread.WATCH_SECONDS": 0.05,
    "intake.thread.HOUSEKEEPING_SECONDS": 0.05,
    "intake.thread.OPEN_FILE_SECONDS": 0.05,
}
#: Deadlines are shortened where something hangs, so that hundreds of cells can. Elsewhere they are the
#: real ones: on a busy machine healthy parts would be late.
_DEADLINES: Final = {
    "delivery.collecting.LATE_SECONDS": 0.4,
    "delivery.notifying.LATE_SECONDS": 0.4,
    "delivery.isolation.LATE_SECONDS": 0.4,
    "delivery.isolation.DEADLINE_SECONDS": 0.8,
    "delivery.exporting.DEADLINE_SECONDS": 0.6,
    "monitor.HOOK_SECONDS": 0.4,
}
#: Those of the storage, where it is what hangs.
_OF_THE_STORAGE: Final = {
    "delivery.storing.SLOW_SECONDS": 0.4,
    "pipeline.OPEN_SECONDS": 0.5,
    "monitor.QUERY_SECONDS": 0.5,
}
#: What the cell does beside the program: the spans of one time, by name and kind.
ACTS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "": (),
    "handoff": (("lab", "workflow"), ("a", "agent"), ("a → b", "handoff"), ("b", "agent")),
    "model": (("lab", "workflow"), ("m", "llm")),
}


def run_cell(cell: dict[str, Any], side: Path) -> None:
    """Run the program of a cell to its end, and leave the way it leaves."""
    record: dict[str, Any] = {"values": []}
    monitored = _Monitored(cell, side, record) if "part" in cell else None
    try:
        monitor = monitored.open() if monitored else None
        _program(cell, monitor, record, monitored.tick if monitored else lambda: None)
        if monitored:
            monitored.finish()
        record["cwd"], record["locale"] = str(Path.cwd()), locale.setlocale(locale.LC_ALL)
        record["signals"] = [str(signal.getsignal(n)) for n in signal.valid_signals()]
    finally:
        side.write_text(json.dumps(record))
    ENDS[cell["way"]]()


def _program(
    cell: dict[str, Any], monitor: Any, record: dict[str, Any], tick: Callable[[], None]
) -> None:
    program, config = FRAMEWORKS[cell["framework"]](monitor)
    call = WAYS[cell["way"]]
    for turn in range(1, TURNS + 1):
        given = turn if turn < TURNS else -1
        try:
            value = f"returned {call(program, given, config)!r}"
        except Exception as error:
            value = f"raised {type(error).__name__}: {error}"
        record["values"].append(value)
        try:
            print(turn, value)
        except ValueError:  # somebody closed it
            record["stdout closed"] = True
        tick()


class _Monitored:
    """The monitor of a cell, with the part that has the fault and the witnesses beside it."""

    def __init__(self, cell: dict[str, Any], side: Path, record: dict[str, Any]) -> None:
        self.part = PARTS.get(cell["part"], NO_PART)
        self.fault = FAULTS.get(cell["fault"], NO_FAULT)
        self.record, self.side, self.root = record, side, side.parent / "journal"
        self.left_open = cell["way"] == LEFT_OPEN
        self.hits = Hits(most=8 if self.part.name.startswith("storage") else None)
        self.witness = Witness()
        self.storage = LabStorage(self.root)
        self.monitor: Any = None
        for name, seconds in self._shortened().items():
            _set(name, seconds)
        log = logging.getLogger("llmops")
        log.addHandler(logging.NullHandler())
        log.propagate = False

    def _shortened(self) -> dict[str, float]:
        if self.fault.sort != "hangs":
            return _PACES
        # A loop takes half of the interpreter from those that are healthy.
        times = 2 if self.fault.starves else 1
        short = {**_PACES, **{name: times * seconds for name, seconds in _DEADLINES.items()}}
        return short | (_OF_THE_STORAGE if self.part.name.startswith("storage") else {})

    def open(self) -> Any:
        from llmops_core import Monitor

        given = self.part.build(Bad(self.fault, self.hits), self.storage)
        arguments: dict[str, list[Any]] = {
            "plugins": [self.witness],
            "exporters": [self.witness],
            "collectors": ["capacity", self.witness],
        }
        for name, more in given.items():
            # First it is the other's turn, so that harm would reach the witness. Hooks are called
            # last one first.
            others = arguments[name]
            arguments[name] = [*others, *more] if name == "plugins" else [*more, *others]
        if self.part.on_user_thread and self.fault.sort == "hangs":
            threading.Timer(0.3, self.hits.released.set).start()
        try:
            self.monitor = Monitor(self.storage, batch_size=50, **arguments)
        except BaseException as error:
            self.record["set_up"] = [type(error).__name__, isinstance(error, Exception), str(error)]
        self.record["threads_after_set_up"] = _our_threads() if self.monitor is None else 0
        return self.monitor

    def tick(self) -> None:
        """After each call of the program: let the plugins get what it made."""
        if self.monitor is None:
            return
        self.monitor.recorder.report("lab", ValueError())  # for those that listen to failures
        if self.part.needs:
            _act(self.monitor.recorder, self.part.needs)
        hangs = self.fault.sort == "hangs" and not self.part.at_set_up
        self.monitor.flush(0.05 if hangs else 5)
        if self.part.name == "storage query":
            self._ask()

    def _ask(self) -> None:
        try:
            asked = type(self.monitor.query()).__name__
        except Exception as error:
            asked = type(error).__name__
        self.record.setdefault("asked", []).append(asked)

    def finish(self) -> None:
        """See what is told of the fault; close, and note what everybody got, or leave that to the exit."""
        if self.monitor is None:
            self.record["hits"] = self.hits.count
            return
        monitor, record = self.monitor, self.record
        if is_seen(self.part, self.fault):
            record["seen"] = _wait(lambda: self._told(monitor.stats()))
            record["doctor"] = _wait(lambda: self._told_by_doctor(monitor))
        if self.left_open:
            if self.fault.sort != "hangs":
                record["flushed"] = monitor.flush(20).complete
            LAST.append(partial(self._note_at_exit, time.monotonic()))
        else:
            self._close()

    def _close(self) -> None:
        monitor, record = self.monitor, self.record
        if not self.part.name.endswith(("close", "stopping")):
            if self.fault.sort == "hangs":  # a program that is over soon would let it go in time
                must = must_count(self.part, self.fault)
                _wait(lambda: not must or must in monitor.stats()["failures"])
            self.hits.released.set()
        record["flushed"] = monitor.flush(20).complete
        # A call that is cancelled while LangGraph awaits its start is never told to end: it is open
        # until the monitor closes.
        record["open"] = monitor.stats()["spans"]["open"]
        if self.part.name != "storage query":
            _wait(self._asked_for_rows)
        else:
            record["rows"] = sorted(span.span_id for span in self.storage.spans)
        began = time.monotonic()
        report = monitor.close(1 if self.fault.sort == "hangs" else 3)
        record["close_seconds"] = time.monotonic() - began
        record["close_waiting"] = list(report.waiting)  # what hangs in a close hangs to the end
        self._note()

    def _note_at_exit(self, began: float) -> None:
        self.record["close_seconds"] = time.monotonic() - began
        self.record["closed_at_exit"] = self.monitor.closed
        self._note()
        self.side.write_text(json.dumps(self.record))

    def _note(self) -> None:
        record, witness = self.record, self.witness
        record["hits"] = self.hits.count
        record["stats"] = self.monitor.stats()
        record["exported"], record["told"] = witness.exported, witness.told
        record["handed"] = witness.handed
        record["stored"] = [
            [s.span_id, s.name, dict(s.attributes or {}), s.kind] for s in self.storage.spans
        ]
        record["names"] = sorted(witness.names)

    def _asked_for_rows(self) -> bool:
        """Note what a query gives. One that comes too soon is refused.

        Where it hangs, a storage is told as hung after half a second, which a busy machine takes too.
        """
        from llmops_core import StorageError

        try:
            self.record["rows"] = sorted(self.monitor.query()["span_id"].to_pylist())
        except StorageError:
            return False
        return True

    def _told(self, stats: dict[str, Any]) -> bool:
        if self.part.label == "storage":
            return stats["storage"]["state"] != "ok" or stats["storage"]["retries"] >= 5
        return self.part.label in stats["cut_off"]

    def _told_by_doctor(self, monitor: Any) -> bool:
        from llmops_core.cli.doctor_lines import trouble
        from llmops_core.cli.journals import journal_states

        (state,) = journal_states(self.root)
        text = "\n".join(finding.text for finding in trouble(state.trouble))
        if self.part.label == "storage":
            return "storage" in text
        return f"plugin {self.part.label} is cut off" in text


def _act(recorder: Any, what: str) -> None:
    """Record a handoff between two agents, or a model call whose provider told no usage."""
    root, agent, other = (uuid.uuid4().int for _ in range(3))
    recorder.start(root, None, {"kind": "workflow", "name": "lab"})
    if what == "handoff":
        recorder.start(agent, root, {"kind": "agent", "name": "a"})
        recorder.handoff(agent, {"target_agent": "b", "handoff_mechanism": "transfer"})
        recorder.end(agent, root, {"outcome": "ok"})
        recorder.start(other, root, {"kind": "agent", "name": "b"})
        recorder.end(other, root, {"outcome": "ok"})
    else:
        asked = {"kind": "llm", "name": "m", "model": "m", "input": recorder.freeze("hello")}
        recorder.start(agent, root, asked)
        recorder.end(agent, root, {"outcome": "ok", "output": recorder.freeze("yes")})
    recorder.end(root, None, {"outcome": "ok"})


def _set(name: str, value: float) -> None:
    import importlib

    module, _, attribute = name.rpartition(".")
    owner = importlib.import_module(f"llmops_core.{module}")
    assert hasattr(owner, attribute), name
    setattr(owner, attribute, value)


def _our_threads() -> int:
    names = [t.name for t in threading.enumerate() if t.name.startswith("llmops-")]
    deadline = time.monotonic() + 2
    while names and time.monotonic() < deadline:
        time.sleep(0.01)
        names = [t.name for t in threading.enumerate() if t.name.startswith("llmops-")]
    return len(names)


def _wait(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
