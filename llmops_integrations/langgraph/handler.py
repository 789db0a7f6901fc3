"""The handler of LangGraph: what LangChain's records, and pauses and resumes as data."""

from __future__ import annotations

import os
import weakref
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from llmops_core import Monitor, default_monitor
from llmops_integrations.langchain import LLMOpsCallbackHandler
from llmops_integrations.langchain.handler import guarded
from llmops_integrations.langgraph import pauses

if TYPE_CHECKING:
    from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent, GraphResumeEvent
else:
    try:
        from langgraph.callbacks import GraphCallbackHandler
    except ImportError:  # before 1.1.10: outcomes are told as well, but a pause has no key
        from langchain_core.callbacks import BaseCallbackHandler as GraphCallbackHandler

__all__ = ["LangGraphHandler", "shared_handler"]


class LangGraphHandler(LLMOpsCallbackHandler, GraphCallbackHandler):
    """Records graphs: pass it in ``config={"callbacks": [...]}``, or use ``monitor_graph``.

    Like its parent it serves any number of runs, threads and loops, and never blocks or raises.
    LangGraph tells of a pause before it ends the graph's run, and of a resume after it started it;
    what is told is kept with the open run, and goes out with its end.
    """

    @guarded
    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Note that a graph pauses, and what it asks. On the thread that runs the graph."""
        run = self._runs.get(event.run_id.int) if event.run_id is not None else None
        if run is None:
            return
        run.interrupted = True
        # The functional API names one question twice.
        run.asked = tuple({_id_of(asked): asked for asked in event.interrupts}.values())
        self._bring(run, pauses.pause_fields(event, run.thread))

    @guarded
    def on_resume(self, event: GraphResumeEvent) -> None:
        """Note that a graph goes on from a checkpoint. On the thread that runs the graph."""
        run = self._runs.get(event.run_id.int) if event.run_id is not None else None
        if run is not None:
            self._bring(run, pauses.resume_fields(event, run.thread))

    def name_agents(self, graph: str, nodes: frozenset[str]) -> None:
        """Say which nodes of a graph are agents, for every handler of this monitor."""
        self._runs.name_agents(graph, nodes)

    @staticmethod
    def _bring(run: Any, fields: dict[str, Any]) -> None:
        """Let a run's end bring *fields*: a resumed run may pause again, and then brings both."""
        if not fields:
            return
        before = run.extra or {}
        attributes = {**before.get("attributes", {}), **fields.get("attributes", {})}
        run.extra = {**before, **fields, "attributes": attributes}


_handlers: Final[weakref.WeakKeyDictionary[Monitor, weakref.ref[LangGraphHandler]]] = (
    weakref.WeakKeyDictionary()
)
_lock = Lock()


def _after_fork_in_child() -> None:
    global _lock
    _lock = Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


def shared_handler(monitor: Monitor | None) -> LangGraphHandler:
    """Return the one handler of a monitor that all its monitored graphs carry.

    It is one object so that LangChain itself sees to it that a graph inside a graph records once.
    """
    monitor = default_monitor() if monitor is None else monitor
    with _lock:
        known = _handlers.get(monitor)
        handler = known() if known is not None else None
        if handler is None:
            handler = LangGraphHandler(monitor)
            _handlers[monitor] = weakref.ref(handler)
        return handler


def _id_of(asked: Any) -> Any:
    """Return what tells a question from another: its id, or itself where there is none."""
    found = getattr(asked, "id", None)
    return found if type(found) is str else id(asked)
