"""The monitor: the object a user makes. It owns the way from a handler's event to the storage."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from llmops_core.breakers import Breakers, make_breakers
from llmops_core.clock import Clock, SystemClock
from llmops_core.config import Settings, make_settings, storage_url
from llmops_core.delivery.flushing import FlushReport, report_of
from llmops_core.delivery.notifying import Notifier
from llmops_core.errors import ConfigError, LLMOpsError, MonitorClosed, StorageError
from llmops_core.failures import Failures
from llmops_core.forking import (
    Reopening,
    close_with_multiprocessing,
    is_child_of_multiprocessing,
    watch_for_multiprocessing,
)
from llmops_core.freeze.freezer import Freezer
from llmops_core.intake.guard import Guard
from llmops_core.intake.guarded import GuardedRecorder
from llmops_core.intake.queue import IntakeQueue, OffQueue
from llmops_core.intake.recorder import Recorder
from llmops_core.leaving import leave_in_journal
from llmops_core.ledgers import idle_stats
from llmops_core.materials import new_queue
from llmops_core.parts import listed, make_parts, make_storage, parts_of, storage_name
from llmops_core.pipeline import OPEN_SECONDS, Pipeline
from llmops_core.plugins import PluginHost
from llmops_core.query import SpanQuery
from llmops_core.schema import import_arrow
from llmops_core.sources import is_strict, part_lists

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.protocols import Analyzer, Collector, Exporter, Storage
    from llmops_core.storage.published import StorageBackend

__all__ = ["Monitor"]

_log: Final = logging.getLogger("llmops")
DEFAULT_TIMEOUT: Final = 10.0
QUERY_SECONDS: Final = 120.0
#: How long the plugins' start and stop hooks may keep the caller.
HOOK_SECONDS: Final = 1.0
#: The part of a flush's time that a framework may take to hand over what it still holds.
DELIVER_SHARE: Final = 0.25

#: Open monitors. Held strongly: one that is dropped without a close is still closed at exit.
_monitors: set[Monitor] = set()


class Monitor:
    """Monitors what handlers report to it, and answers queries about it.

    Making one opens it: the storage, the journal and three threads. Set-up errors are raised here,
    and say what was found, what was expected and what to do; later failures are counted
    (:meth:`stats`) and never raised into the monitored program.

    ``storage`` is a URL (``parquet:./llmops_data`` by default, or ``LLMOPS_STORAGE_URL``) or a
    storage object, of the published form too; ``exporters`` and ``collectors`` are names or
    objects; ``plugins`` are plugin objects or names of installed ones. ``breakers`` are limits that
    stop a run (:class:`~llmops_core.Breakers`); without any nothing of ours is ever raised into the
    program. The keyword settings are those of :class:`~llmops_core.config.Settings`. What the code
    does not give comes from ``LLMOPS_*`` variables, then from ``llmops.toml`` or ``[tool.llmops]``.

    With ``strict=False``, or ``LLMOPS_STRICT=false``, a set-up that cannot work does not raise: it is
    logged once, and the monitor records nothing (``stats()["off"]`` says why).
    """

    def __init__(
        self,
        storage: str | Storage | StorageBackend | None = None,
        *,
        exporters: Iterable[str | Exporter] | None = None,
        collectors: Iterable[str | Collector] | None = None,
        plugins: Iterable[object] | None = None,
        breakers: Breakers | Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        #: Why nothing is recorded; None where all is well.
        self._off: str | None = None
        parts = {"exporters": exporters, "collectors": collectors, "plugins": plugins}
        try:
            self._set_up(storage, parts, breakers, clock, settings)
        except Exception as error:
            if is_strict(settings):
                raise
            self._turn_off(error)

    def _set_up(
        self,
        storage: Any,
        parts: Mapping[str, Any],
        breakers: Breakers | Mapping[str, Any] | None,
        clock: Clock | None,
        settings: Mapping[str, Any],
    ) -> None:
        self.settings = make_settings(settings)
        self._clock = clock or SystemClock()
        limits = make_breakers(breakers)
        self._guard = None if limits is None else Guard(limits, self._clock.monotonic_ns)
        self._failures = Failures()
        named = part_lists()
        self._host = PluginHost(listed("plugins", parts["plugins"], named))
        self._target = storage_url() if storage is None else storage
        self._exporters = parts_of(self._host, "exporter", parts["exporters"], named)
        self._collectors = parts_of(self._host, "collector", parts["collectors"], named)
        self._notifier = Notifier(self._host, self._failures)
        self._lock = threading.RLock()
        self._closing = self._closed = False
        import_arrow()

        self._ended = threading.Event()
        self._late: tuple[str, ...] = ()
        self._reopening: Reopening | None = None
        self._deliver: list[Callable[[float], object]] = []
        self._pid = os.getpid()
        freezer = Freezer(self.settings.content_limit)
        try:
            pipeline = self._open(None, self._notifier)
            pipeline.start()
        except BaseException:
            self._notifier.close(0)
            raise
        self._pipeline: Pipeline | None = pipeline
        self._journal_root = pipeline.journal_root
        self._left: dict[str, Any] | None = None
        #: What handlers report to.
        self.recorder = self._make_recorder(pipeline.queue, freezer)
        _monitors.add(self)
        if is_child_of_multiprocessing():
            close_with_multiprocessing(self, Monitor.close)
        watch_for_multiprocessing(self, Monitor.close)
        self._notifier.tell_and_wait("llmops_monitor_started", HOOK_SECONDS, monitor=self)

    def _turn_off(self, error: Exception) -> None:
        """Become a monitor that takes everything and records nothing; say so once."""
        self._off = str(error) if isinstance(error, LLMOpsError) else type(error).__name__
        self.settings, self._clock = Settings(), SystemClock()
        self._failures, self._host, self._target = Failures(), PluginHost(), "off:"
        self._failures.report("monitor", "set_up", error, quiet=True)
        self._guard = self._pipeline = self._reopening = self._journal_root = self._left = None
        self._exporters, self._collectors = {}, {}
        self._lock, self._ended = threading.RLock(), threading.Event()
        self._closing = self._closed = False
        self._late, self._deliver, self._pid = (), [], os.getpid()
        self.recorder = self._make_recorder(OffQueue(), Freezer(0))
        _monitors.add(self)
        with contextlib.suppress(Exception):  # the application's log handler may fail
            _log.warning("nothing is monitored: %s", self._off)

    # ---- reading ----

    def query(self, query: SpanQuery | None = None, **conditions: Any) -> pa.Table:
        """Answer a query with an Arrow table. Blocks; sees what was recorded up to about now.

        Keyword arguments are columns to compare (``kind="llm"``, ``session_id=["a", "b"]``) and
        the parts of a :class:`~llmops_core.query.SpanQuery`: ``where``, ``since``, ``until``,
        ``columns``, ``order``, ``limit``, ``after``, ``group_by``, ``bucket_seconds``,
        ``aggregates``.
        """
        asked = self._submit_query(query, conditions)
        try:
            answer = asked.result(QUERY_SECONDS)
        except CancelledError:
            raise self._cancelled_query() from None
        except TimeoutError:
            if asked.done():
                raise  # the storage's own
            asked.cancel()
            raise StorageError(
                f"a query took longer than {QUERY_SECONDS:.0f} s", "narrow it with since= or limit="
            ) from None
        return self._table(answer)

    async def aquery(self, query: SpanQuery | None = None, **conditions: Any) -> pa.Table:
        """Answer a query without blocking the caller's event loop. See :meth:`query`."""
        asked = await asyncio.to_thread(self._submit_query, query, conditions)
        try:
            return self._table(await asyncio.wrap_future(asked))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # the caller's own
            raise self._cancelled_query() from None

    def analyze(
        self, analyzer: str | Analyzer, query: SpanQuery | None = None, **conditions: Any
    ) -> pa.Table:
        """Return what an analyzer makes of a query's answer. See :meth:`query`.

        *analyzer* is a name that a plugin registers (``"name"`` or ``"name:argument"``) or an
        object. It runs on your thread, and what it raises reaches you.
        """
        (made,) = make_parts(self._host, "analyzer", [analyzer]).values()
        table: pa.Table = made.analyze(self.query(query, **conditions))
        return table

    def stats(self) -> dict[str, Any]:
        """Return both ledgers, and the state of every part. Cheap; safe from any thread.

        ``events``: received = consumed + queued + the sum of dropped. ``spans``: made = stored +
        queued + journaled + quarantined + the sums of dropped and of skipped; ``open`` apart.
        Exact when nothing is in motion.
        """
        stats = self._stats()
        stats["wrapper_runs_skipped"] = self.recorder.skipped
        stats["plugins"] = self._host.names
        stats["off"] = self._off
        if self._guard is not None:
            stats["breakers"] = self._guard.stats()
        return stats

    # ---- ending ----

    def flush(self, timeout: float = DEFAULT_TIMEOUT) -> FlushReport:
        """Wait until everything recorded so far is stored and exported, or until the deadline."""
        if self._closed:
            return self._report(self._late)
        deadline = time.monotonic() + timeout
        self._let_deliver(deadline)
        pipeline = self._opened(max(0.0, deadline - time.monotonic()))
        if pipeline is None:
            return self._report(("opening",) if len(self.recorder.queue) else ())
        return self._report(pipeline.flush(max(0.0, deadline - time.monotonic())))

    def close(self, timeout: float | None = None) -> FlushReport:
        """Stop taking events, store what there is, and release everything. Returns by the deadline.

        Spans that are still open are stored as ``incomplete``. What could not be stored in time
        stays in the journal for the next start. A second call waits for the first and reports the
        same.
        """
        seconds = self.settings.shutdown_seconds if timeout is None else timeout
        deadline = time.monotonic() + seconds
        with self._lock:
            first, self._closing = not self._closing, True
        if first:
            self._late = ("closing",)
            try:
                self._let_deliver(deadline)
                self._close(deadline)
            except Exception as error:  # a defect of ours must not reach the program
                self._failures.report("monitor", "close", error)
            finally:
                self._closed = True
                self._ended.set()
                _monitors.discard(self)
        elif not self._ended.wait(seconds):
            return self._report(("closing",))
        return self._report(self._late)

    def _close(self, deadline: float) -> None:
        pipeline = self._open_for_the_last_time(deadline)
        if pipeline is not None:
            hook_seconds = min(HOOK_SECONDS, max(0.05, (deadline - time.monotonic()) / 4))
            self._notifier.tell_and_wait("llmops_monitor_stopping", hook_seconds, monitor=self)
            self._closed = True
            self._late = pipeline.close(max(0.0, deadline - time.monotonic()))
        else:
            self._late = ()
            if len(self.recorder.queue):
                self._leave(deadline)

    def _open_for_the_last_time(self, deadline: float) -> Pipeline | None:
        """Return the pipeline, or close the door: from then on none is opened in this process."""
        # Half of the time: one that is not open by then leaves through the journal.
        self._opened((deadline - time.monotonic()) / 2)
        with self._lock:
            if self._pipeline is None:
                self._closed = True
            return self._pipeline

    def _leave(self, deadline: float) -> None:
        self._left = leave_in_journal(
            self._journal_root,
            self.recorder.queue,
            settings=self.settings,
            clock=self._clock,
            failures=self._failures,
            deadline=deadline,
        )

    async def aflush(self, timeout: float = DEFAULT_TIMEOUT) -> FlushReport:
        """:meth:`flush`, without blocking the caller's event loop."""
        return await asyncio.to_thread(self.flush, timeout)

    async def aclose(self, timeout: float | None = None) -> FlushReport:
        """:meth:`close`, without blocking the caller's event loop."""
        return await asyncio.to_thread(self.close, timeout)

    def before_flush(self, deliver: Callable[[float], object]) -> None:
        """Let *deliver* hand over what a framework still holds, before each flush and the close.

        For integrations whose framework calls its listeners later, from threads of its own. It is
        called on the thread that flushes with the seconds that it may take at most.
        """
        with self._lock:
            if deliver not in self._deliver:
                self._deliver.append(deliver)

    def _let_deliver(self, deadline: float) -> None:
        for deliver in tuple(self._deliver):
            try:
                deliver(max(0.0, deadline - time.monotonic()) * DELIVER_SHARE)
            except Exception as error:
                self._failures.report("monitor", "before_flush", error)

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
        state = "closed" if self._closed else "open" if self._off is None else "off"
        return f"<Monitor {storage_name(self._target)} {state}>"

    @property
    def closed(self) -> bool:
        """Whether the monitor was closed."""
        return self._closed

    # ---- inside ----

    def _make_recorder(self, queue: IntakeQueue, freezer: Freezer) -> Recorder:
        given = queue, freezer, self._clock, self._failures
        joins = self.settings.join_opentelemetry
        if self._guard is None:
            return Recorder(*given, join_opentelemetry=joins)
        return GuardedRecorder(*given, join_opentelemetry=joins, guard=self._guard)

    def _open(
        self, queue: IntakeQueue | None, notifier: Notifier, *, later: bool = False
    ) -> Pipeline:
        return Pipeline(
            storage=make_storage(self._host, self._target),
            storage_name=storage_name(self._target),
            collectors=self._collectors,
            find_collector=self._find_collector,
            exporters=self._exporters,
            settings=self.settings,
            clock=self._clock,
            failures=self._failures,
            notifier=notifier,
            queue=queue,
            open_later=later,
            breakers=None if self._guard is None else self._guard.stats,
        )

    def _find_collector(self, name: str) -> object | None:
        """Return the collector that a decorated function names; None if no plugin has it."""
        try:
            return self._host.part("collector", name)
        except ConfigError:
            return None

    def _opened(self, timeout: float, *, needed: bool = False) -> Pipeline | None:
        """Return the pipeline, in a forked child once it is open; None if nothing needs it yet."""
        reopening = self._reopening
        if reopening is not None and (needed or len(self.recorder.queue)):
            reopening.wait(timeout)
        return self._pipeline

    def _submit_query(self, query: SpanQuery | None, conditions: Mapping[str, Any]) -> Future[Any]:
        if self._closed:
            raise _closed_error()
        if self._off is not None:
            raise StorageError(f"nothing is monitored: {self._off}", do="set strict=True to see it")
        query = SpanQuery.from_arguments(query, conditions)
        import duckdb  # noqa: F401 - first on the caller's thread, like pyarrow

        pipeline = self._opened(OPEN_SECONDS, needed=True)
        if pipeline is None:
            raise StorageError("the monitor could not be opened in this process", "see stats()")
        return pipeline.query(query)

    def _table(self, answer: Any) -> pa.Table:
        """Return a storage's answer, or raise where it is none: it would fail wherever it is used."""
        import pyarrow as pa

        if issubclass(type(answer), pa.Table):  # isinstance would ask the object itself
            table: pa.Table = answer
            return table
        raise StorageError(
            f"storage {storage_name(self._target)!r} answered a query with {type(answer).__name__}",
            "expected a pyarrow.Table",
            "let its query() return one",
        )

    def _cancelled_query(self) -> LLMOpsError:
        if self._closing:
            return _closed_error()
        return StorageError("the storage cancelled the query", "ask again")

    def _stats(self) -> dict[str, Any]:
        if self._pipeline is not None:
            return self._pipeline.stats()
        return self._left or idle_stats(self.recorder.queue, self._failures)

    def _report(self, waiting: tuple[str, ...]) -> FlushReport:
        return report_of(self._stats(), waiting, closed=self._closed)

    def _after_fork_in_child(self) -> None:
        """Leave what is the parent's; take events into a queue of our own at once."""
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._closing = self._closed  # a thread of the parent's may have been closing it
        self._failures.after_fork()
        if self._off is not None:
            self.recorder.queue = OffQueue()
            return
        if self._guard is not None:
            self._guard.after_fork()
        if self._pipeline is not None:
            self._pipeline.abandon()
        self._pipeline = None
        self._reopening = Reopening(
            self._open_in_child,
            lambda error: self._failures.report("monitor", "open_in_child", error),
        )
        queue = new_queue(self.settings)
        queue.wake = self._reopening.start
        self.recorder.queue = queue
        watch_for_multiprocessing(self, Monitor.close)

    def _open_in_child(self) -> bool:
        """Open a pipeline for what waits, unless the monitor was closed meanwhile."""
        notifier = Notifier(self._host, self._failures)
        try:
            pipeline = self._open(self.recorder.queue, notifier, later=True)
            with self._lock:
                if self._closed:
                    pipeline.discard()
                else:
                    pipeline.start()
                    self._notifier, self._pipeline = notifier, pipeline
        except BaseException:
            notifier.close(0)
            raise
        return not self._closed


def _closed_error() -> MonitorClosed:
    return MonitorClosed(
        "the monitor is closed", "expected an open one", "read with open_storage(url)"
    )


def _after_fork_in_child() -> None:
    for monitor in list(_monitors):
        monitor._after_fork_in_child()


@atexit.register
def _close_at_exit() -> None:
    # A fork from C code that tells Python nothing leaves us with the monitors of another process.
    mine = [monitor for monitor in _monitors if monitor._pid == os.getpid()]
    deadline = time.monotonic() + max((m.settings.shutdown_seconds for m in mine), default=0.0)
    for left, monitor in zip(range(len(mine), 0, -1), mine, strict=True):
        share = (deadline - time.monotonic()) / left
        try:
            # In a forked child that has recorded nothing this closes nothing.
            monitor.close(max(0.0, min(share, monitor.settings.shutdown_seconds)))
        except KeyboardInterrupt:
            return  # a second Ctrl-C: leave now; the journal holds what is not stored
        except Exception:  # noqa: S112 - the logging may be gone by now
            continue


os.register_at_fork(after_in_child=_after_fork_in_child)
