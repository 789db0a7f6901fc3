"""Calls the notification hooks, one implementation at a time, each isolated and counted."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Any, Final

from llmops_core.batch import SpanBatch
from llmops_core.delivery.collecting import CUT_OFF_AFTER
from llmops_core.delivery.lane import Lane
from llmops_core.failures import Failures
from llmops_core.plugins import PluginHost

__all__ = ["Notifier"]

MAX_QUEUED_BATCHES: Final = 64


class Notifier:
    """The hooks of the loaded plugins. pluggy stops at the first error, so we call one by one."""

    def __init__(self, host: PluginHost, failures: Failures) -> None:
        self._host = host
        self._failures = failures
        self._in_a_row: dict[str, int] = {}
        self.cut_off: list[str] = []
        self.missed_batches = 0
        self._batches: deque[SpanBatch] = deque()
        self._lock = Lock()
        self._running = False
        wanted = bool(host.manager.hook.llmops_spans_stored.get_hookimpls())
        self._lane = Lane("notify") if wanted else None
        failures.listen(self._plugin_failed)

    def call(self, hook: str, **arguments: Any) -> None:
        """Call a hook on this thread; what a plugin raises is counted."""
        for implementation in reversed(getattr(self._host.manager.hook, hook).get_hookimpls()):
            name = implementation.plugin_name
            if name in self.cut_off:
                continue
            wanted = {a: arguments[a] for a in implementation.argnames}
            try:
                implementation.function(**wanted)
            except Exception as error:
                self._failed(name, hook, error)
            else:
                self._in_a_row[name] = 0

    def stored(self, batch: SpanBatch) -> None:
        """Tell plugins that a batch was stored, on a helper thread. Never waits."""
        if self._lane is None:
            return
        with self._lock:
            if len(self._batches) >= MAX_QUEUED_BATCHES:
                self.missed_batches += 1  # a hook that hangs must not collect batches for ever
                return
            self._batches.append(batch)
            if self._running:
                return
            self._running = True
        self._lane.submit(self._drain())

    def close(self, timeout: float) -> None:
        """Tell of what is still queued, waiting at most *timeout* seconds; end the helper thread."""
        if self._lane is None:
            return
        try:
            # The loop runs its tasks in order, and a drain does not yield: this comes after it.
            self._lane.call(lambda: None, timeout=timeout)
        except TimeoutError as error:
            self._failures.report("plugins", "llmops_spans_stored", error)
        self._lane.stop()

    async def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._batches:
                    self._running = False
                    return
                batch = self._batches.popleft()
            self.call("llmops_spans_stored", batch=batch)

    def _failed(self, name: str, hook: str, error: Exception) -> None:
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        if self._in_a_row[name] == CUT_OFF_AFTER:
            self.cut_off.append(name)
        self._failures.report(name, hook, error)

    def _plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        hook = self._host.manager.hook.llmops_plugin_failed
        arguments = {"plugin": plugin, "where": where, "error": error}
        for implementation in hook.get_hookimpls():
            implementation.function(**{a: arguments[a] for a in implementation.argnames})
