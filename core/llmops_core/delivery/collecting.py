"""Runs the collectors over a batch, each isolated, and merges what they measured into a new one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from threading import Lock
from typing import Any, Final

import msgspec

from llmops_core.batch import ArrowValues, SpanBatch
from llmops_core.delivery.isolation import (
    CUT_OFF_AFTER,
    LATE_SECONDS,
    NoTurnError,
    SharedLane,
    Turn,
    blocked_error,
    is_ours,
)
from llmops_core.failures import Failures
from llmops_core.measuring.named import NamedCollector, all_names_in, let_go_of_calls
from llmops_core.protocols import Collector
from llmops_core.running import MAX_STEP_SECONDS, running_seconds
from llmops_core.schema import COLUMNS
from llmops_core.span import Span
from llmops_core.worker import Worker

__all__ = ["Collecting", "merge_values", "merged"]

#: What a collector may take for a span before the batch goes on without it, and at most for all.
SPAN_SECONDS: Final = 0.002
MAX_WAIT_SECONDS: Final = 10.0

#: Sets of names that decorated functions may bring.
MAX_NAMED: Final = 1_000

_FIXED: Final = frozenset({"identity", "when", "content"})
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "enum": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
_SETTABLE: Final = {
    c.name: _TYPES[c.type] for c in COLUMNS if c.group not in _FIXED and c.type in _TYPES
}
_ARROW: Final[dict[tuple[type, ...], str]] = {(int,): "int64", (int, float): "double"}


class Collecting:
    """The collectors of one monitor, in order. Called on the delivery's and the storage's thread.

    Ours run where they are called: they are pure and return. Plugins run on a helper thread, and a
    batch waits for one half a second, or 2 ms for each of its spans. Who takes longer gets no batch until
    it returns; who does not return in ten seconds, or fails five times in a row, is cut off.
    """

    def __init__(
        self,
        collectors: Mapping[str, Collector],
        failures: Failures,
        find: Callable[[str], object | None] = lambda name: None,
    ) -> None:
        self._collectors = dict(collectors)
        self._find = find
        self._named: set[str] = set()
        self._failures = failures
        self._in_a_row: dict[str, int] = dict.fromkeys(collectors, 0)
        self._lock = Lock()
        foreign = any(not is_ours(c) for c in collectors.values())
        self._lane = SharedLane("collectors", failures) if foreign else None
        self.cut_off: list[str] = []
        #: Spans that went on without a collector, by its name.
        self.missed: dict[str, int] = {}

    def collect(self, batch: SpanBatch, moves: Callable[[], None] = lambda: None) -> SpanBatch:
        """Return the batch with measured values; a collector that fails costs only its own.

        *moves* is called each second while one is waited for: the caller does not stand still.
        """
        named = all_names_in(batch)
        for names in named - self._named:
            self._add_named(names)
        for name, collector in list(self._collectors.items()):
            if self._lane is not None and name in self._lane.late:
                self._miss(name, batch)
                continue
            try:
                if self._lane is None or is_ours(collector):
                    batch = merged(batch, collector.collect(batch))
                else:
                    batch = self._measure(name, collector, batch, self._lane, moves)
            except NoTurnError:  # another one has the thread: no fault of this one's
                self._miss(name, batch)
                continue
            except Exception as error:
                self._miss(name, batch)
                self._failed(name, error)
                continue
            self._in_a_row[name] = 0
        if named:
            let_go_of_calls(batch)
        return batch

    def _add_named(self, named: str) -> None:
        """Take in the collectors that a decorated function names, for its own spans."""
        with self._lock:
            if len(self._named) >= MAX_NAMED:
                return
            self._named.add(named)
            for name in named.split(","):
                if name in self._in_a_row:
                    continue  # it measures every span, or was cut off
                self._in_a_row[name] = 0
                self._collectors[name] = NamedCollector(name, self._find, self._failures)
                if self._lane is None:
                    self._lane = SharedLane("collectors", self._failures)

    def watch(self) -> None:
        """Cut off a collector that does not return. Called now and then on the delivery thread."""
        for name in self._lane.overdue() if self._lane is not None else ():
            self._cut_off(name)
        if self._lane is not None:
            # Who waited for it was thrown out of the waiting, so that nobody else says that it hangs.
            self._lane.leave_after(MAX_WAIT_SECONDS + LATE_SECONDS)
            if self._lane.leave_blocked():
                self._failures.report("collectors", "left_behind", blocked_error())

    @property
    def workers(self) -> list[Worker]:
        """The threads to look after."""
        return [self._lane.worker] if self._lane is not None else []

    def close(self) -> None:
        """End the helper thread."""
        if self._lane is not None:
            self._lane.stop()

    def _measure(
        self,
        name: str,
        collector: Collector,
        batch: SpanBatch,
        lane: SharedLane,
        moves: Callable[[], None],
    ) -> SpanBatch:
        def work() -> SpanBatch:
            # Merged there too: what it returned may be an object with code of its own.
            return merged(batch, collector.collect(batch.copied()))

        turn = lane.call(name, work)
        seconds = min(max(LATE_SECONDS, SPAN_SECONDS * len(batch)), MAX_WAIT_SECONDS)
        if not _wait(turn, seconds, moves):
            if lane.withdraw(turn):
                raise NoTurnError
            # It may have got its turn late.
            if not _wait(turn, turn.began + seconds - running_seconds(), moves):
                lane.leave(name, turn)
                raise TimeoutError(f"no answer in {seconds:g} s")
        return turn.done.result(0)

    def _miss(self, name: str, batch: SpanBatch) -> None:
        with self._lock:
            self.missed[name] = self.missed.get(name, 0) + len(batch)

    def _failed(self, name: str, error: Exception) -> None:
        self._failures.report(name, "collect", error)
        self._in_a_row[name] += 1
        if self._in_a_row[name] >= CUT_OFF_AFTER:
            self._cut_off(name)

    def _cut_off(self, name: str) -> None:
        with self._lock:
            if self._collectors.pop(name, None) is not None:
                self.cut_off.append(name)
        if self._lane is not None:
            self._lane.late.pop(name, None)


def _wait(turn: Turn[Any], seconds: float, moves: Callable[[], None]) -> bool:
    """Wait until a call is done; False if it is not after *seconds* in which this process ran."""
    left = seconds
    while not turn.done.done() and left > 0:
        step, began = min(left, 1.0), time.monotonic()
        wait([turn.done], step)
        moves()
        if time.monotonic() - began <= step + MAX_STEP_SECONDS:
            left -= step  # else the process was stopped: it could not answer either
    return turn.done.done()


def merged(batch: SpanBatch, values: Any) -> SpanBatch:
    """Return the batch with a collector's *values*, or raise ``TypeError`` where they do not fit."""
    if isinstance(values, Mapping) and not values:
        return batch
    if isinstance(values, Mapping) and all(_is_column(*pair, batch) for pair in values.items()):
        return batch.with_columns({name: column.array for name, column in values.items()})
    return batch.with_rows(merge_values(batch.rows, values))


