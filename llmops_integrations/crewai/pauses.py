"""What waits for a person: what a flow asks, and the answer of a task with ``human_input``.

CrewAI tells a flow's question and its answer. Of a task it tells the answer that it shows, right
before it asks, and what comes next: so a pause lasts from the one to the other. What the person says
is told nowhere but in the messages of the next model call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmops_integrations.crewai.nodes import Node

if TYPE_CHECKING:
    from llmops_core.intake.ordering import Tell

__all__ = ["SHOWN", "answered", "ended_around", "shown", "went_on"]

#: An agent shows its answer. CrewAI tells so of every agent's.
SHOWN: Final = "agent_logs_execution"
_AGENT: Final = "agent_execution_started"


def shown(around: Node | None, run_id: int, fields: dict[str, Any], tell: Tell) -> None:
    """Tell that a person is asked about an agent's answer, if its task wants that."""
    agent = around
    while agent is not None and agent.type != _AGENT:
        agent = agent.parent
    if agent is None or not agent.watched or agent.ended or not agent.asks or _waits(agent):
        return
    agent.asks -= 1
    about = {"kind": "chain", "name": "human input", "framework": "crewai"}
    node = agent.waiting = Node(SHOWN, run_id, agent, about, watched=True)
    node.start_ns, node.above = tell.mono, agent.run_id
    tell.start(run_id, agent.run_id, {**about, "input": fields["input"]})


def went_on(agent: Node, tell: Tell) -> None:
    """Tell that the agent goes on, if a person was asked about its answer."""
    if _waits(agent):
        _end(agent, {"outcome": "ok"}, tell)


def answered(around: Node | None, fields: dict[str, Any], tell: Tell) -> None:
    """Tell a person's answer to a flow: CrewAI tells it as an event of its own, not as an end."""
    node = around.waiting if around is not None else None
    if around is not None and node is not None and node.watched and not node.ended:
        _end(around, fields, tell)


def ended_around(node: Node, fields: dict[str, Any], tell: Tell) -> None:
    """End what still waits for a person in a run that ends, as the run does."""
    waiting = node.waiting
    if waiting is None or waiting.ended:
        return
    names = ("outcome", "error_type", "error_message")
    told = {name: fields[name] for name in names if name in fields}
    if waiting.type == SHOWN:
        _end(node, told, tell)
        return
    waiting.ended = True
    about = {**told, "kind": waiting.kind, "name": waiting.name}
    tell.end(waiting.run_id, waiting.above, about)


def _waits(agent: Node) -> bool:
    waiting = agent.waiting
    return waiting is not None and waiting.type == SHOWN and not waiting.ended


def _end(around: Node, fields: dict[str, Any], tell: Tell) -> None:
    node = around.waiting
    if node is None:
        return
    node.ended = True
    fields["waited_ms"] = max(0, tell.mono - node.start_ns) / 1_000_000
    fields["kind"], fields["name"] = node.kind, node.name
    tell.end(node.run_id, node.above, fields)
