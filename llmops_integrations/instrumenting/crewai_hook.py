"""CrewAI: one listener on its public event bus."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Final

from llmops_core import Monitor

if TYPE_CHECKING:
    from llmops_integrations.crewai import CrewListener

__all__ = ["MODULE", "CrewAIHook"]

#: The package itself: its code has run when all of it has been imported.
MODULE: Final = "crewai"


class CrewAIHook:
    """Attaches the listener once CrewAI is imported."""

    how = "crewai_event_bus"

    def __init__(self) -> None:
        self.monitor: Monitor | None = None
        self._listener: CrewListener | None = None
        self._seen = False

    def imported(self, _module: ModuleType) -> None:
        """Listen, now that CrewAI is there."""
        self._seen = True
        if self.monitor is not None and self._listener is None:
            from llmops_integrations.crewai import CrewListener

            self._listener = CrewListener(self.monitor).attach()

    def switch(self, monitor: Monitor | None) -> None:
        """Record what starts from now on into *monitor*; None records nothing any more."""
        before, self._listener = self._listener, None
        self.monitor = monitor
        if monitor is not None and self._seen:
            from llmops_integrations.crewai import CrewListener

            self._listener = CrewListener(monitor).attach()
        if before is not None:
            before.detach()
