"""Calls the notification hooks, one implementation at a time, each isolated and counted."""

from __future__ import annotations

import time
from collections import deque
from threading import Event, Lock
from typing import Any, Final

from pluggy import HookImpl

from llmops_core.batch import SpanBatch
from llmops_core.delivery.isolation import CUT_OFF_AFTER, LATE_SECONDS, SharedLane
from llmops_core.failures import Failures
from llmops_core.plugins import PluginHost
from llmops_core.worker import Worker

__all__ = ["Notifier"]

MAX_QUEUED_CALLS: Final = 256
_HOOKS: Final = (
    "llmops_spans_stored",
    "llmops_handoff",
    "llmops_monitor_started",
    "llmops_monitor_stopping",
    "llmops_plugin_failed",
)

_Call = tuple[str, HookImpl, dict[str, Any]]


class Notifier:
    """The hooks of the loaded plugins, on a helper thread. pluggy stops at the first error, so we
    call one implementation after the other.

    One that takes longer than half a second keeps the thread to itself and is called no more until it
    returns; the others go on on a new one. Past ten seconds it is cut off, as it is after five
    failures in a row.
    """

    def __init__(self, host: PluginHost, failures: Failures) -> None:
        self._host = host
        self._failures = failures
        self._in_a_row: dict[str, int] = {}
        self.cut_off: list[str] = []
        #: Calls that were not made: too many waited, or the plugin had not returned.
        self.missed = 0
        self._calls: deque[_Call | Event] = deque()
        self._lock = Lock()
        self._running = False
        self._round = 0  # a drain that was left behind must not go on when its plugin returns
        self._busy: tuple[str, str, float] | None = None
        self._wanted = {n for n in _HOOKS if getattr(host.manager.hook, n).get_hookimpls()}
        self._lane = SharedLane("notify", failures) if self._wanted else None
        failures.listen(self._plugin_failed)

    @property
    def workers(self) -> list[Worker]:
        """The threads to look after."""
        return [self._lane.worker] if self._lane is not None else []

    def tell(self, hook: str, **arguments: Any) -> None:
        """Queue a call of a hook. Never waits; what does not fit is counted in ``missed``."""
        if self._lane is None or hook not in self._wanted:
            return
        for implementation in reversed(getattr(self._host.manager.hook, hook).get_hookimpls()):
            if implementation.plugin_name in self.cut_off:
                continue
            with self._lock:
                if len(self._calls) >= MAX_QUEUED_CALLS:
                    self.missed += 1  # a hook that hangs must not collect batches for ever
                    continue
                self._calls.append((hook, implementation, arguments))
        self._start()

    def stored(self, batch: SpanBatch) -> None:
        """Tell plugins that a batch was stored, and of each handoff in it."""
        self.tell("llmops_spans_stored", batch=batch)
        if "llmops_handoff" in self._wanted:
            for span in batch.copied().rows:
                if span.kind == "handoff":
                    self.tell("llmops_handoff", handoff=span)

    def tell_and_wait(self, hook: str, timeout: float, **arguments: Any) -> None:
        """Call a hook and wait until the plugins have answered, at most *timeout* seconds."""
        if hook in self._wanted:
            self.tell(hook, **arguments)
            self._wait(hook, timeout)

    def watch(self) -> None:
        """Leave a hook that hangs behind, and cut it off in the end. On the delivery thread."""
        lane, busy = self._lane, self._busy
        if lane is None:
            return
        if busy is not None and time.monotonic() - busy[2] > LATE_SECONDS:
            name, hook, _ = busy
            with self._lock:
                left = self._busy is busy
                if left:
                    self._busy = None
                    self._round += 1
                    self._running = False
                    lane.leave(name)
            if left:
                late = TimeoutError(f"no answer in {LATE_SECONDS:g} s")
                self._failures.report(name, hook, late)
                self._start()
        for name in lane.overdue():
            lane.late.pop(name, None)
            self._cut_off(name)

    def close(self, timeout: float) -> None:
        """Tell of what is still queued, waiting at most *timeout* seconds; end the helper thread."""
        if self._lane is not None:
            self._wait("llmops_spans_stored", timeout)
            self._lane.stop()

    def _wait(self, hook: str, timeout: float) -> None:
        told = Event()
        with self._lock:
            self._calls.append(told)
        self._start()
        if not told.wait(timeout):
            late = TimeoutError(f"no answer in {timeout:g} s")
            self._failures.report("plugins", hook, late)

    def _start(self) -> None:
        with self._lock:
            if self._lane is None or self._running or not self._calls:
                return
            self._running = True
            lane, number = self._lane, self._round
        lane.submit(self._drain(number))

    async def _drain(self, number: int) -> None:
        try:
            while (call := self._take(number)) is not None:
                if isinstance(call, Event):
                    call.set()
                else:
                    self._call(*call, number)
        except BaseException:
            # The end of the loop comes here, and what somebody throws into its thread.
            with self._lock:
                if number == self._round:
                    self._running = False
            self._start()
            raise

    def _take(self, number: int) -> _Call | Event | None:
        with self._lock:
            if number != self._round:
                return None
            if not self._calls:
                self._running = False
                return None
            return self._calls.popleft()

    def _call(
        self, hook: str, implementation: HookImpl, arguments: dict[str, Any], number: int
    ) -> None:
        name, lane = implementation.plugin_name, self._lane
        if name in self.cut_off:
            return
        if lane is not None and name in lane.late:
            self.missed += 1
            return
        given = {a: arguments[a] for a in implementation.argnames}
        if "batch" in given:
            given["batch"] = given["batch"].copied()
        with self._lock:
            self._busy = busy = (name, hook, time.monotonic())
        try:
            implementation.function(**given)
        except BaseException as error:  # a plugin's sys.exit must not end the lane
            self._failed(name, hook, error)
        else:
            self._in_a_row[name] = 0
        with self._lock:
            if self._busy is busy:
                self._busy = None
        if number != self._round and lane is not None:
            lane.late.pop(name, None)  # it came back after all

    def _failed(self, name: str, hook: str, error: BaseException) -> None:
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        if self._in_a_row[name] >= CUT_OFF_AFTER:
            self._cut_off(name)
        self._failures.report(name, hook, error)

    def _cut_off(self, name: str) -> None:
        with self._lock:
            if name not in self.cut_off:
                self.cut_off.append(name)

    def _plugin_failed(self, plugin: str, where: str, error: BaseException) -> None:
        if where != "llmops_plugin_failed":  # counted, and never told again
            self.tell("llmops_plugin_failed", plugin=plugin, where=where, error=error)
