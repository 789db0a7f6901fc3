"""The listener on CrewAI's public event bus: one for the process, which serves every monitor.

The bus calls it in a pool of ten threads, out of order, with the emitter's context variables; for
the pieces of a stream on the emitter's own thread. It reads fields, freezes content and puts one
tuple on a queue. Nothing is patched, and no event or object of CrewAI's is changed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Final

import crewai.events.types as event_types
from crewai.events import event_bus, event_context
from crewai.events.base_events import BaseEvent
from crewai.events.event_bus import crewai_event_bus
from crewai.events.event_context import get_current_parent_id

from llmops_core import Monitor, OpenRun, add_session_fields, enclosing_run
from llmops_integrations.crewai import reading
from llmops_integrations.crewai.breaking import Crews, Hooks
from llmops_integrations.crewai.translate import END, MARK, READERS, START, Reader
from llmops_integrations.crewai.translate_more import HIDDEN
from llmops_integrations.crewai.trees import KICKOFFS, CrewTrees

__all__ = [
    "BLOCK",
    "Block",
    "Book",
    "Bus",
    "Watch",
    "bus",
    "control_flow",
    "event_classes",
    "open_here",
    "open_run",
]

#: Streams whose first piece was seen, and runs that are not stored; the oldest are forgotten.
MAX_KEPT: Final = 10_000
_NS_PER_S: Final = 1_000_000_000


#: How a model call ends.
_CALL_ENDS: Final = ("llm_call_completed", "llm_call_failed")
FOREVER: Final = 1 << 63
#: How long what is detached is remembered for events that are still on their way.
_REMEMBERED_NS: Final = 60 * _NS_PER_S


class Block:
    """A ``with`` block around some runs: what they are told to belong to."""

    __slots__ = ("around", "identity", "refused")

    def __init__(self, identity: dict[str, Any]) -> None:
        self.identity = identity
        #: The event that was open where it was entered.
        self.around = get_current_parent_id()
        #: What a breaker refused in it.
        self.refused: BaseException | None = None


class Watch:
    """What one listener records: a crew, flow or agent by name, or everything (None).

    The bus calls its handlers later, so what was emitted before ``until`` counts even after it.
    """

    __slots__ = ("identity", "subject", "until")

    def __init__(self, subject: Any, identity: dict[str, Any]) -> None:
        self.subject = subject
        self.identity = identity
        self.until = FOREVER

    def is_for(self, source: Any) -> bool:
        """Whether a run of *source* is one of the subject's."""
        subject = self.subject
        if subject is None:
            return False
        if source is subject:
            return True
        # kickoff_for_each runs copies, which share nothing with the crew but what they do.
        key = _key(source) if type(source) is type(subject) else None
        return key is not None and bool(key == _key(subject))


#: The block that the emitter of an event runs in; CrewAI carries it into its threads.
BLOCK: Final[ContextVar[Block | None]] = ContextVar("llmops_crewai_block", default=None)

#: Tells whether an event is dispatched again when a checkpoint is restored; missing before 1.14.
_is_replaying: Final = getattr(event_bus, "is_replaying", bool)


