"""Breakers in crews: CrewAI swallows what a listener raises, so its hooks around model calls are used.

They run on the thread that calls the model, before and after each call that an agent makes, and are
there only while somebody listens whose monitor has breakers. What a crew used is counted by its
outermost run; tokens are told by the bus, a moment after the call.

A hook refuses a call by returning False, and CrewAI raises an error of its own then; the ``with``
block around the crew turns it into ours. CrewAI's HookAborted would bring ours through at once, but
leaves its event scope behind (1.15.30): what ran next on that thread would hang below the dead crew.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from crewai.events import event_context
from crewai.hooks import (
    register_after_llm_call_hook,
    register_before_llm_call_hook,
    unregister_after_llm_call_hook,
    unregister_before_llm_call_hook,
)

from llmops_core import BreakerTripped, describe_error, enclosing_run
from llmops_integrations.crewai import reading

if TYPE_CHECKING:
    from llmops_core.intake.guard import Tally
    from llmops_integrations.crewai.listener import Book

__all__ = ["Crews", "Hooks", "blocked"]

#: Runs of crews that are counted at once, by monitor; past it the oldest is forgotten.
MAX_CREWS: Final = 10_000
#: How long a call waits for the bus to tell the tokens of the one before it.
TOLD_SECONDS: Final = 0.25
_log: Final = logging.getLogger("llmops")


class _Crew:
    """One outermost run, and how many of its calls have returned and were told."""

    __slots__ = ("block", "deaf", "returned", "tally", "told")

    def __init__(self, tally: Tally, block: object) -> None:
        self.tally = tally
        self.block = block  # held, as its id is part of a key
        self.returned = self.told = 0
        #: A model that tells nothing of its calls is not waited for again.
        self.deaf = False


class Crews:
    """What the crews of one monitor used. Safe from any thread: each step is one of a dict."""

    def __init__(self, book: Book, guard: Any) -> None:
        self._book = book
        self.guard = guard
        self._crews: dict[tuple[int, int], _Crew] = {}
        guard.elsewhere.append(self.tally_here)

    def tally_here(self) -> Tally | None:
        """Return what counts for what starts here inside a crew; None outside of any."""
        root = _root_here() if self._book.watching else None
        return None if root is None else self._crew(root).tally

    def before(self, context: Any) -> BreakerTripped | None:
        """Count a model call; returns what to raise if it is refused."""
        crew = self._crew_here(context)
        if crew is None:
            return None
        limits = self.guard.breakers.limits
        if any(name.endswith("tokens") for name in limits):
            _wait_for_the_bus(crew)
        role = reading.text(getattr(getattr(context, "agent", None), "role", None))
        if not self.guard.model_call(crew.tally, role):
            return None
        error: BreakerTripped = self.guard.error(crew.tally)
        self._record(context, error)
        return error

    def after(self, context: Any) -> None:
        """Take note that a call has returned: the bus is about to tell its tokens."""
        crew = self._crew_here(context)
        if crew is not None:
            crew.returned += 1

    def told(self, started: int | None, fields: dict[str, Any]) -> None:
        """Count the tokens of a call that the bus tells of. In the emitter's context."""
        root = _root_here() or started
        if root is None:
            return
        crew = self._crew(root)
        used = (fields.get("input_tokens") or 0) + (fields.get("output_tokens") or 0)
        if used:
            self.guard.add_tokens(crew.tally, used)
        crew.told += 1

    def _crew_here(self, context: Any) -> _Crew | None:
        root = _root_here()
        if root is None or not self._book.records(getattr(context, "crew", None)):
            return None
        return self._crew(root)

    def _crew(self, root: int) -> _Crew:
        # And the block: before 1.14 a crew that fails leaves its root behind, on its thread.
        block = self._book.block_here()
        key = root, id(block)
        crew = self._crews.get(key)
        if crew is None:
            crew = self._crews.setdefault(key, _Crew(self._tally(root), block))
            while len(self._crews) > MAX_CREWS:
                self._crews.pop(next(iter(self._crews)), None)
        return crew

    def _tally(self, root: int) -> Tally:
        around = enclosing_run(self._book.base, None, told_late=True, here=None)
        shared = self.guard.tally_of(around.run_id) if around is not None else None
        if shared is not None:
            return shared  # type: ignore[no-any-return]
        fields = self._book.identity_here()
        tally = self.guard.new_tally(str(fields.get("_trace_id") or f"{root:032x}"))
        self.guard.name(tally, fields.get("session_id"), fields.get("user_id"))
        return tally  # type: ignore[no-any-return]

    def _record(self, context: Any, error: BreakerTripped) -> None:
        """Record the refused call: CrewAI tells of none, and only the texts of what fails then."""
        recorder, run_id, now = self._book.recorder, uuid4().int, time.time_ns()
        parent = reading.run_id_of(event_context.get_current_parent_id())
        name = reading.text(getattr(getattr(context, "llm", None), "model", None)) or "llm"
        start: dict[str, Any] = {
            "_type": "llm_call_started",
            "kind": "llm",
            "name": name,
            "model": name,
        }
        if self._book.records_everything:
            start["_all"] = True
        recorder.start(run_id, parent, start, now)
        kind, message = describe_error(error)
        # By CrewAI's own words, as what fails with it brings no more: by them it gets the type.
        end = {"_type": "llm_call_failed", "outcome": "error", "error_type": kind}
        told = {"error_message": reading.BLOCKED, "attributes": {"llmops.breaker": message}}
        recorder.end(run_id, parent, {**end, **told}, now)


