"""Calls the notification hooks, one implementation at a time, each isolated and counted."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from threading import Event, RLock
from typing import Any, Final

from pluggy import HookImpl

from llmops_core.batch import SpanBatch, copied_span
from llmops_core.delivery.isolation import (
    CUT_OFF_AFTER,
    LATE_SECONDS,
    SharedLane,
    blocked_error,
)
from llmops_core.failures import Failures
from llmops_core.plugins import PluginHost
from llmops_core.running import MAX_STEP_SECONDS
from llmops_core.worker import Worker

__all__ = ["Notifier"]

#: What may wait for one plugin, of each of its hooks: calls (the handoffs of one batch count as one),
#: and bytes of the spans that they bring.
MAX_QUEUED_CALLS: Final = 256
MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
_HOOKS: Final = (
    "llmops_spans_stored",
    "llmops_handoff",
    "llmops_monitor_started",
    "llmops_monitor_stopping",
    "llmops_plugin_failed",
)

_Call = tuple[str, HookImpl, dict[str, Any]]
#: A plugin, the hook of it that is called, and since when.
_Busy = tuple[str, str, float]


class _Calls:
    """Calls of one implementation, with the arguments of each: one, or one for each handoff.

    *size* is what the arguments keep in memory, in bytes.
    """

    __slots__ = ("arguments", "hook", "implementation", "size")

    def __init__(
        self, hook: str, implementation: HookImpl, arguments: Iterable[dict[str, Any]], size: int
    ) -> None:
        self.hook = hook
        self.implementation = implementation
        self.arguments = deque(arguments)
        self.size = size

    @property
    def key(self) -> tuple[str, str]:
        """Whose hook is called, and which."""
        return self.implementation.plugin_name, self.hook


class _Queued:
    """What waits for one hook of one plugin."""

    __slots__ = ("bytes", "calls")

    def __init__(self) -> None:
        self.calls = self.bytes = 0

    def would_exceed(self, size: int) -> bool:
        """Whether *size* bytes more are too much; whatever its size, one call may always wait."""
        too_large = self.bytes + size > MAX_QUEUED_BYTES
        return self.calls >= MAX_QUEUED_CALLS or (self.calls > 0 and too_large)


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
        self._calls: deque[_Calls | Event] = deque()
        self._queued: dict[tuple[str, str], _Queued] = {}
        # Re-entrant: a failure is told of on the thread where it happens, and a finalizer or a
        # signal handler may fail while that very thread holds the lock.
        self._lock = RLock()
        self._running = False
        self._round = 0  # a drain that was left behind must not go on when its plugin returns
        self._busy: _Busy | None = None
        #: For which call we have waited how long.
        self._waited: tuple[_Busy | None, float] = (None, 0.0)
        self._looked = time.monotonic()
        self._wanted = {n for n in _HOOKS if getattr(host.manager.hook, n).get_hookimpls()}
        self._lane = SharedLane("notify", failures) if self._wanted else None
        failures.listen(self._plugin_failed)

    @property
    def workers(self) -> list[Worker]:
        """The threads to look after."""
        return [self._lane.worker] if self._lane is not None else []

    def tell(self, hook: str, **arguments: Any) -> None:
        """Queue a call of a hook. Never waits; what does not fit is counted in ``missed``."""
        self._tell_each(hook, [arguments])

    def stored(self, batch: SpanBatch, size: int) -> None:
        """Tell plugins that a batch of *size* bytes was stored, and of each handoff in it."""
        self._tell_each("llmops_spans_stored", [{"batch": batch}], size)
        if "llmops_handoff" in self._wanted and "handoff" in batch.values("kind"):
            spans = [span for span in batch.copied().rows if span.kind == "handoff"]
            share = size * len(spans) // len(batch)
            self._tell_each("llmops_handoff", [{"handoff": span} for span in spans], share)

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
        if busy is None and lane.leave_blocked():
            with self._lock:
                self._round += 1
                self._running = False
            self._failures.report("plugins", "left_behind", blocked_error())
            self._start()
        if self._is_late(busy) and busy is not None:
            name, hook, _ = busy
            with self._lock:
                left = self._busy is busy
                if left:
                    lane.leave(name)  # first: where no thread can be started nothing has changed
                    self._busy = None
                    self._round += 1
                    self._running = False
            if left:
                late = TimeoutError(f"no answer in {LATE_SECONDS:g} s")
                self._failures.report(name, hook, late)
                self._start()
        for name in lane.overdue():
            lane.late.pop(name, None)
            self._cut_off(name)

    def _is_late(self, busy: _Busy | None) -> bool:
        """Whether a call has taken too long; what passed without a look may be the process's stop."""
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        seen, waited = self._waited
        if busy is None:
            return False
        step = min(gap, now - busy[2]) if gap <= MAX_STEP_SECONDS else LATE_SECONDS / 2
        self._waited = busy, step + (waited if seen is busy else 0.0)
        return self._waited[1] > LATE_SECONDS

    def close(self, timeout: float) -> None:
        """Tell of what is still queued, waiting at most *timeout* seconds; end the helper thread."""
        if self._lane is None:
            return
        self._wait("llmops_spans_stored", timeout, watching=True)
        with self._lock:
            self.missed += sum(len(c.arguments) for c in self._calls if isinstance(c, _Calls))
            self._calls.clear()
        self._lane.stop()

    def _wait(self, hook: str, timeout: float, *, watching: bool = False) -> None:
        told = Event()
        with self._lock:
            self._calls.append(told)
        self._start()
        if not (self._watch_until(told, timeout) if watching else told.wait(timeout)):
            late = TimeoutError(f"no answer in {timeout:g} s")
            self._failures.report("plugins", hook, late)

    def _watch_until(self, told: Event, timeout: float) -> bool:
        """Wait, and do what the delivery thread no longer does: it has ended by now."""
        deadline = time.monotonic() + timeout
        while not told.wait(max(0.0, min(deadline - time.monotonic(), LATE_SECONDS / 4))):
            if time.monotonic() >= deadline:
                return False
            with contextlib.suppress(RuntimeError):  # no thread can be started, as at exit
                self.watch()
        return True

    def _tell_each(self, hook: str, arguments: list[dict[str, Any]], size: int = 0) -> None:
        """Queue one call of a hook for each of *arguments*, which keep *size* bytes."""
        if self._lane is None or hook not in self._wanted:
            return
        for implementation in reversed(getattr(self._host.manager.hook, hook).get_hookimpls()):
            if implementation.plugin_name not in self.cut_off:
                self._queue(_Calls(hook, implementation, arguments, size))
        self._start()

    def _queue(self, calls: _Calls) -> None:
        with self._lock:
            queued = self._queued.setdefault(calls.key, _Queued())
            if queued.would_exceed(calls.size):
                # A hook that hangs must not collect batches for ever, nor take others' places.
                self.missed += len(calls.arguments)
                return
            queued.calls += 1
            queued.bytes += calls.size
            self._calls.append(calls)

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
            calls = self._calls[0]
            if isinstance(calls, Event):
                self._calls.popleft()
                return calls
            # One at a time: what is not made yet stays for whoever goes on after one that hangs.
            arguments = calls.arguments.popleft()
            if not calls.arguments:
                self._calls.popleft()
                queued = self._queued[calls.key]
                queued.calls -= 1
                queued.bytes -= calls.size
            return calls.hook, calls.implementation, arguments

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
        if "handoff" in given:
            given["handoff"] = copied_span(given["handoff"])
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
