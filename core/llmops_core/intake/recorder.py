"""The host's side: take a start or an end on the caller's thread, and hand it over.

A framework handler calls a :class:`Recorder`. Nothing here blocks, raises, or runs foreign code;
one call is one bounded copy and one append.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from llmops_core.clock import Clock
from llmops_core.context import add_root_fields
from llmops_core.failures import Failures
from llmops_core.freeze.freezer import Freezer, Frozen
from llmops_core.intake.ordering import OrderedRecorder, Teller
from llmops_core.intake.queue import (
    END,
    EVENT_BYTES,
    HANDOFF,
    MARK,
    POINT,
    PROMOTE,
    START,
    IntakeQueue,
)

__all__ = ["Recorder"]


class Recorder:
    """Takes lifecycle events from handlers. Safe from any thread and any event loop.

    ``run_id`` and ``parent_run_id`` are 128-bit integers (``uuid.UUID.int``). ``fields`` are keyed
    by the columns of :class:`~llmops_core.Span`; ``input`` and ``output`` hold what
    :meth:`freeze` returned. The dict is handed over: do not change it afterwards.
    """

    #: Whether :meth:`start` and :meth:`check` raise ``BreakerTripped``: only where breakers are set.
    stops = False

    def __init__(
        self,
        queue: IntakeQueue,
        freezer: Freezer,
        clock: Clock,
        failures: Failures,
        *,
        join_opentelemetry: bool = False,
    ) -> None:
        self.queue = queue
        self.freeze: Callable[[object], Frozen] = freezer.freeze
        self._monotonic = self.monotonic = clock.monotonic_ns
        self._wall = self.wall = clock.wall_ns
        self._failures = failures
        self._join_opentelemetry = join_opentelemetry
        # next() on a counter is atomic, and cheaper than a lock.
        self._skips = count(1)
        self._skipped = 0

    @property
    def skipped(self) -> int:
        """Runs that the span mapping does not store."""
        return self._skipped

    def start(
        self,
        run_id: int,
        parent_run_id: int | None,
        fields: dict[str, Any],
        promotable: bool = False,
    ) -> str | None:
        """Record that a run starts. ``promotable``: a task becomes an agent when it calls a model.

        Returns the id of the trace that a root joins; None for a child, and for a trace of its own.
        """
        trace: str | None = None
        if parent_run_id is None:
            trace = add_root_fields(fields, ambient=self._join_opentelemetry)
        content = fields.get("input")
        weight = EVENT_BYTES + content.weight if type(content) is Frozen else EVENT_BYTES
        self.queue.put(
            (
                START,
                run_id,
                parent_run_id,
                self._monotonic(),
                self._wall(),
                fields,
                weight,
                promotable,
            )
        )
        return trace

    def add_root_fields(self, fields: dict[str, Any]) -> str | None:
        """Put session and trace of here into a root's fields; return the trace that it joins."""
        return add_root_fields(fields, ambient=self._join_opentelemetry)

    def end(self, run_id: int, parent_run_id: int | None, fields: dict[str, Any]) -> None:
        """Record that a run ends. Give kind and name again: its start may never have been seen."""
        weight = EVENT_BYTES
        if "output" in fields:
            content = fields["output"]
            weight += content.weight if type(content) is Frozen else 0
        if "input" in fields:  # LangChain tells that of a streamed chain when it ends
            content = fields["input"]
            weight += content.weight if type(content) is Frozen else 0
        self.queue.put(
            (END, run_id, parent_run_id, self._monotonic(), self._wall(), fields, weight, False)
        )

    def mark(self, run_id: int) -> None:
        """Record that a streaming run gave its first token."""
        self.queue.put((MARK, run_id, None, self._monotonic(), 0, {}, EVENT_BYTES, False))

    def check(self, run_id: int) -> None:
        """Stop a run that streams and has had its time. Worth a call only where ``stops`` is true."""

    def point(self, run_id: int, parent_run_id: int | None, fields: dict[str, Any]) -> None:
        """Record an event: a span of zero duration. ``run_id`` is a fresh random id."""
        content = fields.get("input")
        weight = EVENT_BYTES + content.weight if type(content) is Frozen else EVENT_BYTES
        self.queue.put(
            (POINT, run_id, parent_run_id, self._monotonic(), self._wall(), fields, weight, False)
        )

    def handoff(self, run_id: int, fields: dict[str, Any]) -> None:
        """Record that the agent at work in a run asks another one to take over.

        ``fields``: ``target_agent`` and ``handoff_mechanism``; ``input``, what it passes along;
        ``tool_call_id`` where a tool asks. The target's start confirms it.
        """
        content = fields.get("input")
        weight = EVENT_BYTES + content.weight if type(content) is Frozen else EVENT_BYTES
        self.queue.put((HANDOFF, run_id, None, self._monotonic(), 0, fields, weight, False))

    def promote(self, run_id: int) -> None:
        """Record that a run that is open turns out to be an agent's."""
        self.queue.put((PROMOTE, run_id, None, self._monotonic(), 0, {}, EVENT_BYTES, False))

    def in_order(self, teller: Teller) -> OrderedRecorder:
        """Return a recorder for a framework whose events come out of order, and say their time."""
        return OrderedRecorder(self, teller)

    def skip(self) -> None:
        """Count a run that the span mapping does not store."""
        self._skipped = next(self._skips)

    def report(self, where: str, error: BaseException) -> None:
        """Count a failure of a handler; the first of its sort is logged."""
        self._failures.report("handler", where, error)
