"""What runs now: the open decorated call, the session and the trace, kept in context variables.

Context variables follow ``await``, tasks, ``asyncio.gather``, ``asyncio.to_thread`` and the thread
pools of LangChain. They do not follow ``threading.Thread``, ``ThreadPoolExecutor.submit`` and
``loop.run_in_executor``: there a call starts a trace of its own, unless you hand the context on with
``contextvars.copy_context().run``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextvars import ContextVar, Token
from hashlib import blake2b
from random import Random
from time import time_ns
from types import TracebackType
from typing import Any, Final
from uuid import UUID

import msgspec

__all__ = [
    "ACTIVE",
    "SESSION",
    "TRACE",
    "ActiveCall",
    "add_root_fields",
    "enclosing_call",
    "error_readers",
    "follow_framework",
    "id_text",
    "monitoring_session",
    "monitoring_trace",
    "new_root_id",
    "new_run_id",
    "outer_runs",
    "trace_id_of",
]

#: Own generator: an application that seeds the global one must not repeat our ids.
_random: Final = Random()  # noqa: S311 - ids, not secrets
_bits: Final = _random.getrandbits
os.register_at_fork(after_in_child=_random.seed)

MAX_ID: Final = 256
#: Bits of a UUID of version 7 that are random, below its milliseconds; and those that are fixed.
_VERSION: Final = 7 << 76 | 2 << 62
_RANDOM: Final = ((1 << 80) - 1) & ~(0xF << 76 | 3 << 62)


class ActiveCall(msgspec.Struct, eq=False):
    """A decorated call that is open. A struct, as one is made on the caller's thread at each call."""

    run_id: int
    parent: int | None
    recorder: Any
    #: The framework's own run around it, if any.
    outer: int | None
    above: ActiveCall | None
    token: Token[ActiveCall | None] | None = None


ACTIVE: Final[ContextVar[ActiveCall | None]] = ContextVar("llmops_call", default=None)
#: Session and user of what starts now.
SESSION: Final[ContextVar[tuple[str, str | None] | None]] = ContextVar(
    "llmops_session", default=None
)
#: Id and name of the trace that roots join.
TRACE: Final[ContextVar[tuple[str, str | None] | None]] = ContextVar("llmops_trace", default=None)

OuterRun = Callable[[object], int | None]
ErrorFields = Callable[[BaseException], dict[str, Any] | None]
outer_runs: Final[list[OuterRun]] = []
error_readers: Final[list[ErrorFields]] = []


def follow_framework(outer_run: OuterRun, error_fields: ErrorFields) -> None:
    """Let decorated calls know of a framework. Called once, when its integration is imported.

    *outer_run* returns the run that the framework has open here and that the given recorder knows,
    so that a decorated call inside it is its child. *error_fields* returns the fields of an error
    that is the framework's control flow, else None. Both run on the caller's thread at each call.
    """
    outer_runs.append(outer_run)
    error_readers.append(error_fields)


def new_run_id() -> int:
    """Return a random run id."""
    return _bits(128)


def new_root_id() -> int:
    """Return a run id that is time-ordered, as a UUID of version 7: a root's is its trace's id."""
    return time_ns() // 1_000_000 << 80 | _bits(80) & _RANDOM | _VERSION


def enclosing_call(recorder: object, given: int | None) -> int | None:
    """Return the decorated call that is nearer than the framework's run *given*, else *given*.

    A call is nearer if the framework's run around it is the same: nothing of the framework started
    since. Called by handlers on the host's thread.
    """
    call = ACTIVE.get()
    while call is not None and not _same(call.recorder, recorder):
        call = call.above
    if call is not None and call.outer == given:
        return call.run_id
    return given


def _same(one: Any, other: Any) -> bool:
    """Whether two recorders are one monitor's: a call may be older than the default monitor."""
    return one is other or getattr(one.queue, "target", one) is other.queue


def add_root_fields(fields: dict[str, Any]) -> None:
    """Put the session and the trace that are set here into the fields of a root."""
    session = SESSION.get()
    if session is not None:
        if not fields.get("session_id"):
            fields["session_id"] = session[0]
        if session[1] is not None and not fields.get("user_id"):
            fields["user_id"] = session[1]
    trace = TRACE.get()
    if trace is not None and "_trace_id" not in fields:
        fields["_trace_id"] = trace[0]
        if trace[1] is not None:
            fields["attributes"] = {**(fields.get("attributes") or {}), "trace_name": trace[1]}


class _Scope:
    """A context manager, sync and async, around one context variable."""

    _variable: ContextVar[Any]

    def __init__(self, shown: str, value: Any) -> None:
        self._shown = shown
        self._value = value
        self._tokens: list[Any] = []

    def __enter__(self) -> str:
        self._tokens.append(self._variable.set(self._value))
        return self._shown

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An async generator may be left in another context than it was entered in.
        with contextlib.suppress(ValueError, IndexError):
            self._variable.reset(self._tokens.pop())

    async def __aenter__(self) -> str:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


class monitoring_session(_Scope):  # noqa: N801 - used as a function: ``with monitoring_session(...)``
    """Give everything that starts inside the block a session, and perhaps a user.

    Use it with ``with`` or ``async with``; it yields the session's id, a fresh one if none is given.
    A session that a framework is given itself (``metadata={"session_id": ...}``) comes first.
    """

    _variable = SESSION

    def __init__(self, session_id: object = None, *, user_id: object = None) -> None:
        shown = id_text(session_id) or f"{new_root_id():032x}"
        super().__init__(shown, (shown, id_text(user_id)))


class monitoring_trace(_Scope):  # noqa: N801 - used as a function: ``with monitoring_trace(...)``
    """Put the calls inside the block into one trace, although none of them is the others' parent.

    Use it with ``with`` or ``async with``; it yields the trace's id, 32 hex digits. A name gives
    the same trace within one session, today and in another process; without a name the trace is
    fresh.
    """

    _variable = TRACE

    def __init__(self, trace_name: object = None) -> None:
        self._name = id_text(trace_name)
        super().__init__("", None)

    def __enter__(self) -> str:
        trace_id = trace_id_of(self._name)
        self._shown, self._value = trace_id, (trace_id, self._name)
        return super().__enter__()


def trace_id_of(name: str | None, session_id: str | None = None) -> str:
    """Return the id of a named trace in a session, else in the one that is set here.

    Without a name it is fresh.
    """
    if name is None:
        return f"{new_root_id():032x}"
    if len(name) == 32 and all(c in "0123456789abcdef" for c in name):
        return name  # an id already: of another process, or of OpenTelemetry
    if session_id is None:
        session = SESSION.get()
        session_id = session[0] if session else ""
    key = f"{session_id}\0{name}".encode(errors="replace")
    return blake2b(key, digest_size=16).hexdigest()


def id_text(value: object) -> str | None:
    """Return an id as text. Plain values only: nothing here calls code of an unknown class."""
    if value is None or type(value) is str:
        return value[:MAX_ID] if value else None
    if str in type(value).__mro__:  # never isinstance: it asks the value itself
        return str.__str__(value)[:MAX_ID] or None
    if type(value) is int:
        return f"{value:x}"[:MAX_ID] if value.bit_length() > 1024 else str(value)
    if type(value) is UUID:  # not by its module's name: that is the user's to set
        return str(value)
    return f"<{type(value).__qualname__}>"
