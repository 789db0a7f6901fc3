"""Who handed what to whom in a crew: contexts, delegations, questions, managers, remote agents.

A handoff of LangGraph's is asked for and then confirmed; CrewAI tells both at once, so each is one
finished span here. It hangs beside its source, where the source's own parent is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmops_integrations.crewai.nodes import Node, Output
from llmops_integrations.crewai.reading import text

if TYPE_CHECKING:
    from llmops_core.intake.ordering import Tell

__all__ = ["remember_output", "to_coworker", "to_remote", "to_task", "unanswered"]

Freeze = Callable[[object], Any]


def remember_output(task: Node, fields: dict[str, Any], at: int) -> None:
    """Keep what a task gave for the tasks after it."""
    raw, agent = fields.pop("_raw", None), fields.pop("_by", None) or task.agent
    crew = task.parent
    if crew is not None and type(raw) is str and raw and agent:
        crew.outputs.append(Output(task.task or "", agent, raw, at))


def to_task(task: Node, fields: dict[str, Any], tell: Tell, freeze: Freeze) -> None:
    """Tell the handoffs to a task: one from each other agent whose output its context holds."""
    context, fed_by = fields.pop("_context", None), fields.pop("_fed_by", None)
    crew = task.parent
    if crew is None or not context or not task.agent:
        return
    received = freeze(context)
    for output in crew.outputs:
        fits = output.task in fed_by if fed_by is not None else True
        if not fits or output.agent == task.agent or output.raw not in context:
            continue
        about = _about(output.agent, task.agent, "context")
        about["input"] = freeze(output.raw)
        about["output"] = received
        _tell(tell, (task.run_id, output.task), crew.stored(), about, output.at)


def to_coworker(
    agent: Node, tool: Node, mechanism: str, fields: dict[str, Any], tell: Tell, freeze: Freeze
) -> None:
    """Tell that an agent gave work to a coworker, or asked it something, by a tool."""
    fields["_handed"] = True
    tool.handed = True
    source = tool.nearest("agent")
    if source is None:
        return
    if source.manager and mechanism == "delegation":
        mechanism = "manager"
    given = tool.given if type(tool.given) is dict else {}
    about = _about(source.name, agent.name, mechanism)
    about["input"] = freeze(_passed(given))
    about["output"] = freeze(given.get("context"))
    _tell(tell, (agent.run_id, tool.run_id), _beside(source), about, tool.start_ns)


def unanswered(tool: Node, mechanism: str, tell: Tell, freeze: Freeze) -> None:
    """Tell of a delegation that nobody took up: no coworker has that name, say."""
    source = tool.nearest("agent")
    given = tool.given if type(tool.given) is dict else {}
    target = text(given.get("coworker"))
    if source is None or target is None:
        return
    if source.manager and mechanism == "delegation":
        mechanism = "manager"
    about = _about(source.name, target, mechanism)
    about["input"] = freeze(_passed(given))
    about.update(handoff_confirmed=False, outcome="incomplete")
    _tell(tell, (tool.run_id, target), _beside(source), about, tool.start_ns)


def to_remote(agent: Node, fields: dict[str, Any], tell: Tell) -> None:
    """Tell that an agent gave work to one elsewhere."""
    fields["_handed"] = True
    source = agent.nearest("agent")
    if source is None:
        return
    about = _about(source.name, agent.name, "a2a")
    about["input"] = about["output"] = fields.get("input")
    _tell(tell, (agent.run_id, "a2a"), _beside(source), about, tell.mono)


def _passed(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "coworker"}


def _beside(source: Node) -> int | None:
    """Return where the source's task hangs, or the source where it works for no task; below the
    source itself where that is a root.
    """
    task = source.parent_stored()
    above = task.above if task is not None and task.kind == "task" else source.above
    return source.run_id if above is None else above


def _about(source: str, target: str, mechanism: str) -> dict[str, Any]:
    return {
        "kind": "handoff",
        "name": f"{source} → {target}",
        "agent": source,
        "target_agent": target,
        "handoff_mechanism": mechanism,
        "handoff_confirmed": True,
        "outcome": "handed_off",
        "framework": "crewai",
    }


def _tell(
    tell: Tell, key: tuple[object, ...], above: int | None, about: dict[str, Any], start: int
) -> None:
    digest = hashlib.blake2b(repr(("handoff", *key)).encode(), digest_size=16).digest()
    run_id = int.from_bytes(digest, "big")
    tell.start(run_id, above, about, at=min(start, tell.mono))
    tell.end(run_id, above, {"outcome": about["outcome"]})
