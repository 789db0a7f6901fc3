"""Events of a framework that delivers them out of order: held briefly, and told in order of time.

CrewAI calls its listeners in a thread pool, so an end can overtake its start, and a second attempt
the first. Each event says when it happened. What is reported through an :class:`OrderedRecorder`
waits on the intake thread until nothing earlier can be on its way, and is then given, oldest first,
to a *teller*: code of the integration's own that keeps what it must remember of open runs without
locks, and tells the tracer what became of them. A flush lets everything out at once.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol

from llmops_core.freeze.freezer import Frozen
from llmops_core.intake.queue import END, EVENT_BYTES, MARK, POINT, START, HostEvent

if TYPE_CHECKING:
    from llmops_core.clock import Clock
    from llmops_core.intake.recorder import Recorder

__all__ = ["OrderedRecorder", "Ordering", "Tell", "Teller"]

_NS_PER_MS: Final = 1_000_000
#: How long an event waits for earlier ones. A pool that is busy delivers within some milliseconds,
#: on a machine that is overloaded within some hundred; what is later still is tolerated, so this
#: bounds only how well it is told.
HOLD_NS: Final = 1_000 * _NS_PER_MS
#: How far the two clocks may drift apart before the wall clock counts as having been set.
_STEP_NS: Final = 20 * _NS_PER_MS


class Tell:
    """What a teller tells the tracer. ``at`` is a monotonic reading; the event's own by default."""

    __slots__ = ("_feed", "mono", "wall")

    def __init__(self, feed: Callable[[HostEvent], None], mono: int, wall: int) -> None:
        self._feed = feed
        self.mono = mono
        self.wall = wall

    def start(
        self,
        run_id: int,
        parent_run_id: int | None,
        fields: dict[str, Any],
        *,
        promotable: bool = False,
        at: int | None = None,
    ) -> None:
        """Tell that a run started."""
        self._put(START, run_id, parent_run_id, fields, promotable, at)

    def end(
        self,
        run_id: int,
        parent_run_id: int | None,
        fields: dict[str, Any],
        *,
        at: int | None = None,
    ) -> None:
        """Tell that a run ended; kind and name again, as for a recorder."""
        self._put(END, run_id, parent_run_id, fields, False, at)

    def point(self, run_id: int, parent_run_id: int | None, fields: dict[str, Any]) -> None:
        """Tell of an event: a span of zero duration."""
        self._put(POINT, run_id, parent_run_id, fields, False, None)

    def mark(self, run_id: int) -> None:
        """Tell that a streaming run gave its first token."""
        self._put(MARK, run_id, None, {}, False, None)

    def _put(
        self,
        what: int,
        run_id: int,
        parent: int | None,
        fields: dict[str, Any],
        promotable: bool,
        at: int | None,
    ) -> None:
        mono = self.mono if at is None else at
        wall = self.wall - self.mono + mono
        self._feed((what, run_id, parent, mono, wall, fields, EVENT_BYTES, promotable))


class Teller(Protocol):
    """Hears the events of a framework in order of time, and tells the tracer what became of them.

    Called on the intake thread alone. It must not block, and runs no code but the integration's.
    """

    def __call__(
        self, run_id: int, parent_run_id: int | None, fields: dict[str, Any], tell: Tell, /
    ) -> None:
        """Take one event."""

    def settle(self, tell: Tell, *, closing: bool) -> None:
        """Tell what has waited too long for an event that may never come; all of it if *closing*.

        Called about once a second, at each flush and at the close, with the present time.
        """


class Ordering:
    """The events that wait, by time. Runs on the intake thread alone."""

    def __init__(self, feed: Callable[[HostEvent], None]) -> None:
        self._feed = feed
        self._heap: list[tuple[int, int, HostEvent]] = []
        self._numbers = count()
        #: Who was told anything: they may hold something back. One for each integration.
        self._tellers: dict[int, Teller] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def hold(self, event: HostEvent) -> None:
        """Keep an event until nothing earlier can be on its way."""
        heappush(self._heap, (event[3], next(self._numbers), event))

    def release(self, now_ns: int | None, report: Callable[[BaseException], None]) -> None:
        """Give what has waited long enough to its teller, oldest first; all of it without *now_ns*.

        What a teller raises is reported, and costs one event.
        """
        heap = self._heap
        while heap and (now_ns is None or now_ns - heap[0][0] >= HOLD_NS):
            event = heappop(heap)[2]
            teller = event[7]
            self._tellers[id(teller)] = teller
            try:
                teller(event[1], event[2], event[5], Tell(self._feed, event[3], event[4]))
            except Exception as error:  # a defect of ours
                report(error)

    def settle(
        self, clock: Clock, report: Callable[[BaseException], None], *, closing: bool
    ) -> None:
        """Let the tellers tell what they hold back: what has waited too long, or all of it."""
        for teller in self._tellers.values():
            try:
                tell = Tell(self._feed, clock.monotonic_ns(), clock.wall_ns())
                teller.settle(tell, closing=closing)
            except Exception as error:  # a defect of ours
                report(error)


class OrderedRecorder:
    """Takes events that come in any order and say when they happened. Safe from any thread.

    *teller* is given the run id, the parent's and the fields of each event in order of time, and a
    :class:`Tell`. Made by :meth:`~llmops_core.Recorder.in_order`.
    """

    def __init__(self, recorder: Recorder, teller: Teller) -> None:
        self._recorder = recorder
        self._teller = teller
        self.freeze = recorder.freeze
        self.report = recorder.report
        self.skip = recorder.skip
        #: Puts the session and the trace that are set here into a root's fields.
        self.add_root_fields = recorder.add_root_fields
        self._offset = recorder.wall() - recorder.monotonic()

    def start(
        self, run_id: int, parent_run_id: int | None, fields: dict[str, Any], at_ns: int
    ) -> None:
        """Record that a run started, at *at_ns* nanoseconds since 1970."""
        self._put(START, run_id, parent_run_id, fields, at_ns)

    def end(
        self, run_id: int, parent_run_id: int | None, fields: dict[str, Any], at_ns: int
    ) -> None:
        """Record that a run ended."""
        self._put(END, run_id, parent_run_id, fields, at_ns)

    def point(
        self, run_id: int, parent_run_id: int | None, fields: dict[str, Any], at_ns: int
    ) -> None:
        """Record anything else that the teller is to hear of in its turn."""
        self._put(POINT, run_id, parent_run_id, fields, at_ns)

    def _put(
        self, what: int, run_id: int, parent: int | None, fields: dict[str, Any], at_ns: int
    ) -> None:
        weight = EVENT_BYTES
        for name in ("input", "output"):
            content = fields.get(name)
            if type(content) is Frozen:
                weight += content.weight
        mono = self._monotonic_of(at_ns)
        self._recorder.queue.put((what, run_id, parent, mono, at_ns, fields, weight, self._teller))

    def _monotonic_of(self, at_ns: int) -> int:
        """Return the monotonic reading of a wall clock's: both clocks tick alike until one is set.

        A thread that is held up between the two readings sees them apart, so it looks twice.
        """
        recorder = self._recorder
        for _ in range(3):
            offset = recorder.wall() - recorder.monotonic()
            if abs(offset - self._offset) < _STEP_NS:
                break
        else:
            self._offset = offset
        return min(at_ns - self._offset, recorder.monotonic())
