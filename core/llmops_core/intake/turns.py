"""Which agents take turns, and how many runs are below one: what a guard keeps of an open run.

Two agents that hand the work to and fro are told by the order in which they start below the same
run: A, B, A, B. An agent is what is recorded as one, a node of a graph from its first model call
on, and whoever hands over or is handed to. An agent that asks another one as its tool, several
times, is no ping-pong: each time the other one runs below a call of its own. But two that ask each
other, each inside the other's call, are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from llmops_core.intake.guard import Tally

__all__ = ["Node", "agent_started", "asked", "is_ping_pong", "model_started"]

_MAX_DEPTH: Final = 1_000
_MAX_ASKED: Final = 100
_BETWEEN: Final = ("task", "chain")


class Node:
    """One open run."""

    __slots__ = ("asked", "children", "counted", "kind", "name", "parent", "promotable", "step",
                 "steps", "tally", "took_turn", "turns")  # fmt: skip

    def __init__(
        self, tally: Tally, parent: Node | None, kind: Any, name: Any, promotable: bool
    ) -> None:
        self.tally = tally
        self.parent = parent
        self.kind = kind
        self.name = name if type(name) is str else ""
        self.promotable = promotable
        #: Runs that are open below it, and whether it is one that its parent counted.
        self.children = 0
        self.counted = False
        #: Nodes of a graph that started in one step.
        self.step: int | None = None
        self.steps: set[Any] | None = None
        #: Agents that started below it, in order; the last few.
        self.turns: list[str] | None = None
        self.took_turn = False
        #: Who was asked to take over.
        self.asked: set[str] | None = None

    def in_step(self, fields: dict[str, Any]) -> int:
        """Return how many nodes of this graph started in the step of one that starts."""
        step, key = fields.get("step"), fields.get("_retry_key")
        if type(step) is not int or key is None:
            return 0
        steps = self.steps
        if steps is None or step != self.step:
            self.step, self.steps = step, {key}
            return 1
        steps.add(key)
        return len(steps)


def is_ping_pong(turns: list[str], name: str, most: int) -> bool:
    """Note an agent's turn; whether it is the last of so many exchanges between the same two."""
    if turns and turns[-1] == name:
        return False
    turns.append(name)
    del turns[: -2 * most]
    return _alternates(turns, most)


def agent_started(node: Node, most: int) -> bool:
    """Note that an agent started; whether two agents go to and fro."""
    return _took_turn(node, most) or _nodes_around(node, most) or _asks_back(node, most)


def model_started(call: Node, most: int) -> bool:
    """Note that a model is called: the node that calls it directly is an agent."""
    return _nodes_around(call, most)


def asked(node: Node, target: str, most: int) -> None:
    """Note that a run hands over: it took a turn, and its target will when it starts."""
    parent = node.parent
    if parent is None:
        return
    if parent.asked is None:
        parent.asked = set()
    if len(parent.asked) < _MAX_ASKED:
        parent.asked.add(target)
    if node.kind in ("task", "agent"):
        _took_turn(node, most)


def _nodes_around(inner: Node, most: int) -> bool:
    """Let the node of a graph around an agent or a model call take its turn."""
    around = inner.parent
    while around is not None and around.kind in _BETWEEN:
        parent = around.parent
        if around.promotable and (parent is None or parent.kind != "agent"):
            return _took_turn(around, most)
        around = parent
    return False


def _took_turn(node: Node, most: int) -> bool:
    if node.took_turn or node.parent is None:
        return False
    node.took_turn = True
    if node.parent.turns is None:
        node.parent.turns = []
    return is_ping_pong(node.parent.turns, node.name, most)


def _asks_back(node: Node, most: int) -> bool:
    """Whether the agents around an agent are the same two by turns, with it the last."""
    path: list[str] = []
    above: Node | None = node
    for _ in range(_MAX_DEPTH):
        if above is None or len(path) == 2 * most:
            break
        if above.kind == "agent" and (not path or path[-1] != above.name):
            path.append(above.name)
        above = above.parent
    return _alternates(path, most)


def _alternates(turns: list[str], most: int) -> bool:
    if len(turns) < 2 * most:
        return False
    first, second = turns[0], turns[1]
    return first != second and turns[::2] == [first] * most and turns[1::2] == [second] * most
