"""What a plugin may do to us: each fault is one registration.

A fault is called with what the plugin was given, on the thread that called the plugin; it counts
itself before it acts, so that a cell can tell that it really happened.
"""

from __future__ import annotations

import asyncio
import locale
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

__all__ = ["CHANGES", "FAULTS", "NO_FAULT", "Fault", "Hits"]

#: How long a plugin hangs if nobody lets it go.
HANG_SECONDS: Final = 60.0


@dataclass
class Hits:
    """What the faults of one cell have done, and what lets the hanging ones go."""

    count: int = 0
    #: After so many the part works; None: it never does.
    most: int | None = None
    released: threading.Event = field(default_factory=threading.Event)

    def over(self) -> bool:
        """Whether the part works by now."""
        return self.released.is_set() or (self.most is not None and self.count >= self.most)


@dataclass(frozen=True)
class Fault:
    """One thing that a plugin does wrong."""

    name: str
    #: Called with the hits and what the plugin was given; what it returns is returned if not None.
    act: Callable[[Hits, Any], Any]
    #: ``raises``, ``hangs``, ``lies`` (returns what it must not) or ``works`` (but does harm).
    sort: str
    #: Why the host cannot be shielded from it, where it hits the whole process.
    limit: str = ""
    #: It takes much of the interpreter from the healthy parts.
    starves: bool = False
    #: The type of the failure that is counted, where it is one.
    error: str = ""


FAULTS: Final[dict[str, Fault]] = {}
#: What a part does that works: the healthy cell, which the others are compared with.
NO_FAULT: Final = Fault("nothing", lambda hits, given: None, "works")
#: The fault of those alone that are given spans.
CHANGES: Final = "changes its spans"


def fault(name: str, sort: str, **about: Any) -> Callable[[Any], Any]:
    """Register a function as a fault."""

    def register(act: Callable[[Hits, Any], Any]) -> Callable[[Hits, Any], Any]:
        FAULTS[name] = Fault(name, act, sort, **about)
        return act

    return register


class Wrong(Exception):
    """An ordinary failure of a plugin."""


def _raises(error: type[BaseException]) -> Callable[[Hits, Any], Any]:
    def act(hits: Hits, given: Any) -> Any:
        raise error

    return act


for _error in (
    Wrong,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    MemoryError,
):
    fault(f"raises {_error.__name__}", "raises", error=_error.__name__)(_raises(_error))


@fault("calls sys.exit", "raises", error="SystemExit")
def _exits(hits: Hits, given: Any) -> Any:
    sys.exit(3)


@fault("recurses without end", "raises", error="RecursionError")
def _recurses(hits: Hits, given: Any) -> Any:
    return _recurses(hits, given)


@fault("hangs", "hangs", error="TimeoutError")
def _hangs(hits: Hits, given: Any) -> Any:
    hits.released.wait(HANG_SECONDS)


@fault("loops without end", "hangs", error="TimeoutError", starves=True)
def _loops(hits: Hits, given: Any) -> Any:
    end = time.monotonic() + HANG_SECONDS
    while not hits.released.is_set() and time.monotonic() < end:
        pass


@fault("is slow", "works")
def _slow(hits: Hits, given: Any) -> Any:
    time.sleep(0.03)


@fault("returns a wrong type", "lies", error="TypeError")
def _lies(hits: Hits, given: Any) -> Any:
    return 5


@fault(CHANGES, "works")
def _vandalises(hits: Hits, given: Any) -> Any:
    rows = getattr(given, "rows", (given,))  # a batch, or the span of a handoff
    for span in rows:
        msgspec.structs.force_setattr(span, "name", "spoilt")
        msgspec.structs.force_setattr(span, "span_id", "0" * 16)
        if span.attributes is not None:
            span.attributes["spoilt"] = "yes"
    if hasattr(given, "rows"):
        given._rows = ()


@fault("closes stdout", "works", limit="stdout is the process's own")
def _closes_stdout(hits: Hits, given: Any) -> Any:
    sys.stdout.close()


@fault("changes directory and locale", "works", limit="they are the process's own")
def _moves(hits: Hits, given: Any) -> Any:
    os.chdir("/")
    locale.setlocale(locale.LC_ALL, "C")


@fault("starts 1,000 threads", "works")
def _threads(hits: Hits, given: Any) -> Any:
    if hits.count > 1:
        return
    for _ in range(1000):
        threading.Thread(target=hits.released.wait, args=(HANG_SECONDS,), daemon=True).start()
