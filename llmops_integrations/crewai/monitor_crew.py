"""``monitor_crew``: record the runs of one crew, flow or agent; ``CrewListener``: or all of them."""

from __future__ import annotations

import atexit
import contextlib
import sys
import time
from collections.abc import Iterable
from contextvars import Token
from types import TracebackType
from typing import Any, Final, Self

from llmops_core import ConfigError, Monitor, default_monitor
from llmops_integrations.crewai.breaking import blocked
from llmops_integrations.crewai.listener import BLOCK, Block, Watch, bus

__all__ = ["CrewListener", "monitor_crew"]

_SUBJECTS: Final = ("Crew", "Flow", "Agent")
_EXIT_SECONDS: Final = 5.0


class CrewListener:
    """Records what runs on CrewAI's event bus, once it is attached: everything, or one subject.

    Use it as a context manager, or call :meth:`attach` and :meth:`detach`. It serves any number of
    runs at once; each is a trace of its own. ``session_id``, ``user_id`` and ``tags`` are told of
    the runs that start while it is attached, and in a ``with`` block of those that start in it.
    Attaching twice records once.
    """

    def __init__(
        self,
        monitor: Monitor | None = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        tags: Iterable[str] = (),
    ) -> None:
        """Report to *monitor*; without one to the default monitor, which is opened here."""
        self.monitor = default_monitor() if monitor is None else monitor
        self._subject: Any = None
        identity = {"session_id": session_id, "user_id": user_id, "tags": tuple(tags) or None}
        self._identity = {name: value for name, value in identity.items() if value is not None}
        self._book = bus.book(self.monitor)
        self._watch: Watch | None = None
        self._tokens: list[tuple[Token[Block | None], Block]] = []

    @property
    def attached(self) -> bool:
        """Whether it records now."""
        return self._watch is not None

    def attach(self) -> Self:
        """Start to record. Does no I/O, and may be called on any thread."""
        if self._watch is None:
            self._watch = self._book.watch(self._subject, self._identity)
        else:
            bus.stop()  # and again below: a scope of the bus may have taken the handlers off
        bus.listen()
        _deliver_at_exit()
        return self

    def detach(self) -> None:
        """Stop to record runs that start from now on. What has started is recorded to its end, as
        long as anybody listens.
        """
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.until = time.time_ns()
            bus.stop()

    def __enter__(self) -> Self:
        block = Block(self._identity)
        self._tokens.append((BLOCK.set(block), block))
        if len(self._tokens) == 1:
            self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Several tasks may be in blocks of it at once: each leaves the one that it entered itself.
        here = BLOCK.get()
        mine = [entry for entry in self._tokens if entry[1] is here] or self._tokens
        token, block = entry = mine[-1]
        self._tokens.remove(entry)
        with contextlib.suppress(ValueError):  # left in another context than it was entered in
            BLOCK.reset(token)
        if kind is not None and not issubclass(kind, Exception):
            # Cancelled, or Ctrl-C: CrewAI tells no ends then.
            self._book.recorder.point(
                0, None, {"_type": "block_left", "_block": block}, time.time_ns()
            )
        if not self._tokens:
            self.detach()
        if block.refused is not None and blocked(error):
            raise block.refused from error

    def __repr__(self) -> str:
        what = "everything" if self._subject is None else type(self._subject).__name__
        return f"<CrewListener of {what}, {'attached' if self.attached else 'detached'}>"


def monitor_crew(
    crew: Any,
    monitor: Monitor | None = None,
    *,
    session_id: str | None = None,
    user_id: str | None = None,
    tags: Iterable[str] = (),
) -> CrewListener:
    """Return a listener that records the runs of one crew, or of one flow or agent, once attached.

    ``with monitor_crew(crew): crew.kickoff()`` records the kickoffs in the block, whichever way:
    ``kickoff``, ``kickoff_async``, ``akickoff`` and ``kickoff_for_each``, which runs copies. Other
    crews that run at the same time are left alone; what runs inside the crew is part of it.

    Raises ``ConfigError`` for what is no crew, flow or agent.
    """
    names = {base.__name__ for base in type(crew).__mro__ if _is_of_crewai(base)}
    if isinstance(crew, type) or not names.intersection((*_SUBJECTS, "BaseAgent")):
        kind = f"the class {crew.__name__}" if isinstance(crew, type) else type(crew).__name__
        raise ConfigError(
            f"{kind} was given to monitor_crew()",
            "expected a Crew, a Flow or an Agent",
            "pass the object that you call kickoff() on; of a @CrewBase class that is .crew()",
        )
    listener = CrewListener(monitor, session_id=session_id, user_id=user_id, tags=tags)
    listener._subject = crew
    return listener


def _is_of_crewai(base: type) -> bool:
    return base.__module__.partition(".")[0] == "crewai"


_exit_known = False


def _deliver_at_exit() -> None:
    """Let the bus deliver before the monitors close: it shuts down after them, as it was there first.

    Registered when something is attached, which is after its monitor was opened.
    """
    global _exit_known
    if not _exit_known:
        _exit_known = True
        atexit.register(_deliver)


def _deliver() -> None:
    if not sys.is_finalizing():
        bus.deliver(_EXIT_SECONDS)
