"""Whose output a plain function's agent was given: a handoff that only its input tells.

In a program without a framework nothing says that one agent hands over to the next: it is called
with what the other one returned. So that is looked for, and nothing is guessed: no edge is made of
two calls that merely followed each other. Runs on the intake thread, for the handoffs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from llmops_core.intake.state import Run

__all__ = ["source_of"]

_PLAIN_FUNCTION: Final = "python"
#: A text that stands inside another one by chance is shorter.
_MIN_INSIDE: Final = 20
_MAX_PARTS: Final = 100


def source_of(run: Run) -> Run | None:
    """Return the agent that ended last before *run* started and whose output *run* was given."""
    given, parent = run.given, run.parent
    if given is None or parent is None or run.fields.get("framework") != _PLAIN_FUNCTION:
        return None
    received = list(_parts(given.value))
    for source in reversed(parent.ended_agents):
        if source.said is None or source.end_ns > run.start_ns:
            continue
        if any(_holds(received, said) for said in _parts(source.said.value)):
            return source
    return None


def _parts(value: Any) -> Iterator[Any]:
    """Yield a value, and what it holds at its top: the arguments of a call, the keys of a result."""
    yield value
    if type(value) is dict:
        yield from list(value.values())[:_MAX_PARTS]
    elif type(value) in (list, tuple):
        yield from value[:_MAX_PARTS]


def _holds(received: list[Any], said: Any) -> bool:
    """Whether what was received holds what was said. A number or a flag proves nothing."""
    if not said or type(said) in (int, float, bool):
        return False
    if any(type(part) is type(said) and part == said for part in received):
        return True
    if type(said) is not str or len(said) < _MIN_INSIDE:
        return False
    return any(type(part) is str and said in part for part in received)
