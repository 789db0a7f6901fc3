"""The session and the trace that are set here, kept in context variables; and ids.

Context variables follow ``await``, tasks, ``asyncio.gather``, ``asyncio.to_thread`` and the thread
pools of LangChain. They do not follow ``threading.Thread``, ``ThreadPoolExecutor.submit`` and
``loop.run_in_executor``: there a call starts a trace of its own, unless :func:`~llmops_core.carry`
hands the context on.
"""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar, Token
from hashlib import blake2b
from random import Random
from time import time_ns
from types import FrameType, TracebackType
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from llmops_core.trace_context import Remote, ambient_span, parse_traceparent

__all__ = [
    "REMOTE_PARENT",
    "Joined",
    "add_root_fields",
    "add_session_fields",
    "id_text",
    "monitoring_session",
    "monitoring_trace",
    "new_root_id",
    "new_run_id",
    "session_here",
    "trace_here",
    "trace_id_of",
]

#: Own generator: an application that seeds the global one must not repeat our ids.
_random: Final = Random()  # noqa: S311 - ids, not secrets
_bits: Final = _random.getrandbits
os.register_at_fork(after_in_child=_random.seed)

MAX_ID: Final = 256
#: The attribute of a span whose parent is a span of another process or library.
REMOTE_PARENT: Final = "llmops.remote_parent"
#: Bits of a UUID of version 7 that are random, below its milliseconds; and those that are fixed.
_VERSION: Final = 7 << 76 | 2 << 62
_RANDOM: Final = ((1 << 80) - 1) & ~(0xF << 76 | 3 << 62)
#: What ``type`` itself keeps: a metaclass has no say in it.
_mro_of: Final = vars(type)["__mro__"].__get__
_qualname_of: Final = vars(type)["__qualname__"].__get__


class Joined(NamedTuple):
    """The trace that roots join: its id, its name, and the span of elsewhere that is their parent."""

    trace_id: str
    name: str | None = None
    remote: Remote | None = None


class _Held(msgspec.Struct, eq=False):
    """What a block has set. ``left``: the block was left in another context, so that the variable
    could not be set back: its value does not count any more.
    """

    value: Any
    above: _Held | None
    left: bool = False


#: Session and user of what starts now; the trace that roots join.
_SESSION: Final[ContextVar[_Held | None]] = ContextVar("llmops_session", default=None)
_TRACE: Final[ContextVar[_Held | None]] = ContextVar("llmops_trace", default=None)


def _value_of(variable: ContextVar[_Held | None]) -> Any:
    held = _counted(variable.get())
    return held.value if held is not None else None


def _counted(held: _Held | None) -> _Held | None:
    while held is not None and held.left:
        held = held.above
    return held


def session_here() -> tuple[str, str | None] | None:
    """Return the session and the user that are set here."""
    found: tuple[str, str | None] | None = _value_of(_SESSION)
    return found


def trace_here() -> Joined | None:
    """Return the trace that roots here join."""
    found: Joined | None = _value_of(_TRACE)
    return found


def new_run_id() -> int:
    """Return a random run id."""
    return _bits(128)


def new_root_id() -> int:
    """Return a run id that is time-ordered, as a UUID of version 7: a root's is its trace's id."""
    return time_ns() // 1_000_000 << 80 | _bits(80) & _RANDOM | _VERSION


def add_session_fields(fields: dict[str, Any]) -> None:
    """Put the session that is set here into the fields of a run that has none of its own."""
    session = session_here()
    if session is not None:
        if not fields.get("session_id"):
            fields["session_id"] = session[0]
        if session[1] is not None and not fields.get("user_id"):
            fields["user_id"] = session[1]


def add_root_fields(fields: dict[str, Any], *, ambient: bool = False) -> str | None:
    """Put the session and the trace that are set here into the fields of a root.

    *ambient*: OpenTelemetry's span around it is the parent where nothing else is. Returns the id of
    the trace that it joins; None for one of its own.
    """
    if _SESSION.get() is not None:
        add_session_fields(fields)
    if "_trace_id" not in fields:
        if _TRACE.get() is None and not ambient:
            return None
        _join(fields, ambient=ambient)
    trace: str | None = fields.get("_trace_id")
    return trace


def _join(fields: dict[str, Any], *, ambient: bool) -> None:
    joined = trace_here()
    if joined is None and ambient:
        remote = ambient_span()
        joined = Joined(remote.trace_id, None, remote) if remote is not None else None
    if joined is None:
        return
    fields["_trace_id"] = joined.trace_id
    told: dict[str, str] = {}
    if joined.name is not None:
        told["trace_name"] = joined.name
    if joined.remote is not None:
        fields["_remote_parent"] = joined.remote.span_id
        told[REMOTE_PARENT] = "true"
    if told:
        fields["attributes"] = {**(fields.get("attributes") or {}), **told}


#: The ids of the frame of a block and of its code; and what a block has entered.
_Block = tuple[int, int]
_Entry = tuple[_Held, Token[_Held | None], _Block]


