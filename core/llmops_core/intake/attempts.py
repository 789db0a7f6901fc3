"""Which try of the same work a run is. Runs on the intake thread, for the tracer.

LangChain tags a second try and LangGraph runs it in the same namespace. A plain function is tried
again where it is called, after it failed, in the same run and with the same input.
"""

from __future__ import annotations

from typing import Final

from llmops_core.intake.state import Run

__all__ = ["ended", "started"]

#: Failed functions that one run remembers.
MAX_FAILED: Final = 32
_PLAIN_FUNCTION: Final = "python"


def started(run: Run) -> None:
    """Number the second and further tries of a run."""
    key = run.fields.pop("_retry_key", None)
    parent = run.parent
    if parent is None:
        return
    if key is None:
        _after_a_failure(run, parent)
        return
    run.retry_key = (run.fields.get("name"), key)
    if parent.tries is None:
        parent.tries = {}
    tries = parent.tries[run.retry_key] = parent.tries.get(run.retry_key, 0) + 1
    if tries > 1:
        run.fields["attempt"] = tries


def ended(run: Run, outcome: str) -> None:
    """Remember a plain function that failed, with what it was given, until it ends well."""
    parent, fields = run.parent, run.fields
    if parent is None or fields.get("framework") != _PLAIN_FUNCTION:
        return
    name = fields.get("name")
    if outcome == "error":
        if parent.failed is None:
            parent.failed = {}
        if name in parent.failed or len(parent.failed) < MAX_FAILED:
            parent.failed[name] = (run.given, fields.get("attempt") or 1)
    elif parent.failed:
        parent.failed.pop(name, None)


def _after_a_failure(run: Run, parent: Run) -> None:
    if not parent.failed or run.fields.get("framework") != _PLAIN_FUNCTION:
        return
    before = parent.failed.get(run.fields.get("name"))
    if before is not None and before[0] == run.given:
        run.fields["attempt"] = before[1] + 1
