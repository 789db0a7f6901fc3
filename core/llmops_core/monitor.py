"""The monitor: the object a user makes. It owns the way from a handler's event to the storage."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from llmops_core.clock import Clock, SystemClock
from llmops_core.config import make_settings, storage_url
from llmops_core.delivery.flushing import FlushReport
from llmops_core.delivery.notifying import Notifier
from llmops_core.errors import ConfigError, MonitorClosed
from llmops_core.failures import Failures
from llmops_core.freeze.freezer import Freezer
from llmops_core.intake.queue import IntakeQueue
from llmops_core.intake.recorder import Recorder
from llmops_core.parts import make_parts, make_storage, storage_name
from llmops_core.pipeline import Pipeline
from llmops_core.plugins import PluginHost
from llmops_core.query import SpanQuery
from llmops_core.schema import import_arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.protocols import Collector, Exporter, Storage

__all__ = ["Monitor", "default_monitor"]

DEFAULT_COLLECTORS: Final = ("capacity",)
DEFAULT_TIMEOUT: Final = 10.0

_monitors: weakref.WeakSet[Monitor] = weakref.WeakSet()
_default: Monitor | None = None
_default_lock = threading.RLock()


class Monitor:
    """Monitors what handlers report to it, and answers queries about it.

    Making one opens it: the storage, the journal and three threads. Set-up errors are raised here,
    and say what was found, what was expected and what to do; later failures are counted
    (:meth:`stats`) and never raised into the monitored program.

    ``storage`` is a URL (``parquet:./llmops_data`` by default, or ``LLMOPS_STORAGE_URL``) or a
    storage object; ``exporters`` and ``collectors`` are names or objects; ``plugins`` are plugin
    objects or names of installed ones. The keyword settings are those of
    :class:`~llmops_core.config.Settings`.
    """

    def __init__(
        self,
        storage: str | Storage | None = None,
        *,
        exporters: Iterable[str | Exporter] = (),
        collectors: Iterable[str | Collector] = DEFAULT_COLLECTORS,
        plugins: Iterable[object] = (),
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        self.settings = make_settings(settings)
        self._clock = clock or SystemClock()
        self._failures = Failures()
        self._host = PluginHost(_listed("plugins", plugins))
        self._target = storage_url() if storage is None else storage
        self._exporters = make_parts(self._host, "exporter", _listed("exporters", exporters))
        self._collectors = make_parts(self._host, "collector", _listed("collectors", collectors))
        self._notifier = Notifier(self._host, self._failures)
        self._lock = threading.RLock()
        self._closed = False
        import_arrow()

        self._pipeline = self._open()
        self._pid = os.getpid()
        freezer = Freezer(self.settings.content_limit)
        #: What handlers report to.
        self.recorder = Recorder(self._pipeline.queue, freezer, self._clock, self._failures)
        _monitors.add(self)
        self._notifier.call("llmops_monitor_started", monitor=self)

    # ---- reading ----

    def query(self, query: SpanQuery | None = None, **conditions: Any) -> pa.Table:
        """Answer a query with an Arrow table. Blocks; sees what was recorded up to about now.

        Keyword arguments are columns to compare (``kind="llm"``, ``session_id=["a", "b"]``) and
        the parts of a :class:`~llmops_core.query.SpanQuery`: ``where``, ``since``, ``until``,
        ``columns``, ``order``, ``limit``, ``after``, ``group_by``, ``bucket_seconds``,
        ``aggregates``.
        """
        return self._submit_query(query, conditions).result()

    async def aquery(self, query: SpanQuery | None = None, **conditions: Any) -> pa.Table:
        """Answer a query without blocking the caller's event loop. See :meth:`query`."""
        return await asyncio.wrap_future(self._submit_query(query, conditions))

    def stats(self) -> dict[str, Any]:
        """Return both ledgers, and the state of every part. Cheap; safe from any thread.

        ``events``: received = consumed + queued + the sum of dropped. ``spans``: made = stored +
        queued + journaled + quarantined + the sums of dropped and of skipped; ``open`` apart.
        Exact when nothing is in motion.
        """
        stats = self._pipeline.stats()
        stats["wrapper_runs_skipped"] = self.recorder.skipped
        stats["plugins"] = self._host.names
        return stats

    # ---- ending ----

    def flush(self, timeout: float = DEFAULT_TIMEOUT) -> FlushReport:
        """Wait until everything recorded so far is stored and exported, or until the deadline."""
        waiting = () if self._closed else self._pipeline.flush(timeout)
        return self._report(waiting)

    def close(self, timeout: float | None = None) -> FlushReport:
        """Stop taking events, store what there is, and release everything. Returns by the deadline.

        Spans that are still open are stored as ``incomplete``. What could not be stored in time
        stays in the journal for the next start. Closing twice does nothing.
        """
        with self._lock:
            if self._closed:
                return self._report(())
            self._notifier.call("llmops_monitor_stopping", monitor=self)
            self._closed = True
        waiting = self._pipeline.close(
            self.settings.shutdown_seconds if timeout is None else timeout
        )
        _monitors.discard(self)
        return self._report(waiting)

    async def aflush(self, timeout: float = DEFAULT_TIMEOUT) -> FlushReport:
        """:meth:`flush`, without blocking the caller's event loop."""
        return await asyncio.to_thread(self.flush, timeout)

    async def aclose(self, timeout: float | None = None) -> FlushReport:
        """:meth:`close`, without blocking the caller's event loop."""
        return await asyncio.to_thread(self.close, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Monitor {storage_name(self._target)} {state}>"

    @property
    def closed(self) -> bool:
        """Whether the monitor was closed."""
        return self._closed

    # ---- inside ----

    def _open(self) -> Pipeline:
        return Pipeline(
            storage=make_storage(self._host, self._target),
            storage_name=storage_name(self._target),
            collectors=self._collectors,
            exporters=self._exporters,
            settings=self.settings,
            clock=self._clock,
            failures=self._failures,
            notifier=self._notifier,
        )

    def _submit_query(self, query: SpanQuery | None, conditions: Mapping[str, Any]) -> Any:
        if self._closed:
            raise MonitorClosed(
                "the monitor is closed", "expected an open one", "read with open_storage(url)"
            )
        query = SpanQuery.from_arguments(query, conditions)
        import duckdb  # noqa: F401 - first on the caller's thread, like pyarrow

        pipeline = self._pipeline
        return pipeline.lane.submit(pipeline.storage.query(query))

    def _report(self, waiting: tuple[str, ...]) -> FlushReport:
        stats = self._pipeline.stats()
        events, spans = stats["events"], stats["spans"]
        dropped = dict(spans["dropped"])
        for reason, count in events["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
        return FlushReport(
            complete=not waiting,
            waiting=waiting,
            queued=events["queued"] + spans["queued"],
            journaled=spans["journaled"],
            dropped=dropped,
        )

    def _after_fork_in_child(self) -> None:
        """Leave the parent's threads, queue and journal; open our own at the first event."""
        parent = self._pipeline
        parent.abandon()
        self.recorder.queue = _Dormant(self)  # type: ignore[assignment]

    def _revive(self) -> None:
        with self._lock:
            queue: object = self.recorder.queue
            if isinstance(queue, _Dormant) and not self._closed:
                self._notifier = Notifier(self._host, self._failures)
                self._pipeline = self._open()
                self._pid = os.getpid()
                self.recorder.queue = self._pipeline.queue
                _close_with_multiprocessing(self)


class _Dormant:
    """Stands in for the queue in a forked child until the first event comes."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def put(self, event: Any) -> None:
        try:
            self._monitor._revive()
        except Exception as error:  # the child works on; its events are not monitored
            self._monitor._failures.report("monitor", "revive", error)
            return
        queue: object = self._monitor.recorder.queue
        if isinstance(queue, IntakeQueue):
            queue.put(event)


def default_monitor() -> Monitor:
    """Return the monitor that is used where none is named, opening it at first.

    Its storage is ``LLMOPS_STORAGE_URL``, else ``parquet:./llmops_data``. It is closed at exit.
    """
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Monitor()
        return _default


def _listed(name: str, value: Any) -> list[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r}", "expected a list", f"write {name}=[{value!r}]")
    return list(value)


def _close_with_multiprocessing(monitor: Monitor) -> None:
    # Children of multiprocessing leave by os._exit, without atexit: only its own Finalize runs.
    import sys

    if "multiprocessing.util" in sys.modules:
        from multiprocessing import util

        util.Finalize(monitor, Monitor.close, args=(monitor,), exitpriority=10)


def _after_fork_in_child() -> None:
    global _default_lock
    _default_lock = threading.RLock()
    for monitor in list(_monitors):
        monitor._lock = threading.RLock()
        monitor._after_fork_in_child()


@atexit.register
def _close_at_exit() -> None:
    for monitor in list(_monitors):
        if monitor._pid == os.getpid():  # a forked child that exits runs its parent's handlers too
            with contextlib.suppress(Exception):
                monitor.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
