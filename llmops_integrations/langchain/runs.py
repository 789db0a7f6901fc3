"""The open runs of one handler: who is whose parent, and what a run was at its start.

Ends carry neither metadata nor, mostly, a name, and children of a run that is not stored belong to
that run's parent; so a handler must remember its open runs. A cancelled model, tool or retriever
never ends, so the table is bounded: past :data:`MAX_RUNS` the oldest run is forgotten.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import Any, Final

import msgspec

from llmops_core import OpenRun

__all__ = ["ENDED", "MAX_RUNS", "OpenRuns", "Run", "open_run_of", "runs_known_to", "runs_of"]

MAX_RUNS: Final = 100_000
MAX_GRAPHS: Final = 1_000


class Run(msgspec.Struct):
    """One open run. ``kind`` None: it is not stored, and its children get its ``parent``."""

    kind: str | None
    name: str
    parent: int | None
    given_parent: int | None
    facts: int = 0
    interrupted: bool = False
    model_known: bool = False
    streamed: bool = False
    owner: object = None
    #: The checkpointer's thread, what a graph asks a human, and fields that its end brings.
    thread: str | None = None
    asked: tuple[Any, ...] = ()
    extra: dict[str, Any] | None = None
    #: The trace's id, as text or as the root's run id; and what a framework that tells its runs
    #: late had open when this one started.
    trace: int | str | None = None
    late: object = None
    #: Whether its parent is a run of that framework.
    late_parent: bool = False
    #: Handlers that saw its start and not its end yet; and whether one of them recorded the end.
    handlers: int = 1
    ended: bool = False


#: Stands for a run whose end another handler has recorded: there is nothing left to tell.
ENDED: Final = Run(None, "", None, None, model_known=True)


def open_run_of(run: Run, run_id: int | None) -> OpenRun | None:
    """Return an open run as other frameworks see it: the run itself, or the one that is stored."""
    if run.kind is not None:
        return None if run_id is None else OpenRun(run_id, run.trace, run.late)
    if run.parent is None:
        return None
    return OpenRun(run.parent, run.trace, run.late, run.late_parent)


class OpenRuns:
    """Runs by id. Safe from any thread: each step is one atomic operation of a dict."""

    def __init__(self, limit: int = MAX_RUNS) -> None:
        # Ordered by C: the first key of a plain dict is searched for among all that were deleted.
        self._runs: OrderedDict[int, Run] = OrderedDict()
        self._limit = limit
        self.get = self._runs.get
        #: Nodes that were named as agents, and by which graphs.
        self.agents: dict[str, frozenset[str]] = {}
        self.graphs: set[str] = set()

    def __len__(self) -> int:
        return len(self._runs)

    def open(self, run_id: int, run: Run, owner: object = None) -> bool:
        """Remember a run; forget the oldest if there are too many.

        A run that is open already stays as it is, and the answer is False: its first *owner* is the
        one that records it.
        """
        runs = self._runs
        run.owner = owner
        known = runs.setdefault(run_id, run)
        if known is not run:
            known.handlers += 1
            return False
        while len(runs) > self._limit:
            try:
                runs.popitem(last=False)
            except KeyError:  # another thread was here first
                break
        return True

    def close(self, run_id: int) -> Run | None:
        """Return what was known of a run that ends, :data:`ENDED` if that is recorded already.

        It is forgotten when all handlers that saw its start have seen its end.
        """
        run = self._runs.get(run_id)
        if run is None:
            return None
        if run.handlers <= 1:
            self._runs.pop(run_id, None)
            if not run.ended:  # the most common case: one handler
                return run
        run.handlers -= 1
        if run.ended:
            return ENDED
        run.ended = True
        return run

    def name_agents(self, graph: str, nodes: frozenset[str]) -> None:
        """Remember a graph's name, and which of its nodes are agents."""
        if len(self.graphs) >= MAX_GRAPHS:
            return  # a name for each request: under an unknown name any graph's agents count
        self.graphs.add(graph)
        for node in nodes:
            self.agents[node] = self.agents.get(node, frozenset()) | {graph}

    def is_named_agent(self, node: str | None, graph_id: int | None) -> bool:
        """Whether a node was named as an agent by the graph that it runs in.

        A call may give a graph another name (``run_name``): under a name that no graph has, a node
        is an agent if any graph named it.
        """
        graphs = self.agents.get(node) if node is not None else None
        if not graphs:
            return False
        graph = self.get(graph_id) if graph_id is not None else None
        return graph is None or graph.name in graphs or graph.name not in self.graphs


#: The same by recorder, for decorated calls: they know no monitor.
_by_recorder: weakref.WeakKeyDictionary[Any, OpenRuns] = weakref.WeakKeyDictionary()
_books: weakref.WeakKeyDictionary[Any, OpenRuns] = weakref.WeakKeyDictionary()
_books_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _books_lock
    _books_lock = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


def runs_of(monitor: Any) -> OpenRuns:
    """Return the open runs of a monitor, which all its handlers share.

    Where two handlers of one monitor see the same run, the first start and the first end count; so
    what one of them learned about a run must be known to the other.
    """
    with _books_lock:
        found = _books.get(monitor)
        if found is None:
            found = _books[monitor] = OpenRuns()
            _by_recorder[monitor.recorder] = found
        return found


def runs_known_to(recorder: object) -> OpenRuns | None:
    """Return the open runs that handlers report to a recorder; None if it has no handler."""
    return _by_recorder.get(recorder)
