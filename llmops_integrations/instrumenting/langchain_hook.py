"""LangChain: its own hook, which it asks for a handler at each call that begins a tree."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from llmops_core import Monitor

if TYPE_CHECKING:
    from langchain_core.callbacks.base import BaseCallbackHandler

__all__ = ["MODULE", "LangChainHook"]

#: Where LangChain keeps its hooks. It is imported with the first call at the latest.
MODULE: Final = "langchain_core.tracers.context"


class LangChainHook:
    """Stands where LangChain expects a context variable: it is asked with ``get()`` alone.

    A context variable that is set is not seen in plain threads, and one with a default cannot be
    switched off; LangChain's list of hooks has no way to take one out. This is seen everywhere, and
    switched off it answers None, so that nothing is attached.
    """

    how = "register_configure_hook"

    def __init__(self) -> None:
        self.monitor: Monitor | None = None
        self.failure: str | None = None
        self._handler: BaseCallbackHandler | None = None
        self._registered: ModuleType | None = None

    def get(self) -> BaseCallbackHandler | None:
        """Return the handler to attach; None while it is switched off. Never raises."""
        if self._handler is None and self.monitor is not None:
            self._handler = self._make(self.monitor)
        return self._handler

    def imported(self, module: ModuleType) -> None:
        """Put the hook into LangChain's list. Its packages may be half imported by now, so that the
        handler is made when it is asked for, which is set-up, once.
        """
        from llmops_integrations.instrumenting.attached import Attached

        if self._registered is not module:
            switch: Any = self
            module.register_configure_hook(switch, inheritable=True, handle_class=Attached)
            self._registered = module

    def switch(self, monitor: Monitor | None) -> None:
        """Attach to *monitor* what begins from now on; None attaches nothing any more."""
        self._handler, self.monitor, self.failure = None, monitor, None

    def _make(self, monitor: Monitor) -> BaseCallbackHandler | None:
        try:
            from llmops_integrations.instrumenting.everywhere import EverywhereHandler

            return EverywhereHandler(monitor)
        except Exception as error:
            self.monitor = None  # it would be asked at each call
            self.failure = f"{type(error).__name__}: {error}"
            monitor.recorder.report("instrument langchain", error)
            return None
