"""What is remembered of CrewAI's runs: a node each, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["MAX_NODES", "Cause", "Node", "Nodes", "Output"]

#: Runs that are remembered; past it the oldest are forgotten.
MAX_NODES: Final = 50_000


class Output:
    """What a task gave, until its crew has ended: the next tasks get it as their context."""

    __slots__ = ("agent", "at", "raw", "task")

    def __init__(self, task: str, agent: str, raw: str, at: int) -> None:
        self.task = task
        self.agent = agent
        self.raw = raw
        self.at = at


class Cause:
    """The failure that others may carry: what it said, where, and of which type, once it is known."""

    __slots__ = ("message", "node", "type")

    def __init__(self, message: Any, node: Node, kind: str | None) -> None:
        self.message = message
        self.node = node
        self.type = kind


class Node:
    """One run, open or ended. ``above`` is the stored run that it hangs below."""

    __slots__ = (
        "above",
        "agent",
        "asks",
        "attempt",
        "block",
        "cause",
        "children",
        "ended",
        "given",
        "handed",
        "hidden",
        "hierarchical",
        "kind",
        "last_child",
        "manager",
        "model",
        "model_calls",
        "name",
        "outcome",
        "outputs",
        "parent",
        "refused",
        "resumes",
        "root",
        "run_id",
        "sibling",
        "start_ns",
        "task",
        "tries",
        "type",
        "waiting",
        "watched",
    )

    def __init__(
        self,
        kind: str,
        run_id: int,
        parent: Node | None,
        fields: dict[str, Any],
        *,
        watched: bool,
    ) -> None:
        self.type = kind
        self.run_id = run_id
        self.parent = parent
        self.watched = watched
        self.root: int = parent.root if parent is not None and parent.watched else run_id
        self.kind: str = fields.get("kind", "chain")
        self.name: str = fields.get("name", kind)
        self.agent: str | None = fields.get("agent")
        self.above: int | None = None
        self.hidden = self.ended = self.handed = self.manager = self.hierarchical = False
        self.outcome: str | None = None
        self.attempt = 1
        #: How often each agent was executed right in this run.
        self.tries: dict[str, int] = {}
        #: How often a person may yet be asked about its answer.
        self.asks: int = fields.pop("_asks", 0)
        self.start_ns = 0
        self.model: str | None = None
        self.model_calls = 0
        self.children = 0
        self.given: Any = None
        self.task: str | None = None
        self.outputs: list[Output] = []
        self.cause: Cause | None = None
        self.refused: tuple[Any, int] | None = None
        self.resumes: tuple[str | None, str | None] | None = None
        self.block: object = None
        self.waiting: Node | None = None
        self.sibling: Node | None = None
        self.last_child: Node | None = None

    def take(self, fields: dict[str, Any]) -> None:
        """Take what is for us out of a start's fields, and tell the parent of its child."""
        self.hierarchical = fields.pop("_hierarchical", False)
        self.task = fields.pop("_task", None)
        if self.kind == "tool":
            self.given = getattr(fields.get("input"), "value", None)
        parent = self.parent
        if parent is None:
            return
        if fields.pop("_waits", False):
            parent.waiting = self
        if self.kind in ("tool", "llm"):
            parent.children += 1
            self.sibling = parent.last_child if self.kind == "tool" else None
            parent.last_child = self
            if self.sibling is not None:
                self.sibling.sibling = None  # one is enough to tell a second try

    def stored(self) -> int | None:
        """Return the run that what starts in this one hangs below."""
        return self.above if self.hidden else self.run_id

    def parent_stored(self) -> Node | None:
        """Return the nearest run around this one that is stored."""
        above = self.parent
        while above is not None and above.hidden:
            above = above.parent
        return above

    def nearest(self, wanted: str, *, stop: str | None = None) -> Node | None:
        """Return the nearest stored run around this one of a kind or a type."""
        above = self.parent_stored()
        while above is not None and above.kind != stop:
            if wanted in (above.kind, above.type):
                return above
            above = above.parent_stored()
        return None

    def is_within(self, outer: Node) -> bool:
        """Whether this is *outer* or a run in it."""
        above: Node | None = self
        while above is not None:
            if above is outer:
                return True
            above = above.parent
        return False

    def count_model_call(self) -> None:
        """Let the agents around know that a model was called."""
        above = self.parent
        while above is not None:
            above.model_calls += 1
            above = above.parent

    def steps(self) -> int:
        """Return how many model and tool calls were made right in this run."""
        return self.children


class Nodes:
    """Nodes by run id, in the order in which they started."""

    def __init__(self, limit: int = MAX_NODES) -> None:
        self._nodes: dict[int, Node] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, run_id: int | None) -> Node | None:
        """Return a run that is remembered."""
        return self._nodes.get(run_id) if run_id is not None else None

    def add(self, node: Node) -> None:
        """Remember a run; forget the oldest if there are too many."""
        self._nodes[node.run_id] = node
        while len(self._nodes) > self._limit:
            self._nodes.pop(next(iter(self._nodes)))

    def open_roots(self) -> Iterator[Node]:
        """Return the roots that have not ended."""
        return iter([n for n in self._nodes.values() if n.root == n.run_id and not n.ended])