class Hooks:
    """The two hooks of this process, and whether they are in place."""

    def __init__(self, books: Any, block: Any) -> None:
        self._books = books
        self._block = block
        self._placed = False

    def place(self) -> None:
        """Put the hooks in their place, if any monitor has breakers. Repeating it changes nothing."""
        if not self._placed and any(
            book.crews is not None and book.watching for book in self._books()
        ):
            register_before_llm_call_hook(self.llmops_before)
            register_after_llm_call_hook(self.llmops_after)
            self._placed = True

    def remove(self) -> None:
        """Take them away again."""
        if self._placed:
            unregister_before_llm_call_hook(self.llmops_before)
            unregister_after_llm_call_hook(self.llmops_after)
            self._placed = False

    def llmops_before(self, context: Any) -> bool | None:
        """Refuse a model call of a run that is stopped. On the thread that makes the call."""
        for book in self._books():
            try:
                error = book.crews.before(context) if book.crews is not None else None
            except Exception as failure:  # ours: the call goes on
                book.recorder.report("crewai breaker", failure)
                continue
            if error is not None:
                block = self._block()
                if block is not None:
                    block.refused = error
                _log.warning("%s", error)
                return False
        return None

    def llmops_after(self, context: Any) -> None:
        """Take note that a model call has returned. On the thread that made it."""
        for book in self._books():
            try:
                if book.crews is not None:
                    book.crews.after(context)
            except Exception as failure:
                book.recorder.report("crewai breaker", failure)


def blocked(error: BaseException | None) -> bool:
    """Whether an error is what CrewAI raises where a hook refused a model call."""
    return isinstance(error, ValueError) and reading.BLOCKED in describe_error(error)[1]


def _root_here() -> int | None:
    """Return the outermost run of CrewAI that is open here."""
    stack = getattr(event_context, "_event_id_stack", None)  # no public name tells them all
    events = stack.get() if stack is not None else ()
    return reading.run_id_of(events[0][0]) if events else None


def _wait_for_the_bus(crew: _Crew) -> None:
    """Wait a moment until the calls that have returned were told: the bus tells them in a pool."""
    if crew.deaf or crew.told >= crew.returned:
        return
    deadline = time.monotonic() + TOLD_SECONDS
    while crew.told < crew.returned:
        if time.monotonic() > deadline:
            crew.deaf = True
            return
        time.sleep(0.001)
