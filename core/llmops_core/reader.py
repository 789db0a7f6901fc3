"""Read spans back: ``open_storage(url)`` gives a reader that needs no monitor.

The storages are asynchronous; the reader runs them on one background thread with a loop of its own,
so its blocking methods work anywhere, also inside of a running event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import os
import threading
from collections.abc import Coroutine, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from llmops_core.batch import spans_from_arrow
from llmops_core.errors import ConfigError, QueryError, StorageError
from llmops_core.forking import renew_after_fork
from llmops_core.plugins import PluginHost
from llmops_core.protocols import Storage
from llmops_core.query import Aggregate, Filter, SpanQuery
from llmops_core.query.description import Moment
from llmops_core.span import Span
from llmops_core.storage.published import StorageBackend, adapted

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["StorageReader", "open_storage"]

TIMEOUT_SECONDS: Final = 60.0
_T = TypeVar("_T")


def open_storage(
    storage: str | Storage | StorageBackend,
    *,
    timeout: float = TIMEOUT_SECONDS,
    plugins: Iterable[object] = (),
) -> StorageReader:
    """Open a storage for reading and return a reader of it; close it, or use it with ``with``.

    *storage* is a URL or a storage object that is not open yet. Blocks until it is open. Raises an
    ``LLMOpsError`` if it cannot be, and creates nothing where nothing is.
    """
    made = adapted(PluginHost(plugins).storage(storage) if isinstance(storage, str) else storage)
    if not isinstance(made, Storage):
        raise ConfigError(
            f"storage {type(made).__name__} is not a storage",
            "expected a URL or an object with open, write, query and close",
        )
    if hasattr(made, "read_only"):
        made.read_only = True
    reader = StorageReader(made, timeout=timeout)
    reader._open()
    return reader


class StorageReader:
    """Blocking queries, and asynchronous twins. Safe to use from any thread.

    Each call waits at most *timeout* seconds, then cancels its query and raises ``StorageError``.
    Made by :func:`open_storage`.
    """

    def __init__(self, storage: Storage, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self.storage = storage
        self._timeout = timeout
        self._loop = _LoopThread()
        self._closed = False

    def query(
        self,
        query: SpanQuery | None = None,
        /,
        *,
        where: Iterable[Filter | Sequence[Any]] = (),
        since: Moment = None,
        until: Moment = None,
        columns: Iterable[str] = (),
        order: Iterable[str] = (),
        limit: int | None = None,
        after: Sequence[Any] | None = None,
        group_by: Iterable[str] = (),
        bucket_seconds: float | None = None,
        aggregates: Iterable[str | Aggregate] = (),
        **equal: object,
    ) -> pa.Table:
        """Answer a query: a ``SpanQuery``, or what :meth:`SpanQuery.build` takes by name.

        Any other name is a column that must have the value: ``query(kind="llm", since="1h")``.
        Raises ``QueryError`` for a query that makes no sense, ``StorageError`` if it fails.
        """
        built = _built(
            query,
            equal,
            where=where,
            since=since,
            until=until,
            columns=columns,
            order=order,
            limit=limit,
            after=after,
            group_by=group_by,
            bucket_seconds=bucket_seconds,
            aggregates=aggregates,
        )
        return self._wait(self.storage.query(built))

    async def aquery(self, query: SpanQuery | None = None, /, **arguments: Any) -> pa.Table:
        """Answer a query as :meth:`query` does, without blocking the caller's loop."""
        named = {name: arguments.pop(name) for name in _ARGUMENTS if name in arguments}
        return await self._await(self.storage.query(_built(query, arguments, **named)))

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of one trace, oldest first; none if there is no such trace."""
        return spans_from_arrow(self.query(trace_id=trace_id, order=("start_time",)))

    def close(self) -> None:
        """Close the storage and end the thread. Calling it again does nothing."""
        if not self._closed:
            try:
                self._wait(self.storage.close())
            finally:
                self._closed = True
                self._loop.stop()

    async def aclose(self) -> None:
        """Close as :meth:`close` does, without blocking the caller's loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _open(self) -> None:
        # Here and not on the thread: a first import there would hang a child that is forked
        # meanwhile.
        for heavy in ("pyarrow", "duckdb"):
            importlib.import_module(heavy)

        try:
            self._wait(self.storage.open())
        except BaseException:
            self._closed = True
            self._loop.stop()
            raise

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = self._submit(work)
        try:
            return future.result(self._timeout)
        except concurrent.futures.TimeoutError:
            raise self._late() from None
        finally:
            future.cancel()  # no effect once it is done; else also on Ctrl-C

    async def _await(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.wrap_future(self._submit(work))
        try:
            return await asyncio.wait_for(future, self._timeout)
        except TimeoutError:
            raise self._late() from None

    def _submit(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        if self._closed:
            work.close()
            raise StorageError("the storage is closed", "expected an open one", "open it again")
        try:
            return self._loop.submit(work)
        except BaseException:
            work.close()
            raise

    def _late(self) -> StorageError:
        return StorageError(
            f"the storage did not answer within {self._timeout:g} s",
            do="select less, or give open_storage a longer timeout",
        )


_ARGUMENTS: Final = (
    "where",
    "since",
    "until",
    "columns",
    "order",
    "limit",
    "after",
    "group_by",
    "bucket_seconds",
    "aggregates",
)


def _built(query: SpanQuery | None, equal: dict[str, Any], **arguments: Any) -> SpanQuery:
    """Return the query itself, or build one; not both."""
    if query is None:
        return SpanQuery.build(equal=equal, **arguments)
    if not isinstance(query, SpanQuery):
        raise QueryError(f"a query of type {type(query).__name__}", "expected a SpanQuery")
    if equal or any(value not in ((), None) for value in arguments.values()):
        raise QueryError("a SpanQuery and more arguments", "expected one or the other")
    return query


class _LoopThread:
    """An event loop on a daemon thread, started with the first work."""

    def __init__(self) -> None:
        self.after_fork()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Take a new lock, in a forked child: a thread of the parent's may have held the old one."""
        self._lock = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        with self._lock:
            loop = self._loop or self._start()
            if self._process != os.getpid():
                raise StorageError(
                    "the storage was opened before this process was forked",
                    "expected one opened in this process",
                    "call open_storage again",
                )
            return asyncio.run_coroutine_threadsafe(work, loop)

    def stop(self) -> None:
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or self._process != os.getpid() or loop.is_closed():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_SECONDS)

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        self._process = os.getpid()
        self._thread = threading.Thread(
            target=self._run, args=(loop,), name="llmops-reader", daemon=True
        )
        self._thread.start()
        return loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
