"""The bounded queue between the host's threads and the intake thread.

``put`` never raises, and waits only where the policy is ``block``. When the queue is full, content is
shed first, then whole runs that are neither root nor in error; an end is never kept or dropped alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import Any, Final

from llmops_core.freeze.freezer import Frozen
from llmops_core.intake.room import Room
from llmops_core.intake.wakeup import WakeUp

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

#: What an event weighs beside its content: the tuple, the dict and short texts.
EVENT_BYTES: Final = 600
#: Runs refused by overload that are remembered, so that their ends and children are refused too.
MAX_REFUSED: Final = 100_000


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
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        # The last quarter is for events without content: a tree without texts is still a tree.
        self._shed_bytes = max_bytes * 3 // 4
        self._refused: dict[int, HostEvent] = {}
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
        self.dropped: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    @property
    def waiting(self) -> int:
        """Events that wait, without flush marks."""
        with self._lock:
            return sum(event[0] != CONTROL for event in self._items)

    @property
    def bytes(self) -> int:
        """Bytes that wait, by the weights of the events."""
        return self._bytes

    def put(self, event: HostEvent) -> None:
        """Append an event, or drop it and count why. Called on the host's thread."""
        if self._room is not None and self._crowded(event) and not self.closed:
            self._room.wait(lambda: self.closed or not self._crowded(event))
        with self._lock:
            self.received += 1
            if (
                self.closed
                or self._refused
                or len(self._items) >= self._max_events
                or self._bytes + event[6] > self._shed_bytes
            ):
                admitted = self._under_pressure(event)
                if admitted is None:
                    return
                event = admitted
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
            taken = [items.popleft() for _ in range(min(limit, len(items)))]
            self._bytes -= sum([event[6] for event in taken])
            if len(items) < self._max_events:
                self._ordinary = True
        if self._room is not None and taken:
            self._room.opened()
        return taken

    def _crowded(self, event: HostEvent) -> bool:
        """Whether an event would be refused or lose its content."""
        if not self._items:
            return False
        too_heavy = self._bytes + event[6] > self._shed_bytes
        return too_heavy or len(self._items) >= self._max_events

    def count_dropped(self, reason: str, count: int) -> None:
        """Count events that were dropped before they came here."""
        with self._lock:
            self.received += count
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def drop_rest(self, reason: str) -> None:
        """Drop every event that waits, and count them. For an exit that is out of time."""
        while events := self.take(1024):
            left = sum(event[0] != CONTROL for event in events)
            if left:
                self.dropped[reason] = self.dropped.get(reason, 0) + left

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _under_pressure(self, event: HostEvent) -> HostEvent | None:
        """Decide on one event while closed, full, or while refused runs are still open."""
        if self.closed:
            self._drop("closed")
            return None
        what, run_id, parent, *_ = event
        if what != START and run_id in self._refused:
            return self._end_of_refused(event)
        parent = self._known_parent(parent)
        if parent != event[2]:
            event = (what, run_id, parent, *event[3:])
        if self._bytes + event[6] > self._shed_bytes:
            event = self._without_content(event)
        full = len(self._items) >= self._max_events or self._bytes > self._max_bytes
        if not full or what == END:
            return event  # an end of an accepted run: its start is kept, so it is too
        # Roots may use half as much again: who loses a root loses the whole picture.
        if what == START and parent is None:
            if not self._roomy() and self._ordinary:
                self._give_up_ordinary()
            if self._roomy():
                return event
        if what == START and len(self._refused) < MAX_REFUSED:
            self._refused[run_id] = self._without_content(event, count=False)
        self._drop("overload")
        return None

    def _roomy(self) -> bool:
        return len(self._items) < self._max_events + self._max_events // 2

    def _give_up_ordinary(self) -> None:
        """Drop ordinary runs that wait here, so that no root is dropped while one of them does.

        A pass over the whole queue, but a rare one: the queue must first fill with roots anew.
        """
        items = self._items
        # In place, one turn: an event that a finalizer puts meanwhile on this thread stays too.
        for _ in range(len(items)):
            event = items.popleft()
            what, run_id, parent, *_ = event
            if what == CONTROL:
                items.append(event)
            elif run_id in self._refused:
                end = self._end_of_refused(event)
                if end is not None:
                    items.append(end)
            elif what == START and parent is not None and len(self._refused) < MAX_REFUSED:
                self._refused[run_id] = self._without_content(event, count=False)
                self._drop("overload")
            else:
                items.append((what, run_id, self._known_parent(parent), *event[3:]))
        self._bytes = sum(event[6] for event in items)
        self._ordinary = False

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
        if event[5].get("outcome") != "error":
            self._drop("overload")
            return None
        # The run was refused, and then it failed: errors are kept, with what its start said.
        event = self._without_content(event)
        fields = {**start[5], **event[5], "_start": (start[3], start[4])}
        return (END, event[1], self._known_parent(start[2]), event[3], event[4], fields, *event[6:])

    def _without_content(self, event: HostEvent, *, count: bool = True) -> HostEvent:
        fields = event[5]
        kept = dict(fields)
        for name in ("input", "output"):
            content = fields.get(name)
            if content is not None:
                kept[name] = Frozen(None, True, content.weight, 0)
        if count and any(n in fields for n in ("input", "output")):
            self.content_shed += 1
        return (*event[:5], kept, EVENT_BYTES, event[7])


class OffQueue(IntakeQueue):
    """The queue of a monitor that could not be set up: it counts and takes nothing."""

    def __init__(self) -> None:
        super().__init__(1, 1, lambda: None)

    def put(self, event: HostEvent) -> None:
        """Count an event that nobody records."""
        self.count_dropped("off", 1)
