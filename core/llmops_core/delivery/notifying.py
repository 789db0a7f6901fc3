"""Calls the notification hooks, one implementation at a time, each isolated and counted."""

from __future__ import annotations

from collections import deque
from concurrent.futures import CancelledError
from threading import Lock
from typing import Any, Final

from llmops_core.batch import SpanBatch
from llmops_core.delivery.collecting import CUT_OFF_AFTER
from llmops_core.delivery.lane import Lane
from llmops_core.failures import Failures
from llmops_core.plugins import PluginHost

__all__ = ["Notifier"]

MAX_QUEUED_CALLS: Final = 64
_HOOKS: Final = (
    "llmops_spans_stored",
    "llmops_monitor_started",
    "llmops_monitor_stopping",
    "llmops_plugin_failed",
)


class Notifier:
    """The hooks of the loaded plugins, on a helper thread. pluggy stops at the first error, so we
    call one implementation after the other."""

    def __init__(self, host: PluginHost, failures: Failures) -> None:
        self._host = host
        self._failures = failures
        self._in_a_row: dict[str, int] = {}
        self.cut_off: list[str] = []
        self.missed = 0
        self._calls: deque[tuple[str, dict[str, Any]]] = deque()
        self._lock = Lock()
        self._running = False
        self._wanted = {n for n in _HOOKS if getattr(host.manager.hook, n).get_hookimpls()}
        self._lane = Lane("notify") if self._wanted else None
        failures.listen(self._plugin_failed)

    def tell(self, hook: str, **arguments: Any) -> None:
        """Queue a call of a hook. Never waits; what does not fit is counted in ``missed``."""
        if self._lane is None or hook not in self._wanted:
            return
        with self._lock:
            if len(self._calls) >= MAX_QUEUED_CALLS:
                self.missed += 1  # a hook that hangs must not collect batches for ever
                return
            self._calls.append((hook, arguments))
            if self._running:
                return
            self._running = True
        self._lane.submit(self._drain())

    def stored(self, batch: SpanBatch) -> None:
        """Tell plugins that a batch was stored."""
        self.tell("llmops_spans_stored", batch=batch)

    def tell_and_wait(self, hook: str, timeout: float, **arguments: Any) -> None:
        """Call a hook and wait until the plugins have answered, at most *timeout* seconds."""
        if hook in self._wanted:
            self.tell(hook, **arguments)
            self._wait(hook, timeout)

    def close(self, timeout: float) -> None:
        """Tell of what is still queued, waiting at most *timeout* seconds; end the helper thread."""
        if self._lane is not None:
            self._wait("llmops_spans_stored", timeout)
            self._lane.stop()

    def _wait(self, hook: str, timeout: float) -> None:
        if self._lane is None:
            return
        try:
            # The loop runs its tasks in order, and a drain does not yield: this comes after it.
            self._lane.call(lambda: None, timeout=timeout)
        except (TimeoutError, CancelledError) as error:
            self._failures.report("plugins", hook, error)

    async def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._running = False
                    return
                hook, arguments = self._calls.popleft()
            self._call(hook, arguments)

    def _call(self, hook: str, arguments: dict[str, Any]) -> None:
        for implementation in reversed(getattr(self._host.manager.hook, hook).get_hookimpls()):
            name = implementation.plugin_name
            if name in self.cut_off:
                continue
            try:
                implementation.function(**{a: arguments[a] for a in implementation.argnames})
            except BaseException as error:  # a plugin's sys.exit must not end the lane
                self._failed(name, hook, error)
            else:
                self._in_a_row[name] = 0

    def _failed(self, name: str, hook: str, error: BaseException) -> None:
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        if self._in_a_row[name] == CUT_OFF_AFTER:
            self.cut_off.append(name)
        self._failures.report(name, hook, error)

    def _plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        if where != "llmops_plugin_failed":  # counted, and never told again
            self.tell("llmops_plugin_failed", plugin=plugin, where=where, error=error)
