"""Collectors that a decorated function names: they run for its spans, and for no others.

A name is that of a published collector (:class:`~llmops_core.CollectorRegistry`) or of any collector
that a plugin registers. Either is made when the first span names it, on the helper thread.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from llmops_core.batch import SpanBatch
from llmops_core.failures import Failures
from llmops_core.measuring.published import Live, let_go, registered, take_live
from llmops_core.measuring.request import COLLECTORS_KEY
from llmops_core.measuring.spans import columns_of
from llmops_core.span import Span

__all__ = ["NamedCollector", "all_names_in", "let_go_of_calls", "names_in"]

logger: Final = logging.getLogger("llmops")

MAX_KEPT: Final = 10_000
#: Published groups of a result: what is inside counts as if it stood outside.
GROUPS: Final = ("custom_attributes", "text_metrics", "image_metrics", "metrics", "attributes",
                 "measurements")  # fmt: skip


def names_in(row: Span) -> str | None:
    """Return the collectors that a span names, separated by commas; None if it names none."""
    return row.attributes.get(COLLECTORS_KEY) if row.attributes else None


def all_names_in(batch: SpanBatch) -> set[str]:
    """Return what :func:`names_in` returns of each span. Makes no rows: most batches name none."""
    given = (values for values in batch.values("attributes") if values)
    return {names for values in given if (names := values.get(COLLECTORS_KEY))}


def let_go_of_calls(batch: SpanBatch) -> None:
    """Forget the objects of a batch's calls: whoever was cut off or missed will not come for them."""
    values = zip(batch.values("span_id"), batch.values("attributes"), strict=True)
    let_go([span_id for span_id, given in values if given and COLLECTORS_KEY in given])


class NamedCollector:
    """Runs one collector for the spans that name it."""

    #: Tells the delivery that what runs in it is foreign code, for a helper thread.
    opened_later: Final = object()

    def __init__(self, name: str, find: Callable[[str], object | None], failures: Failures) -> None:
        self.name = name
        self._find = find
        self._failures = failures
        self._inner: Any = None
        self._told = False
        # A batch is measured for the exporters and once more for the storage.
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def collect(self, batch: SpanBatch) -> Mapping[str, Any]:
        """Return the collector's values for the spans that name it, None for the others."""
        mine = [row for row in batch.rows if self.name in (names_in(row) or "").split(",")]
        if not mine:
            return {}
        published = registered(self.name)
        values = self._of_spans(mine) if published is None else self._of_calls(published, mine)
        return columns_of([values.get(row.span_id, {}) for row in batch.rows])

    def _of_spans(self, rows: list[Span]) -> dict[str, dict[str, Any]]:
        if self._inner is None:
            self._inner = self._find(self.name)
        if self._inner is None:
            if not self._told:
                self._told = True
                logger.warning(
                    "collectors=[%r]: no collector of that name is registered, so it measures nothing. "
                    "Do: leave it out, or register one with CollectorRegistry or a plugin",
                    self.name,
                )
            raise LookupError(f"no collector {self.name!r} is registered")
        found: Mapping[str, Any] = self._inner.collect(SpanBatch(rows))
        return {
            row.span_id: {name: column[at] for name, column in found.items()}
            for at, row in enumerate(rows)
        }

    def _of_calls(self, collector: Any, rows: list[Span]) -> dict[str, dict[str, Any]]:
        failed = 0
        last: Exception | None = None
        for row in rows:
            if row.span_id in self._kept:
                continue
            live = take_live(row.span_id, self.name)
            if live is None:
                continue  # it failed, or another process recovered it
            try:
                self._keep(row.span_id, _measured(collector, row, live))
            except Exception as error:
                if last is not None:
                    self._failures.report(self.name, "collect", last)
                failed, last = failed + 1, error
        if last is not None:
            if failed == len(rows):
                raise last
            self._failures.report(self.name, "collect", last)
        return {row.span_id: self._kept.get(row.span_id, {}) for row in rows}

    def _keep(self, span_id: str, values: dict[str, Any]) -> None:
        self._kept[span_id] = values
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def _measured(collector: Any, row: Span, live: Live) -> dict[str, Any]:
    found = collector.collect(live.result, live.args, live.kwargs, _context(row))
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise TypeError(f"collect returned {type(found).__name__}, expected a mapping")
    values: dict[str, Any] = {}
    for name, value in found.items():
        inner = value.items() if name in GROUPS and isinstance(value, Mapping) else [(name, value)]
        for key, item in inner:
            if item is not None:
                values[_checked_name(key)] = _plain(key, item)
    return values


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a measure is named {name!r}, expected a text")
    if name in _UNSETTABLE:
        raise TypeError(f"column {name!r} cannot be set by a collector")
    return str(name)


_UNSETTABLE: Final = frozenset(
    {"span_id", "trace_id", "parent_id", "start_time", "end_time", "duration_ms", "input", "output"}
)


def _plain(name: str, value: object) -> float | int | str:
    """Return a number or a text; a flag is a text, and plain data is JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value - value != 0:
        raise TypeError(f"measure {name!r} is {value}")
    if type(value) in (int, float, str):
        return value  # type: ignore[return-value]
    try:
        return msgspec.json.encode(value).decode()
    except Exception:
        raise TypeError(
            f"measure {name!r} is a {type(value).__name__}, expected a number or a text"
        ) from None


def _context(row: Span) -> dict[str, Any]:
    return {
        "operation_name": row.name,
        "operation_type": row.kind,
        "span_id": row.span_id,
        "parent_span_id": row.parent_id,
        "trace_id": row.trace_id,
        "session_id": row.session_id,
        "duration_ms": row.duration_ms,
        "model": row.model,
        "custom_attributes": dict(row.attributes or {}),
    }
