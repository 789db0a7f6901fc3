"""LangGraph: pauses and resumes, which it tells only the handlers of a graph's own config.

Runs come by LangChain's hook. What asks a human does not: LangGraph reads the handlers that are told
of a pause from the config, before LangChain's hook adds any. So the two functions that read them,
public ones of ``langgraph.callbacks``, are wrapped where the graph's runner calls them, and with them
the one that makes a run's manager: a manager that a caller passes is taken as it is, without hooks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from llmops_core import Monitor
from llmops_integrations.instrumenting.langchain_hook import LangChainHook

__all__ = ["MODULE", "LangGraphHook"]

MODULE: Final = "langgraph.pregel.main"
_PAUSES: Final = (
    "get_sync_graph_callback_manager_for_config",
    "get_async_graph_callback_manager_for_config",
)
_RUNS: Final = ("get_callback_manager_for_config", "get_async_callback_manager_for_config")
_ORIGINAL: Final = "__llmops_original__"


class LangGraphHook:
    """Adds a handler to the managers that a graph's runner makes."""

    how = "wrapped functions of langgraph.pregel.main"

    def __init__(self, langchain: LangChainHook) -> None:
        self.monitor: Monitor | None = None
        self._langchain = langchain
        self._module: ModuleType | None = None

    def imported(self, module: ModuleType) -> None:
        """Wrap the functions, if this release has them; a release without them tells no pauses."""
        self._module = module
        missing = []
        for names, add in ((_PAUSES, self._add_pauses), (_RUNS, self._add_runs)):
            for name in names:
                original = getattr(module, name, None)
                if original is None:
                    missing.append(name)
                elif not hasattr(original, _ORIGINAL):
                    setattr(module, name, self._wrapped(original, add))
        if missing:
            raise LookupError(f"langgraph has no {', '.join(missing)}: pauses have no key")

    def switch(self, monitor: Monitor | None) -> None:
        """Tell *monitor* of pauses; None puts the functions back."""
        self.monitor = monitor
        module = self._module
        if monitor is not None or module is None:
            return
        for name in (*_PAUSES, *_RUNS):
            # Where somebody has wrapped ours since, it stays, and does nothing.
            original = getattr(getattr(module, name, None), _ORIGINAL, None)
            if original is not None:
                setattr(module, name, original)

    def _wrapped(
        self, original: Callable[..., Any], add: Callable[[Any, Any, Monitor], Any]
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        def manager_for(config: Any, *args: Any, **kwargs: Any) -> Any:
            manager = original(config, *args, **kwargs)
            monitor = self.monitor
            if monitor is None:
                return manager
            try:
                return add(config, manager, monitor)
            except Exception as error:
                monitor.recorder.report("instrument langgraph", error)
                return manager

        setattr(manager_for, _ORIGINAL, original)
        return manager_for

    @staticmethod
    def _add_pauses(_config: Any, manager: Any, monitor: Monitor) -> Any:
        from llmops_integrations.langgraph.handler import LangGraphHandler, shared_handler

        told = (h for h in manager.handlers if isinstance(h, LangGraphHandler))
        if not any(handler.monitor is monitor for handler in told):
            manager.add_handler(shared_handler(monitor))
        return manager

    def _add_runs(self, config: Any, manager: Any, monitor: Monitor) -> Any:
        """Add the handler to a manager that the caller passed; to a copy, as it is the caller's."""
        if manager is not config.get("callbacks"):
            return manager
        from llmops_integrations.langchain import LLMOpsCallbackHandler

        known = (h for h in manager.handlers if isinstance(h, LLMOpsCallbackHandler))
        handler = self._langchain.get()
        if handler is None or any(h.monitor is monitor for h in known):
            return manager
        manager = manager.copy()
        manager.add_handler(handler)
        return manager
