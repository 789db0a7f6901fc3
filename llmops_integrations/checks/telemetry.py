"""Whether CrewAI sends telemetry of its own, which nothing of ours changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from llmops_core import Finding
from llmops_integrations.checks.frameworks import version_of

__all__ = ["SWITCHES", "Telemetry"]

#: Any of these turns it off.
SWITCHES: Final = ("CREWAI_DISABLE_TELEMETRY", "CREWAI_DISABLE_TRACKING", "OTEL_SDK_DISABLED")
#: What CrewAI takes for yes.
_YES: Final = ("true", "1", "yes", "on")


class Telemetry:
    """CrewAI's switches, as the environment has them here."""

    def check(self) -> Iterator[Finding]:
        """Return one finding with CrewAI, and none without it."""
        if version_of("crewai") is None:
            yield Finding("no framework with telemetry of its own is installed")
            return
        off = [name for name in SWITCHES if os.environ.get(name, "").strip().lower() in _YES]
        facts = {"on": not off, "turned_off_by": off}
        if off:
            yield Finding(f"crewai's own telemetry is off ({', '.join(off)})", facts=facts)
        else:
            how = "set CREWAI_DISABLE_TELEMETRY=true to turn it off"
            yield Finding(f"crewai's own telemetry is on: {how}", "note", facts)
