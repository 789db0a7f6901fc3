"""What is open of LangChain and LangGraph here, for what else runs inside: and what it raises."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.runnables.config import var_child_runnable_config

from llmops_core import OpenRun, follow_framework
from llmops_integrations.langchain.runs import open_run_of, runs_known_to
from llmops_integrations.langchain.translate import error_fields, outcome_of_error

__all__ = ["open_run", "register"]


def register() -> None:
    """Let decorated functions and other frameworks find the run that is open around them."""
    follow_framework(open_run, control_flow)


def open_run(recorder: object) -> OpenRun | None:
    """Return the stored run of LangChain that is open here and known to *recorder*."""
    config = var_child_runnable_config.get()
    if not config:
        return None
    within: UUID | None = getattr(config.get("callbacks"), "parent_run_id", None)
    runs = runs_known_to(recorder)
    if within is None or runs is None:
        return None
    run = runs.get(within.int)
    return None if run is None else open_run_of(run, within.int)


def control_flow(error: BaseException) -> dict[str, Any] | None:
    """Return the fields of an interrupt or a handoff that passes a decorated function as an error."""
    return error_fields(error) if outcome_of_error(error) not in ("error", "abandoned") else None
