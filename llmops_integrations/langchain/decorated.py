"""Decorated functions inside LangChain and LangGraph: whose children they are, and what they raise."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.runnables.config import var_child_runnable_config

from llmops_core import follow_framework
from llmops_integrations.langchain.runs import runs_known_to
from llmops_integrations.langchain.translate import error_fields, outcome_of_error

__all__ = ["open_run", "register"]


def register() -> None:
    """Let decorated functions find the run that is open around them."""
    follow_framework(open_run, control_flow)


def open_run(recorder: object) -> int | None:
    """Return the stored run of LangChain that is open here and known to *recorder*."""
    config = var_child_runnable_config.get()
    if not config:
        return None
    within: UUID | None = getattr(config.get("callbacks"), "parent_run_id", None)
    runs = runs_known_to(recorder)
    if within is None or runs is None:
        return None
    run = runs.get(within.int)
    if run is None:
        return None
    return run.parent if run.kind is None else within.int


def control_flow(error: BaseException) -> dict[str, Any] | None:
    """Return the fields of an interrupt or a handoff that passes a decorated function as an error."""
    return error_fields(error) if outcome_of_error(error) not in ("error", "abandoned") else None
