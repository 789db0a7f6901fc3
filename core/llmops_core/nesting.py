"""Whose child a run is: the nearest run around it, of whichever framework, or a decorated call.

Nothing is attached in a callback. Each framework knows in its own context what it has open here;
decorated calls keep theirs in a context variable. Of several the nearest is wanted, and it is found
by what each saw when it started:

- A decorated call is nearer than a framework's run if that run was around it when it started, or
  around the reader of its generator when the step that is at work began. It goes on when
  that run has ended: where no run of a framework is open, it is the nearest.
- Frameworks that call their handlers at once (LangChain) note with each run what those that call
  theirs later (CrewAI, from a pool) had open then. The run is nearer than a run of the late one if
  that was the one it saw. The late one's own notes would come too late to be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, ContextVar, Token
from typing import Any, Final

import msgspec

__all__ = [
    "ACTIVE",
    "ActiveCall",
    "OpenRun",
    "active_call",
    "close",
    "enclosing_run",
    "error_readers",
    "follow_framework",
    "is_nested",
    "late_here",
    "leave",
    "nearest_here",
    "nearest_run",
    "outer_run",
]


class OpenRun(msgspec.Struct, eq=False):
    """A run that a framework has open. ``trace`` is its trace's id, as text or its root's run id.

    ``late``: what :func:`late_here` gave when it started. ``told_late``: its start is recorded
    later than what starts in it.
    """

    run_id: int
    trace: int | str | None = None
    late: object = None
    told_late: bool = False


class ActiveCall(msgspec.Struct, eq=False):
    """A decorated call that is open. A struct, as one is made on the caller's thread at each call."""

    run_id: int
    parent: int | None
    recorder: Any
    #: The framework's own run around it, if any.
    outer: int | None
    above: ActiveCall | None
    token: Token[ActiveCall | None] | None = None
    trace: int | str | None = None
    told_late: bool = False
    late_parent: bool = False
    #: The context of its generator's reader, during a step: it belongs to where it was made.
    reader: Context | None = None
    #: It was left in another context than it was entered in, where it seems to be open still.
    left: bool = False
    #: What it started may go on, and is still its child.
    ended: bool = False


ACTIVE: Final[ContextVar[ActiveCall | None]] = ContextVar("llmops_call", default=None)

FindRun = Callable[[object], OpenRun | None]
ErrorFields = Callable[[BaseException], dict[str, Any] | None]
Here = Callable[[], object]

_early: Final[list[FindRun]] = []
_late: Final[list[FindRun]] = []
_late_here: Final[list[Here]] = []
error_readers: Final[list[ErrorFields]] = []


def follow_framework(find: FindRun, error_fields: ErrorFields, here: Here | None = None) -> None:
    """Let runs of other frameworks, and decorated calls, know of a framework.

    Called once, when its integration is imported. *find* returns the run that the framework has
    open here and that the given recorder knows. *error_fields* returns the fields of an error that
    is the framework's control flow, else None. *here* is given where the framework tells of its
    runs later, from threads of its own: it returns what is open here by the framework's own name
    for it, None for nothing, and is never wrong about it. All run on the caller's thread.
    """
    if here is None:
        _early.append(find)
    else:
        _late.append(find)
        _late_here.append(here)
    error_readers.append(error_fields)


def is_nested() -> bool:
    """Whether anything but the framework that asks may be around the caller. Cheap."""
    return bool(_late_here) or ACTIVE.get() is not None


def late_here() -> object:
    """Return what a framework that tells its runs late has open here; None for nothing."""
    for here in _late_here:
        found = here()
        if found is not None:
            return found
    return None


def enclosing_run(
    recorder: object, given: OpenRun | None, *, told_late: bool = False, here: object = None
) -> OpenRun | ActiveCall | None:
    """Return the nearest run around one that starts; None if it is a root.

    Called by handlers, on the host's thread. *given* is its parent as its own framework knows it.
    A framework that tells late says so, and what it had open when the run started (*here*).
    """
    if told_late:
        early = _find(_early, recorder)
        nearest = early if early is not None and early.late == here else given
    else:
        nearest = _or_later(recorder, given)
    return nearest_here(recorder, nearest)


def nearest_here(recorder: object, outer: OpenRun | None) -> OpenRun | ActiveCall | None:
    """Return the decorated call that is nearer than the framework's run *outer*, else *outer*."""
    call = ACTIVE.get()
    while call is not None and (call.left or not _same(call.recorder, recorder)):
        call = call.above
    if outer is None or call is None:
        return outer if call is None else call
    return call if outer.run_id == call.outer or _is_readers(outer, call, recorder) else outer


def _is_readers(outer: OpenRun, call: ActiveCall, recorder: object) -> bool:
    """Whether a framework's run is around the reader of a call's generator."""
    reader = call.reader
    if reader is None:
        return False
    # A copy, as another thread that was started in the body may ask at this moment too.
    around = reader.copy().run(outer_run, recorder)
    return around is not None and around.run_id == outer.run_id


def nearest_run(recorder: object) -> OpenRun | ActiveCall | None:
    """Return the nearest run that is open here, of whichever framework, or a decorated call."""
    return nearest_here(recorder, outer_run(recorder))


def outer_run(recorder: object) -> OpenRun | None:
    """Return the nearest run of a framework that is open here."""
    if not _early and not _late:
        return None
    return _or_later(recorder, _find(_early, recorder))


def active_call() -> ActiveCall | None:
    """Return the call that is active here. One that was left elsewhere is nobody's parent."""
    call = ACTIVE.get()
    while call is not None and call.left:
        call = call.above
    return call


def close(call: ActiveCall) -> None:
    """Note that a call has ended, and let go of the ended ones above it.

    Its context lives on in what it started. A function that starts itself anew, as by a timer,
    would hold all its calls before. The ended call hides those of its recorder: nobody asks for
    them through it, unless it does not count itself.
    """
    call.ended = True
    above = call.above
    if not call.left:
        while above is not None and above.ended and _same(above.recorder, call.recorder):
            above = call.above = above.above


def leave(call: ActiveCall) -> None:
    """Make what was active before a call the active one again."""
    token, call.token, call.reader = call.token, None, None
    if token is not None:
        try:
            ACTIVE.reset(token)
        except ValueError:  # a coroutine that was closed in another context
            call.left = True


def _or_later(recorder: object, given: OpenRun | None) -> OpenRun | None:
    """Return *given*, or the run of a framework that tells late which started in it."""
    token = late_here()
    if token is not None and (given is None or given.late != token):
        return _find(_late, recorder) or given
    return given


def _find(finders: list[FindRun], recorder: object) -> OpenRun | None:
    for find in finders:
        found = find(recorder)
        if found is not None:
            return found
    return None


def _same(one: Any, other: Any) -> bool:
    """Whether two recorders are one monitor's: a call may be older than the default monitor."""
    return one is other or getattr(one.queue, "target", one) is other.queue
