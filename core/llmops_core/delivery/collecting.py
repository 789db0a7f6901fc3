"""Runs the collectors over a batch, each isolated, and merges what they measured into new rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from llmops_core.batch import SpanBatch
from llmops_core.delivery.lane import Lane
from llmops_core.failures import Failures
from llmops_core.protocols import Collector
from llmops_core.schema import COLUMNS
from llmops_core.span import Span

__all__ = ["CUT_OFF_AFTER", "Collecting", "merge_values"]

DEADLINE_SECONDS: Final = 10.0
#: Failures in a row after which a plugin is switched off.
CUT_OFF_AFTER: Final = 5

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


class Collecting:
    """The collectors of one monitor, in order. Called on the delivery thread."""

    def __init__(self, collectors: Mapping[str, Collector], failures: Failures) -> None:
        self._collectors = dict(collectors)
        self._failures = failures
        self._in_a_row: dict[str, int] = dict.fromkeys(collectors, 0)
        self._lane = Lane("collectors")
        self.cut_off: list[str] = []

    def collect(self, batch: SpanBatch) -> SpanBatch:
        """Return the batch with measured values; a collector that fails costs only its own."""
        for name, collector in list(self._collectors.items()):
            try:
                values = self._run(name, collector, batch)
                rows = merge_values(batch.rows, values)
            except Exception as error:
                self._failed(name, error)
                continue
            self._in_a_row[name] = 0
            batch = batch.with_rows(rows)
        return batch

    def close(self) -> None:
        """End the helper thread."""
        self._lane.stop()

    def _run(self, name: str, collector: Collector, batch: SpanBatch) -> Any:
        try:
            return self._lane.call(collector.collect, batch, timeout=DEADLINE_SECONDS)
        except TimeoutError:
            self._in_a_row[name] = CUT_OFF_AFTER  # the thread is lost to it: never again
            self._lane.stop()
            self._lane = Lane("collectors")
            raise

    def _failed(self, name: str, error: Exception) -> None:
        self._failures.report(name, "collect", error)
        self._in_a_row[name] += 1
        if self._in_a_row[name] >= CUT_OFF_AFTER and self._collectors.pop(name, None) is not None:
            self.cut_off.append(name)


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
