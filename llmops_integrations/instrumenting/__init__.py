"""``instrument()``: record everything that the installed frameworks run, without changing calls."""

from __future__ import annotations

import os
import threading
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Final

from llmops_core import ConfigError, Monitor, default_monitor, follow_default_monitor
from llmops_integrations.imports import forget, when_imported
from llmops_integrations.instrumenting import crewai_hook, langchain_hook, langgraph_hook

__all__ = ["instrument", "instrumented", "uninstrument"]


class _Framework:
    """A framework, its hook, and whether that is in place."""

    def __init__(self, name: str, module: str, hook: Any) -> None:
        self.name = name
        self.module = module
        self.hook = hook
        self.found = False
        self.failure: str | None = None

    def watch(self, monitor: Monitor) -> None:
        """Attach to a framework that is imported, or once it is."""
        if not self.found and self.failure is None:
            forget(self.module, self._imported)
            when_imported(self.module, self._imported)

    def switch(self, monitor: Monitor | None) -> None:
        """Record into *monitor* from now on; None: nothing."""
        try:
            self.hook.switch(monitor)
        except Exception as error:
            self._failed(error, monitor)

    def forget(self) -> None:
        """Wait for the framework no longer."""
        self.hook.switch(None)
        forget(self.module, self._imported)
        self.found, self.failure = False, None

    def _imported(self, module: ModuleType) -> None:
        """Called on the importing thread, in the middle of the user's import: it never raises."""
        try:
            self.hook.imported(module)
            self.found = True
        except Exception as error:  # a release that is not supported: the others go on
            self._failed(error, self.hook.monitor)

    def _failed(self, error: Exception, monitor: Monitor | None) -> None:
        self.failure = f"{type(error).__name__}: {error}"
        if monitor is not None:
            monitor.recorder.report(f"instrument {self.name}", error)

    @property
    def state(self) -> str:
        """What is hooked and how, for people."""
        failure = self.failure or getattr(self.hook, "failure", None)
        if failure is not None:
            return f"failed: {failure}"
        if self.hook.monitor is None:
            return "off"
        if self.found:
            return f"attached: {self.hook.how}"
        there = find_spec(self.module.partition(".")[0]) is not None
        return "waits for its import" if there else "not installed"


_langchain: Final = langchain_hook.LangChainHook()
_frameworks: Final = (
    _Framework("langchain", langchain_hook.MODULE, _langchain),
    _Framework("langgraph", langgraph_hook.MODULE, langgraph_hook.LangGraphHook(_langchain)),
    _Framework("crewai", crewai_hook.MODULE, crewai_hook.CrewAIHook()),
)
_monitor: Monitor | None = None
#: Whether it is the default monitor, whichever that is.
_follows = False
_lock = threading.RLock()


def instrument(monitor: Monitor | None = None) -> Monitor:
    """Record everything that LangChain, LangGraph and CrewAI run in this process, from now on.

    Call it once, anywhere, before or after the frameworks are imported; it imports none of them.
    It is seen from every thread and event loop. Handlers that are passed to calls, ``monitor_graph``
    and ``monitor_crew`` may be used beside it: each run is recorded once. Calling it again changes
    nothing, or, with another monitor, moves there what begins from then on.

    Without *monitor* the default one is opened here and followed: ``initialize_monitoring`` may
    replace it later. Set-up errors are raised here; a framework whose release cannot be hooked is
    counted and told by :func:`instrumented`. Returns the monitor. Call it on any thread; a fork
    takes it along.
    """
    if monitor is not None and not isinstance(monitor, Monitor):
        raise ConfigError(
            f"instrument() was given a {type(monitor).__name__}", "expected a Monitor or nothing"
        )
    global _follows
    follow_default_monitor(_default_changed)
    at_work = _monitor
    if monitor is None and at_work is not None and not at_work.closed:
        return at_work
    # Before our lock is taken: whoever sets the default monitor holds its lock, and then asks for ours.
    chosen = default_monitor() if monitor is None else monitor
    with _lock:
        _follows = monitor is None
        _attach(chosen)
    return chosen


def uninstrument() -> None:
    """Record nothing more that begins from now on; what has begun is recorded to its end.

    The monitor stays open. What was wrapped or attached is taken back. Calling it again, or without
    ``instrument()``, does nothing.
    """
    global _monitor, _follows
    with _lock:
        if _monitor is None:
            return
        _monitor, _follows = None, False
        for framework in _frameworks:
            framework.forget()


def instrumented() -> dict[str, str]:
    """Return, by framework, whether ``instrument()`` has attached to it, and how."""
    with _lock:
        return {framework.name: framework.state for framework in _frameworks}


def _attach(monitor: Monitor) -> None:
    global _monitor
    if monitor is _monitor:
        return
    _monitor = monitor
    for framework in _frameworks:
        framework.switch(monitor)
        framework.watch(monitor)


def _default_changed(monitor: Monitor) -> None:
    with _lock:
        if _follows:
            _attach(monitor)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)
