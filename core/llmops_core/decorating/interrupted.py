"""How a plain function says that it waits for a person."""

from __future__ import annotations

__all__ = ["Interrupted"]


class Interrupted(Exception):  # noqa: N818 - not an error: control flow, as LangGraph's GraphInterrupt
    """Raise it where your program stops to ask a person, with what is asked.

    Every decorated call that it leaves has the outcome ``interrupted`` and the question as its
    output, as a graph has that LangGraph's ``interrupt()`` stops. The framework's own such
    exceptions are known too. Catch it where you show the question, and call again with the answer.
    """
