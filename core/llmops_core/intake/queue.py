"""The bounded queue between the host's threads and the intake thread.

``put`` never raises, and waits only where the policy is ``block``. When the queue is full, content is
shed first, then whole runs that are neither root nor in error; an end is never kept or dropped alone.

A signal handler or a finalizer may put an event in the middle of anything here, on the thread that
holds the lock. Sums are therefore kept by additions without a call in them, which such an event cannot
spoil; and where more than that is decided, it waits for the decision that it interrupts.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from threading import RLock
from typing import Any, Final

from llmops_core.intake.room import Room
from llmops_core.intake.wakeup import WakeUp
from llmops_core.intake.weights import (
    EVENT_BYTES,
    weigh,
    without_content,
    without_long_texts,
)

__all__ = [
    "CONTROL",
    "END",
    "EVENT_BYTES",
    "HANDOFF",
    "MARK",
    "POINT",
    "PROMOTE",
    "START",
    "HostEvent",
    "IntakeQueue",
    "OffQueue",
]

START: Final = 0
END: Final = 1
MARK: Final = 2
POINT: Final = 3
HANDOFF: Final = 5  # a run asks for a handoff
PROMOTE: Final = 6  # a run turns out to be an agent
CONTROL: Final = 4  # a flush or a close on its way through; fields hold it, nothing counts it

#: ``(what, run id, parent run id, monotonic ns, wall ns, fields, weight in bytes, promotable)``;
#: last comes the teller instead, if the event is to be told in order of time (``ordering``).
HostEvent = tuple[int, int, int | None, int, int, dict[str, Any], int, Any]

#: Runs refused by overload that are remembered, so that their ends and children are refused too;
#: and for how long: a call that was cancelled may get no end. Past either the oldest is forgotten.
MAX_REFUSED: Final = 100_000
REFUSED_NS: Final = 600 * 1_000_000_000
#: While fewer events wait than would fill the queue with so many bytes each, their contents alone
#: are weighed, by whoever freezes them: looking for long texts in each field takes a microsecond.
UNWEIGHED_BYTES: Final = 256 * 1024


class IntakeQueue:
    """Events on their way to the intake thread, bounded by count and by bytes."""

    def __init__(
        self,
        max_events: int,
        max_bytes: int,
        wake: Callable[[], None],
        *,
        block_seconds: float = 0.0,
    ) -> None:
        # Re-entrant: a generator closed by the garbage collector, or a signal handler, may record
        # an event on a thread that is in the middle of a put.
        self._lock = RLock()
        self._items: deque[HostEvent] = deque()
        # Events under pressure, until it is decided on them: one at a time, also on one thread.
        self._undecided: deque[HostEvent] = deque()
        self._deciding = False
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        # The last quarter is for events without content: a tree without texts is still a tree.
        self._shed_bytes = max_bytes * 3 // 4
        self._unweighed = min(max_events, max_bytes // UNWEIGHED_BYTES)
        #: As many, and none while it is decided on an event: what interrupts that takes its turn.
        self._weighed_from = self._unweighed
        # Ordered by C: the first key of a plain dict is searched for among all that were deleted.
        self._refused: OrderedDict[int, HostEvent] = OrderedDict()
        self._refused_bytes = 0
        self._room = Room(block_seconds) if block_seconds > 0 else None
        #: Whether an ordinary run may wait here: none is admitted while the queue is full.
        self._ordinary = True
        self.wake = wake
        #: Set by the intake thread when it is about to wait: only then is a wake-up needed.
        self.idle = True
        self.closed = False
        self.urgent = WakeUp()
        self.received = 0
        self.content_shed = 0
        # Adds in one step: a look-up, a call and a store would lose what is counted in between.
        self.dropped: dict[str, int] = defaultdict(int)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def waiting(self) -> int:
        """Events that wait, without flush marks."""
        with self._lock:
            # Copied in one step: a finalizer may put an event, on this thread, while they are counted.
            events = [*self._items, *self._undecided]
        return sum(event[0] != CONTROL for event in events)

    @property
    def bytes(self) -> int:
        """Bytes that wait, by the weights of the events."""
        return self._bytes

    def put(self, event: HostEvent) -> None:
        """Append an event, or drop it and count why. Called on the host's thread."""
        if self._room is not None and self._crowded(event) and not self.closed:
            self._wait_for_room(self._room, event)
        with self._lock:
            self.received += 1
            if (
                self.closed
                or self._refused
                or len(self._items) >= self._weighed_from
                or self._bytes + event[6] > self._shed_bytes
            ):
                self._decide(event)
            else:
                self._items.append(event)
                self._bytes += event[6]
        if self.idle:
            # At once, and not when the thread has got the interpreter: until then, each event of a
            # busy host would wake it again. Before the wake-up, or a wait that follows is not seen.
            self.idle = False
            self.wake()

    def put_control(self, control: object) -> None:
        """Append a flush or close mark behind everything that was put before it."""
        with self._lock:
            self._items.append((CONTROL, 0, None, 0, 0, {"control": control}, 0, False))
        self.urgent.set()
        self.wake()

    def take(self, limit: int) -> list[HostEvent]:
        """Remove and return up to *limit* events. Called on the intake thread."""
        with self._lock:
            items = self._items
            taken: list[HostEvent] = []
            # Until it is empty, and not so many: an event that a finalizer puts meanwhile on this
            # thread may give up others.
            with contextlib.suppress(IndexError):
                for _ in range(limit):
                    taken.append(items.popleft())  # noqa: PERF401 - what is taken must not be lost
            freed = sum([event[6] for event in taken])
            self._bytes -= freed
            if not self._full():
                self._ordinary = True
        if self._room is not None and taken:
            self._room.opened()
        return taken

    def _crowded(self, event: HostEvent) -> bool:
        """Whether an event would be refused or lose its content."""
        if not self._items:
            return False
        too_heavy = self._held_bytes + event[6] > self._shed_bytes
        return too_heavy or len(self._items) >= self._max_events

    def count_dropped(self, reason: str, count: int) -> None:
        """Count events that were dropped before they came here."""
        with self._lock:
            self.received += count
            self.dropped[reason] += count

    def drop_rest(self, reason: str) -> None:
        """Drop every event that waits, and count them. For an exit that is out of time."""
        while events := self.take(1024):
            left = sum(event[0] != CONTROL for event in events)
            if left:
                with self._lock:
                    self.dropped[reason] += left

    @property
    def _held_bytes(self) -> int:
        return self._bytes + self._refused_bytes

    def _drop(self, reason: str) -> None:
        self.dropped[reason] += 1

    def _wait_for_room(self, room: Room, event: HostEvent) -> None:
        # Not if this thread holds the lock, and a finalizer or a signal handler puts the event: the
        # intake thread could take nothing meanwhile.
        if not self._lock._is_owned():  # type: ignore[attr-defined]
            room.wait(lambda: self.closed or not self._crowded(event))

    def _decide(self, event: HostEvent) -> None:
        """Append or drop an event under pressure, and then those that were put meanwhile.

        Only a finalizer or a signal handler of this thread can put them: it holds the lock.
        """
        undecided = self._undecided
        undecided.append(event)
        # Asked again at last: one may come when the inner loop has ended and the decision has not.
        while undecided and not self._deciding:
            self._deciding = True
            try:
                self._weighed_from = 0
                while undecided:
                    admitted = self._under_pressure(undecided.popleft())
                    if admitted is not None:
                        self._items.append(admitted)
                        self._bytes += admitted[6]
            finally:
                self._weighed_from = self._unweighed
                self._deciding = False

    def _under_pressure(self, event: HostEvent) -> HostEvent | None:
        """Decide on one event while closed, filling up, or while refused runs are still open."""
        if self.closed:
            self._drop("closed")
            return None
        what, run_id, parent, *_ = event
        if self._refused:
            if what != START and run_id in self._refused:
                end = self._end_of_refused(event)
                return None if end is None else self._error_of_refused(end)
            self._forget_refused(event[3])
            parent = self._known_parent(parent)
        weight = weigh(event[5])
        if parent != event[2] or weight != event[6]:
            event = (what, run_id, parent, *event[3:6], weight, event[7])
        held = self._bytes + self._refused_bytes
        if held + weight > self._shed_bytes:
            event = self._without_content(event)
        full = len(self._items) >= self._max_events or held > self._max_bytes
        return self._when_full(event) if full else event

    def _when_full(self, event: HostEvent) -> HostEvent | None:
        what, _, parent, *_ = event
        if what == END:
            return self._bare(event)  # of an accepted run: its start is kept, so it is too
        # Roots may use half as much again: who loses a root loses the whole picture.
        if what == START and parent is None:
            if not self._roomy() and self._ordinary:
                self._give_up_ordinary()
                self._forget_refused(event[3])
            if self._roomy():
                return self._bare(event)
        if what == START:
            self._refuse(event)
            self._forget_refused(event[3])
        self._drop("overload")
        return None

    def _bare(self, event: HostEvent) -> HostEvent:
        """Return what is kept of an event that is kept beyond all bytes."""
        if event[6] == EVENT_BYTES or self._held_bytes <= self._max_bytes:
            return event
        fields = without_long_texts(event[5])
        weight = weigh(fields)
        if weight < event[6] and not self._has_content(event):  # else it is counted already
            self.content_shed += 1
        return (*event[:5], fields, weight, event[7])

    def _error_of_refused(self, end: HostEvent) -> HostEvent | None:
        """Keep the end of a refused run that failed, if need be in place of ordinary runs.

        No start of it waits that would bound how many such ends there are: where everything fails,
        that is all runs. So they have half as many bytes again, and no more.
        """
        most = self._max_bytes + self._max_bytes // 2
        if self._held_bytes + end[6] > most and self._ordinary:
            self._give_up_ordinary()
            # Its parent may have waited there. Asked before any of them is forgotten.
            end = (*end[:2], self._known_parent(end[2]), *end[3:])
            self._forget_refused(end[3])
        if self._held_bytes + end[6] > most:
            self._drop("overload")
            return None
        return end

    def _full(self) -> bool:
        """Whether no ordinary run is admitted, whatever becomes of the refused ones."""
        return len(self._items) >= self._max_events or self._bytes > self._max_bytes

    def _roomy(self) -> bool:
        return len(self._items) < self._max_events + self._max_events // 2

    def _refuse(self, start: HostEvent) -> None:
        """Remember a run that is dropped, until its end."""
        start = self._without_content(start, count=False)
        before = self._refused.pop(start[1], None)
        self._refused[start[1]] = start
        self._refused_bytes += start[6] - (before[6] if before is not None else 0)

    def _forget_refused(self, now_ns: int) -> None:
        """Forget the oldest refused runs, beyond what may be remembered.

        They may have half of the bytes, which are as many events as the queue takes by default.
        """
        refused, most = self._refused, self._max_bytes // 2
        while refused:
            oldest = next(iter(refused.values()))
            fits = len(refused) <= MAX_REFUSED and self._refused_bytes <= most
            if fits and now_ns - oldest[3] < REFUSED_NS:
                return
            del refused[oldest[1]]
            self._refused_bytes -= oldest[6]

    def _give_up_ordinary(self) -> None:
        """Drop ordinary runs and events that wait: no root or error is dropped while one does.

        A pass over the whole queue, but a rare one: it must first fill with those anew. None of the
        runs is forgotten yet, whatever they weigh: their ends may wait behind them.
        """
        items = self._items
        for _ in range(len(items)):  # in place, one turn
            event = items.popleft()
            self._bytes -= event[6]
            kept = self._unless_ordinary(event)
            if kept is not None:
                items.append(kept)
                self._bytes += kept[6]
        self._ordinary = not self._full()  # else they come in at once, and nothing need be taken

    def _unless_ordinary(self, event: HostEvent) -> HostEvent | None:
        """Return what stays of an event that waits; None for an ordinary one."""
        what, run_id, parent, *_ = event
        if what == CONTROL:
            return event
        if run_id in self._refused:
            return self._end_of_refused(event)
        if what == START and parent is not None:
            self._refuse(event)
            self._drop("overload")
            return None
        if what == POINT:
            self._drop("overload")
            return None
        return (what, run_id, self._known_parent(parent), *event[3:])

    def blocked(self) -> dict[str, float]:
        """Return how many calls waited for room, and how long in all."""
        room = self._room
        calls, seconds = (0, 0.0) if room is None else (room.waits, room.waited_seconds)
        return {"calls": calls, "ms": round(seconds * 1000, 3)}

    def _known_parent(self, parent: int | None) -> int | None:
        seen = 0
        while parent is not None and parent in self._refused and seen < 1000:
            parent = self._refused[parent][2]
            seen += 1
        return parent

    def _end_of_refused(self, event: HostEvent) -> HostEvent | None:
        if event[0] != END:
            self._drop("overload")
            return None
        start = self._refused.pop(event[1])
        self._refused_bytes -= start[6]
        if event[5].get("outcome") != "error":
            self._drop("overload")
            return None
        # The run was refused, and then it failed: errors are kept, with what its start said.
        fields = {**start[5], **event[5], "_start": (start[3], start[4])}
        parent = self._known_parent(start[2])
        end = (END, event[1], parent, event[3], event[4], fields, weigh(fields), event[7])
        return self._bare(self._without_content(end))  # as a whole: the start has long texts too

    def _without_content(self, event: HostEvent, *, count: bool = True) -> HostEvent:
        if count and self._has_content(event):
            self.content_shed += 1
        fields = without_content(event[5])
        return (*event[:5], fields, weigh(fields), event[7])

    @staticmethod
    def _has_content(event: HostEvent) -> bool:
        return "input" in event[5] or "output" in event[5]


class OffQueue(IntakeQueue):
    """The queue of a monitor that could not be set up: it counts and takes nothing."""

    def __init__(self) -> None:
        super().__init__(1, 1, lambda: None)

    def put(self, event: HostEvent) -> None:
        """Count an event that nobody records."""
        self.count_dropped("off", 1)
