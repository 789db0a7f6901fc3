"""Events: what the analysis of agents needs to know of a span, whoever recorded it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.span import Span

__all__ = ["COLUMNS", "Event", "events_from_arrow", "events_from_spans"]

#: The columns that the analysis of agents and handoffs reads.
COLUMNS: Final = (
    "span_id", "trace_id", "parent_id", "session_id", "kind", "name", "agent", "target_agent",
    "handoff_mechanism", "handoff_confirmed", "outcome", "attempt", "start_time", "end_time",
    "input_tokens", "output_tokens", "cost_usd",
)  # fmt: skip

_FAILED: Final = frozenset(("error", "failed", "cancelled"))


class Event(NamedTuple):
    """One span or message. Times are microseconds; a message has its place in the log as time."""

    event_id: str
    #: What is never mixed: a trace of ours, a session or log of others.
    partition: str
    session_id: str | None
    kind: str
    name: str
    span_id: str
    parent_id: str | None
    start: float
    end: float
    outcome: str = "ok"
    attempt: int | None = None
    #: The agent that a span is, where the source says so.
    agent: str | None = None
    target: str | None = None
    mechanism: str | None = None
    confirmed: bool | None = None
    tokens: int = 0
    cost_usd: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it ended in failure."""
        return self.outcome in _FAILED


def events_from_spans(spans: Iterable[Span]) -> list[Event]:
    """Return the events of spans."""
    return [_event(tuple(getattr(span, name) for name in COLUMNS)) for span in spans]


def events_from_arrow(table: pa.Table) -> list[Event]:
    """Return the events of a table of stored spans; columns that it lacks are null."""
    import pyarrow as pa

    columns: list[Sequence[Any]] = []
    for name in COLUMNS:
        if name not in table.column_names:
            columns.append([None] * table.num_rows)
            continue
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        columns.append(column.to_pylist())
    return [_event(row) for row in zip(*columns, strict=True)]


def _event(row: Sequence[Any]) -> Event:
    (
        span_id, trace_id, parent_id, session_id, kind, name, agent, target, mechanism, confirmed,
        outcome, attempt, start, end, input_tokens, output_tokens, cost,
    ) = row  # fmt: skip
    return Event(
        span_id, trace_id, session_id, kind, name, span_id, parent_id, start, end, outcome, attempt,
        agent, target, mechanism, confirmed, (input_tokens or 0) + (output_tokens or 0), cost or 0.0,
    )  # fmt: skip
