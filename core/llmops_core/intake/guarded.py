"""The recorder of a monitor that has breakers: it counts, and raises where a run is to be stopped."""

from __future__ import annotations

from typing import Any

from llmops_core.errors import BreakerTripped
from llmops_core.freeze.error_text import describe_error
from llmops_core.intake.guard import Guard, Tally
from llmops_core.intake.recorder import Recorder

__all__ = ["GuardedRecorder"]


class GuardedRecorder(Recorder):
    """A :class:`Recorder` whose :meth:`start` and :meth:`check` raise :class:`BreakerTripped`.

    What is refused is recorded: its span is an error of that type, and has no duration to speak of.
    """

    stops = True

    def __init__(self, *args: Any, guard: Guard, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guard = guard

    def start(
        self,
        run_id: int,
        parent_run_id: int | None,
        fields: dict[str, Any],
        promotable: bool = False,
    ) -> str | None:
        """Record that a run starts, and raise if it must not."""
        if parent_run_id is None:
            self.add_root_fields(fields)  # whose run it is decides which budgets hold
        tally = self.guard.started(run_id, parent_run_id, fields, promotable)
        kind, name = fields.get("kind"), fields.get("name")
        trace = super().start(run_id, parent_run_id, fields, promotable)
        if trace is not None:
            mine = self.guard.tally_of(run_id)
            if mine is not None:
                mine.trace = trace
        if tally is not None:
            error = self.guard.error(tally)
            self.end(run_id, parent_run_id, {"kind": kind, "name": name, **refused_fields(error)})
            raise error
        return trace

    def end(self, run_id: int, parent_run_id: int | None, fields: dict[str, Any]) -> None:
        """Record that a run ends. Never raises: what was paid for is delivered."""
        self.guard.ended(run_id, fields)
        super().end(run_id, parent_run_id, fields)

    def handoff(self, run_id: int, fields: dict[str, Any]) -> None:
        """Record that an agent asks another one to take over. Never raises."""
        self.guard.asked(run_id, fields.get("target_agent"))
        super().handoff(run_id, fields)

    def promote(self, run_id: int) -> None:
        """Record that a run that is open turns out to be an agent's."""
        self.guard.promoted(run_id)
        super().promote(run_id)

    def check(self, run_id: int) -> None:
        """Raise if a run that streams has had its time."""
        tally: Tally | None = self.guard.is_late(run_id)
        if tally is not None:
            raise self.guard.error(tally)


def refused_fields(error: BreakerTripped) -> dict[str, Any]:
    """Return what the span of a refused run says."""
    name, message = describe_error(error)
    return {"outcome": "error", "error_type": name, "error_message": message}
