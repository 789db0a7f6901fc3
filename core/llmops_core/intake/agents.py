"""Who is an agent, and what its model was given and said. Told by starts and ends of runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmops_core.freeze.freezer import Frozen
from llmops_core.intake.state import Run

__all__ = ["model_ended", "model_started", "promote", "run_started"]


def run_started(run: Run) -> None:
    """Let a start have its say in who is an agent."""
    if run.parent is not None and run.parent.kind == "agent":
        run.promotable = False  # a node of an agent's own graph is not another agent
    if run.kind == "agent":
        _tell_ancestors(run)


def model_started(call: Run) -> None:
    """A node that calls a model directly, with no agent inside, is an agent.

    The agent at work, and the node around it, learn what the model is given.
    """
    node = call.parent
    while node is not None and node.kind == "chain":
        node = node.parent
    of_edge = call.fields.pop("_in_edge", False)
    if node is not None and node.promotable and not node.has_agent and not of_edge:
        node.kind = "agent"
        node.promotable = False
        _tell_ancestors(node)
    given = call.given
    for run in _workers(call):
        if run.first_llm_input is None:
            run.first_llm_input = given


def model_ended(call: Run, output: Any) -> None:
    """The agent at work, and the node around it, learn what the model said."""
    if type(output) is Frozen:
        for run in _workers(call):
            run.last_llm_output = output


def promote(run: Run) -> None:
    """Turn an open run into an agent: a graph that is seen to be a prebuilt one."""
    if run.kind not in ("chain", "workflow", "task"):
        return
    run.kind = "agent"
    run.promotable = False
    run.fields["agent"] = run.fields.get("agent") or run.fields.get("name")
    for child in run.trace.open.values():
        if child.parent is run:
            child.promotable = False
            if child.kind == "task":  # it works for the agent, whatever it was taken for before
                child.fields["agent"] = None
    _tell_ancestors(run)


def _tell_ancestors(run: Run) -> None:
    name = run.fields.get("agent") or run.fields.get("name")
    around = run.parent
    if around is not None and around.kind == "task":
        around.wraps = name if around.wraps in (None, name) else ""
    while around is not None and around.kind in ("task", "chain"):
        around.inner_agent = around.inner_agent or name
        around = around.parent
    above = run.parent
    while above is not None and not above.has_agent:
        above.has_agent = True
        above = above.parent


def _workers(call: Run) -> Iterator[Run]:
    """Yield the agent that makes a call, and the nodes around it; an outer agent's call is not it."""
    above, found = call.parent, False
    while above is not None:
        if above.kind == "agent" and not found:
            found = True
        elif above.kind not in ("task", "chain"):
            return
        yield above
        above = above.parent