class Book:
    """What is recorded into one monitor: which crews, or all, and the trees of their runs."""

    def __init__(self, monitor: Monitor) -> None:
        recorder = monitor.recorder
        trees = CrewTrees(
            recorder.freeze,
            lambda where, error: recorder.report(f"crewai {where}", error),
            recorder.skip,
        )
        self.base = recorder
        self.recorder = recorder.in_order(trees)
        #: What is recorded; replaced as a whole, so that handlers read it without a lock.
        self.watches: tuple[Watch, ...] = ()
        guard = getattr(recorder, "guard", None)
        #: What the crews used, where the monitor has breakers.
        self.crews = None if guard is None else Crews(self, guard)
        self._streams: dict[int, None] = {}
        self._hidden: dict[int, int | None] = {}
        #: The trace of each run whose start was seen.
        self._traces: dict[int, int | str] = {}

    @property
    def watching(self) -> bool:
        """Whether anything is recorded now."""
        return any(watch.until == FOREVER for watch in self.watches)

    @property
    def records_everything(self) -> bool:
        """Whether more than crews by name is recorded now."""
        return any(w.subject is None and w.until == FOREVER for w in self.watches)

    def records(self, crew: Any) -> bool:
        """Whether a model call that is made here, by an agent of *crew*, is recorded."""
        if self.records_everything:
            return True
        return self.watching and (
            BLOCK.get() is not None or any(w.is_for(crew) for w in self.watches)
        )

    @staticmethod
    def block_here() -> Block | None:
        """Return the ``with`` block that the caller runs in."""
        return BLOCK.get()

    def identity_here(self) -> dict[str, Any]:
        """Return the session, the user and the trace of a run that starts here."""
        block = BLOCK.get()
        fields = dict(block.identity) if block is not None else {}
        self.recorder.add_root_fields(fields)
        return fields

    def watch(self, subject: Any, identity: dict[str, Any]) -> Watch:
        """Record a subject from now on, or everything."""
        watch = Watch(subject, identity)
        old = time.time_ns() - _REMEMBERED_NS
        self.watches = (*(w for w in self.watches if w.until > old), watch)
        return watch

    def take(self, source: Any, event: Any, reader: Reader) -> None:
        """Record one event. On a thread of the bus's pool, or the emitter's; microseconds."""
        what = reader.what
        if what is MARK:
            self._take_piece(event)
            return
        recorder = self.recorder
        fields = reader.read(event, source, recorder.freeze)
        if fields is None:
            return
        fields["_type"] = event.type
        at = _nanoseconds(event.timestamp)
        watches = [watch for watch in self.watches if at <= watch.until]
        if any(watch.subject is None for watch in watches):
            fields["_all"] = True
        parent = reading.run_id_of(event.parent_event_id)
        if what is END:
            started = reading.run_id_of(event.started_event_id)
            if self.crews is not None and event.type in _CALL_ENDS:
                self.crews.told(started, fields)
            recorder.end(started or 0, parent, fields, at)
            return
        run_id = reading.run_id_of(event.event_id) or 0
        if what is START:
            self._identify(source, parent, fields, watches)
            self._place(run_id, event.parent_event_id, parent, fields)
            if HIDDEN in fields:
                _keep(self._hidden, run_id, parent)
            elif parent is not None and event.type in KICKOFFS:
                self._tell_outermost(event, watches, fields)
            recorder.start(run_id, parent, fields, at)
        else:
            recorder.point(run_id, parent, fields, at)

    def _take_piece(self, event: Any) -> None:
        """Note the first piece of a stream: when it came is all that is told."""
        call = reading.run_id_of(event.parent_event_id)
        if call is None or call in self._streams or not (event.chunk or event.tool_call):
            return
        _keep(self._streams, call, None)
        fields = {"_type": "llm_stream_chunk"}
        self.recorder.point(call, None, fields, _nanoseconds(event.timestamp))

    def _identify(
        self, source: Any, parent: int | None, fields: dict[str, Any], watches: list[Watch]
    ) -> None:
        """Tell whether a run is one that is recorded by name, and what it belongs to."""
        block = BLOCK.get()
        identity = next((w.identity for w in watches if w.is_for(source)), None)
        if identity is not None:
            fields["_subject"] = True
        if block is not None:
            fields["_block"] = block
            if identity is not None or parent is None:
                identity = {**(identity or {}), **block.identity}
        if parent is None and identity is None:
            identity = next((w.identity for w in watches if w.subject is None), None)
        if identity:
            for name, value in identity.items():
                fields.setdefault(name, value)

    def _place(
        self, run_id: int, parent_event_id: Any, parent: int | None, fields: dict[str, Any]
    ) -> None:
        """Tell what is nearer than the parent that CrewAI tells: of another framework, a function."""
        stored = self.stored(parent)
        own = None if stored is None else OpenRun(stored, self._traces.get(stored))
        around = enclosing_run(self.base, own, told_late=True, here=parent_event_id or None)
        trace = None if around is None else around.trace
        if around is not None and around is not own:
            fields["_nearer"] = around.run_id
            add_session_fields(fields)
        elif parent is None or "_subject" in fields:
            self.recorder.add_root_fields(fields)
            trace = fields.get("_trace_id") or run_id
        if trace is not None:
            _keep(self._traces, run_id, trace)

    def _tell_outermost(self, event: Any, watches: list[Watch], fields: dict[str, Any]) -> None:
        """Tell what a kickoff belongs to if what is around it is around our block too.

        Where nobody listened to that, the kickoff is a root.
        """
        block = BLOCK.get()
        if block is None or block.around != event.parent_event_id:
            return
        found = next((w.identity for w in watches if w.subject is None), {})
        fields["_as_root"] = {**found, **block.identity}
        self.recorder.add_root_fields(fields["_as_root"])

    def trace_of(self, run_id: int | None) -> int | str | None:
        """Return the trace of a run, or of the nearest run around the caller that is known."""
        if run_id in self._traces:
            return self._traces[run_id]
        open_here = getattr(event_context, "_event_id_stack", None)  # no public name tells them all
        stack = open_here.get() if open_here is not None else ()
        known = (self._traces.get(reading.run_id_of(event) or 0) for event, _ in reversed(stack))
        return next((trace for trace in known if trace is not None), None)

    def stored(self, run_id: int | None) -> int | None:
        """Return the run itself, or the one around it where it is not stored."""
        while run_id in self._hidden:
            run_id = self._hidden[run_id]
        return run_id


def _keep(table: dict[int, Any], key: int, value: Any) -> None:
    """Remember a value; forget the oldest if there are too many. Safe from any thread."""
    table[key] = value
    if len(table) > MAX_KEPT:
        with contextlib.suppress(RuntimeError, StopIteration):  # another thread was here first
            table.pop(next(iter(table)), None)