class _Scope:
    """A context manager, sync and async, around one context variable."""

    _variable: ContextVar[_Held | None]

    def __init__(self, shown: str, value: Any) -> None:
        self._shown = shown
        self._value = value
        self._entered: list[_Entry] = []

    def __enter__(self) -> str:
        return self._enter(_block_in(sys._getframe().f_back))

    def _enter(self, block: _Block) -> str:
        held = _Held(self._value, _counted(self._variable.get()))
        self._entered.append((held, self._variable.set(held), block))
        return self._shown

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit(_block_in(sys._getframe().f_back))

    def _exit(self, block: _Block) -> None:
        entry = self._entry_of(block)
        if entry is None:
            return
        self._entered.remove(entry)
        held, token, _ = entry
        here = self._variable.get()
        if any(other is here for other, _, _ in self._entered.copy()):
            held.left = True  # another block of this object's is open here: it stays in force
            return
        try:
            self._variable.reset(token)
        except ValueError:  # an async generator that is closed in another context
            held.left = True
        else:
            # It counts for good in what was started inside: those above are not asked for again,
            # and in a function that starts itself anew, as by a timer, they would never end.
            held.above = None

    def _entry_of(self, block: _Block) -> _Entry | None:
        """Return what a block entered; None if that may be any of several.

        One object may be entered by several tasks at once, and a generator be closed by a task that
        is in a block of its own: each leaves what it entered itself. An ``ExitStack`` leaves from
        another function than it enters from, so there what is set here decides.
        """
        entered = self._entered.copy()  # other threads enter and leave it too
        mine = [entry for entry in entered if entry[2] == block]
        if not mine:
            here = self._variable.get()
            mine = [entry for entry in entered if entry[0] is here]
        if not mine and len(entered) == 1:
            mine = entered
        return mine[-1] if mine else None

    async def __aenter__(self) -> str:
        return self._enter(_block_in(sys._getframe().f_back))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exit(_block_in(sys._getframe().f_back))


def _block_in(frame: FrameType | None) -> _Block:
    """Return what tells a ``with`` block that runs from all others; it keeps nothing alive."""
    return (id(frame), id(frame.f_code)) if frame is not None else (0, 0)


class monitoring_session(_Scope):  # noqa: N801 - used as a function: ``with monitoring_session(...)``
    """Give everything that starts inside the block a session, and perhaps a user.

    Use it with ``with`` or ``async with``; it yields the session's id, a fresh one if none is given.
    A session that a framework is given itself (``metadata={"session_id": ...}``) comes first.
    """

    _variable = _SESSION

    def __init__(self, session_id: object = None, *, user_id: object = None) -> None:
        shown = id_text(session_id) or f"{new_root_id():032x}"
        super().__init__(shown, (shown, id_text(user_id)))


class monitoring_trace(_Scope):  # noqa: N801 - used as a function: ``with monitoring_trace(...)``
    """Put the calls inside the block into one trace, although none of them is the others' parent.

    Use it with ``with`` or ``async with``; it yields the trace's id, 32 hex digits. A name gives
    the same trace within one session, today and in another process; without a name the trace is
    fresh.

    *traceparent* is the W3C header of a request: the calls join its trace, as children of its span.
    What is no such header, None included, counts as none.
    """

    _variable = _TRACE

    def __init__(self, trace_name: object = None, *, traceparent: object = None) -> None:
        self._name = id_text(trace_name)
        self._remote = parse_traceparent(traceparent)
        super().__init__("", None)

    def _enter(self, block: _Block) -> str:
        remote = self._remote
        trace_id = trace_id_of(self._name) if remote is None else remote.trace_id
        self._shown, self._value = trace_id, Joined(trace_id, self._name, remote)
        return super()._enter(block)


def trace_id_of(name: str | None, session_id: str | None = None) -> str:
    """Return the id of a named trace in a session, else in the one that is set here.

    Without a name it is fresh.
    """
    if name is None:
        return f"{new_root_id():032x}"
    if len(name) == 32 and all(c in "0123456789abcdef" for c in name):
        return name  # an id already: of another process, or of OpenTelemetry
    if session_id is None:
        session = session_here()
        session_id = session[0] if session else ""
    key = f"{session_id}\0{name}".encode(errors="replace")
    return blake2b(key, digest_size=16).hexdigest()


def id_text(value: object) -> str | None:
    """Return an id as text. Plain values only: nothing here calls code of an unknown class."""
    if value is None or type(value) is str:
        return value[:MAX_ID] if value else None
    if any(base is str for base in _mro_of(type(value))):  # isinstance asks the value, == its class
        return str.__str__(value)[:MAX_ID] or None
    if type(value) is int:
        return f"{value:x}"[:MAX_ID] if value.bit_length() > 1024 else str(value)
    if type(value) is UUID:  # not by its module's name: that is the user's to set
        return str(value)
    return f"<{str.__str__(_qualname_of(type(value)))}>"
