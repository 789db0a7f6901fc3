"""Runs in a process of its own: attaches to each framework, runs one step, and says what was seen."""

from __future__ import annotations

import importlib
import json
import os
from importlib.util import find_spec
from typing import Any, Final

__all__ = ["main"]


def _langchain() -> None:
    from langchain_core.runnables import RunnableLambda

    RunnableLambda(lambda given: given, name="llmops doctor").invoke(1)


def _langgraph() -> None:
    from langgraph.graph import START, StateGraph

    builder: Any = StateGraph(dict)
    builder.add_node("step", lambda state: state)
    builder.add_edge(START, "step")
    builder.compile(name="llmops doctor").invoke({})


def _crewai() -> None:
    from crewai.flow.flow import Flow, start

    def step(_flow: Any) -> int:
        return 1

    type("Doctor", (Flow,), {"step": start()(step)})().kickoff()


#: By framework: the package, and one step of it that needs no model.
_STEPS: Final = {
    "langchain": ("langchain_core", _langchain),
    "langgraph": ("langgraph", _langgraph),
    "crewai": ("crewai", _crewai),
}


def main() -> None:
    """Print JSON, by framework: whether it was hooked, and whether its step was recorded."""
    out = os.dup(1)
    os.dup2(2, 1)  # what frameworks print is no JSON
    told = _tried()
    os.write(out, json.dumps(told).encode())
    os._exit(0)  # no thread of a framework's is waited for


def _tried() -> dict[str, dict[str, Any]]:
    from llmops_core import Monitor
    from llmops_integrations import instrument, instrumented

    monitor = instrument(Monitor(storage="memory:", durability="memory"))
    told: dict[str, dict[str, Any]] = {}
    for name, (package, step) in _STEPS.items():
        if find_spec(package) is None:
            continue
        before = _stored(monitor)
        error = None
        try:
            importlib.import_module(package)
            step()
        except BaseException as raised:  # a release that exits at its import, too
            error = f"{type(raised).__name__}: {raised}"
        recorded = _stored(monitor) > before
        told[name] = {"hook": instrumented()[name], "recorded": recorded, "error": error}
    return told


def _stored(monitor: Any) -> int:
    monitor.flush(10)
    return int(monitor.query().num_rows)