def _key(source: Any) -> Any:
    """Return what a crew and its copies have in common: their name, agents and tasks."""
    if type(source).__name__ != "Crew" or not type(source).__module__.startswith("crewai."):
        return None
    return source.name, source.key


def _nanoseconds(timestamp: Any) -> int:
    """Return nanoseconds since 1970, exactly: a float of seconds loses some hundred of them."""
    nanoseconds: int = int(timestamp.timestamp()) * _NS_PER_S + timestamp.microsecond * 1_000
    return nanoseconds


def event_classes() -> Iterator[type[BaseEvent]]:
    """Yield the classes of the events that are read, of this release of CrewAI.

    The bus knows exact classes only. Modules of events that need an extra are left out.
    """
    for module in pkgutil.iter_modules(event_types.__path__):
        try:
            importlib.import_module(f"{event_types.__name__}.{module.name}")
        except ImportError:
            continue
    pending: list[type[BaseEvent]] = [BaseEvent]
    while pending:
        for found in pending.pop().__subclasses__():
            pending.append(found)
            field = found.model_fields.get("type")
            if field is not None and field.default in READERS:
                yield found


class Bus:
    """The one listener of this process: which books there are, and the handlers on the bus."""

    def __init__(self) -> None:
        self.after_fork()
        self._classes: tuple[type[BaseEvent], ...] = ()
        self._readers: dict[type, Reader] = {}
        self._books: weakref.WeakKeyDictionary[Monitor, Book] = weakref.WeakKeyDictionary()
        self._listeners = 0
        #: Books as a tuple, replaced as a whole: the handlers read it without a lock.
        self._active: tuple[Book, ...] = ()
        self._hooks = Hooks(lambda: self._active, BLOCK.get)

    def after_fork(self) -> None:
        """Take a new lock, in a forked child: a thread of the parent's may have held the old one."""
        self._lock = threading.RLock()

    def book(self, monitor: Monitor) -> Book:
        """Return what is recorded into a monitor, from now on."""
        with self._lock:
            book = self._books.get(monitor)
            if book is None:
                self._find_classes()
                book = self._books[monitor] = Book(monitor)
                monitor.before_flush(self.deliver)
                self._active = tuple(self._books.values())
            return book

    def _find_classes(self) -> None:
        if self._classes:
            return
        self._classes = tuple(dict.fromkeys(event_classes()))
        self._readers = {c: READERS[c.model_fields["type"].default] for c in self._classes}

    def listen(self) -> None:
        """Put the handlers on the bus. Putting them there again changes nothing, and puts them back
        where ``scoped_handlers()`` took them off.
        """
        with self._lock:
            self._listeners += 1
            for cls in self._classes:
                crewai_event_bus.register_handler(cls, self.llmops_handle)
            self._hooks.place()

    def stop(self) -> None:
        """Take the handlers off the bus when nobody listens any more.

        What was emitted before is still handled: the bus has it in its pool.
        """
        with self._lock:
            self._listeners = max(0, self._listeners - 1)
            if self._listeners:
                return
            for cls in self._classes:
                crewai_event_bus.off(cls, self.llmops_handle)
            self._hooks.remove()

    @property
    def books(self) -> tuple[Book, ...]:
        """What is recorded, by monitor."""
        return self._active

    @property
    def listening(self) -> bool:
        """Whether the handlers are on the bus, as far as we know."""
        return self._listeners > 0

    def deliver(self, seconds: float) -> None:
        """Wait until the bus has called its handlers, for so long at most."""
        if threading.current_thread().name.startswith("CrewAI"):
            return  # a handler of the bus that flushes would wait for itself
        crewai_event_bus.flush(seconds)

    def llmops_handle(self, source: Any, event: Any) -> None:
        """Record an event into every monitor. Never blocks, never raises."""
        reader = self._readers.get(type(event))
        if reader is None or _is_replaying():
            return
        for book in self._active:
            try:
                book.take(source, event, reader)
            except (Exception, SystemExit) as error:
                book.recorder.report(f"crewai {event.type}", error)


bus: Final = Bus()
os.register_at_fork(after_in_child=bus.after_fork)


def open_here() -> str | None:
    """Return the id of the event that is open here, which tells a run; None if nobody listens."""
    return (get_current_parent_id() or None) if bus.listening else None


def open_run(recorder: object) -> OpenRun | None:
    """Return the stored run of CrewAI that is open here and recorded by *recorder*."""
    run_id = reading.run_id_of(open_here())
    if run_id is None:
        return None
    for book in bus.books:
        if book.base is recorder and book.watching:
            stored = book.stored(run_id)
            if stored is not None:
                return OpenRun(stored, book.trace_of(stored), told_late=True)
    return None


def control_flow(error: BaseException) -> dict[str, Any] | None:
    """CrewAI's pause for a human passes a decorated function as an exception."""
    if type(error).__name__ != "HumanFeedbackPending":
        return None
    return {"outcome": "interrupted"}
