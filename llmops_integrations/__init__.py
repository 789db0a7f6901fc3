"""Monitors LangChain, LangGraph and CrewAI applications; the core is ``llmops_core``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["instrument", "instrumented", "uninstrument"]

if TYPE_CHECKING:
    from llmops_integrations.instrumenting import instrument, instrumented, uninstrument


def __getattr__(name: str) -> Any:
    """Import what is asked for: whoever uses one framework's handler needs nothing of this."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llmops_integrations import instrumenting

    return getattr(instrumenting, name)