def _is_column(name: Any, column: Any, batch: SpanBatch) -> bool:
    """Whether a column can be taken as the array that it is."""
    return (
        type(column) is ArrowValues
        and len(column) == len(batch)
        and type(name) is str
        and _ARROW.get(_SETTABLE.get(name, ())) == str(column.array.type)
    )


def merge_values(rows: Sequence[Span], values: Any) -> list[Span]:
    """Return the rows with a collector's *values*, or raise ``TypeError`` where they do not fit."""
    if not isinstance(values, Mapping):
        raise TypeError(f"collect returned {type(values).__name__}, expected a mapping")
    changes: list[dict[str, Any]] = [{} for _ in rows]
    for name, column in values.items():
        if not isinstance(name, str):
            raise TypeError(f"a column is named {name!r}, expected a text")
        if isinstance(column, str) or len(column) != len(rows):
            raise TypeError(f"column {name!r} does not have {len(rows)} values")
        for change, row, value in zip(changes, rows, column, strict=True):
            if value is not None:
                _set(change, row, name, value)
    return [
        msgspec.structs.replace(row, **change) if change else row
        for row, change in zip(rows, changes, strict=True)
    ]


def _set(change: dict[str, Any], row: Span, name: str, value: Any) -> None:
    accepted = _SETTABLE.get(name)
    if accepted is not None:
        if type(value) not in accepted:
            raise TypeError(f"column {name!r} got {type(value).__name__}")
        change[name] = value
    elif name in Span.__struct_fields__:
        raise TypeError(f"column {name!r} cannot be set by a collector")
    elif type(value) in (int, float):
        numbers = change.get("measurements") or dict(row.measurements or {})
        change["measurements"] = {**numbers, name: float(value)}
    elif type(value) is str:
        texts = change.get("attributes") or dict(row.attributes or {})
        change["attributes"] = {**texts, name: value}
    else:
        raise TypeError(f"measurement {name!r} got {type(value).__name__}, expected number or text")
