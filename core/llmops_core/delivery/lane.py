"""A thread with an event loop, for code that may block: storages, exporters, collectors.

Each foreign part works on a lane of its own. A lane that hangs is abandoned: nothing waits for it
longer than its deadline, and the others never notice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from llmops_core.failures import PluginLeftError
from llmops_core.running import running_seconds
from llmops_core.worker import Worker

__all__ = ["Lane", "as_ordinary"]

T = TypeVar("T")

#: How long tasks may take to notice that they were cancelled.
CANCEL_SECONDS: Final = 0.5


class Lane:
    """A daemon thread that runs an event loop. Made at set-up: no thread is started at exit.

    *left_behind* is called on it with what a driver or a plugin left behind: a failure that nobody
    waits for. What it raises is ignored.
    """

    def __init__(
        self, name: str, left_behind: Callable[[BaseException], None] = lambda error: None
    ) -> None:
        self._report = left_behind
        try:
            self.loop = asyncio.new_event_loop()
        except OSError as error:  # no descriptor is left
            raise RuntimeError(f"no event loop can be made: {error}") from error
        # PYTHONASYNCIODEBUG is for the application's loops: ours may block, and nobody waits.
        self.loop.set_debug(False)
        self.loop.set_exception_handler(self._left_behind)
        self._helpers = _DaemonThreads()
        self.loop.set_default_executor(self._helpers)
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._stopping = self._ending = False
        self._asked: float | None = None
        self._unstarted: dict[concurrent.futures.Future[Any], Coroutine[Any, Any, Any]] = {}
        self.worker = Worker(name, self._run, lambda error: None)
        self.worker.beat = None
        try:
            self.worker.start()
        except RuntimeError:  # the interpreter is exiting
            self.loop.close()
            raise

    def _left_behind(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Count what nobody waits for: asyncio would log a traceback for each.

        Such as for each connection that a server which was killed had; what was asked of it has
        failed by then, and is told once.
        """
        with contextlib.suppress(Exception):
            self._report(context.get("exception") or RuntimeError("a warning of asyncio's"))

    def _run(self) -> bool:
        """Run the loop until it is stopped. Called again, with its tasks as they were, if it fails."""
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        if not self._stopping:  # a plugin stopped the loop that it found running
            return False
        try:
            self._cancel_tasks()
        finally:
            self.loop.close()
            for work in list(self._unstarted.values()):
                work.close()
            for future in list(self._waiting):  # nobody may wait for what will never run
                future.cancel()
        return True

    def _cancel_tasks(self) -> None:
        self._ending = True
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_SECONDS))

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the lane; its BaseException arrives in the future and stops nothing."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._waiting.add(done)
        self._unstarted[done] = work
        done.add_done_callback(self._waiting.discard)
        try:
            self.loop.call_soon_threadsafe(self._begin, done)
        except RuntimeError:  # the loop is closed
            if self._unstarted.pop(done, None) is not None:
                work.close()
            done.cancel()
        return done

    def run(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any
    ) -> concurrent.futures.Future[T]:
        """Call a plugin's asynchronous method on the lane, also what it does before it awaits."""

        async def work() -> T:
            return await function(*args)

        return self.submit(work())

    def _begin(self, done: concurrent.futures.Future[Any]) -> None:
        if self._ending:  # it is closed with the loop
            return
        task = self.loop.create_task(self._contain(done))

        def given_up(future: concurrent.futures.Future[Any]) -> None:
            # Who no longer waits, as for a query that took too long, ends the work too.
            if future.cancelled():
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self.loop.call_soon_threadsafe(task.cancel)

        done.add_done_callback(given_up)

    async def _contain(self, done: concurrent.futures.Future[Any]) -> None:
        # Popped here and not before: a task that is cancelled before its first step never runs.
        work = self._unstarted.pop(done)
        # A SystemExit or KeyboardInterrupt that leaves a task also leaves run_forever.
        try:
            result = await work
        except asyncio.CancelledError:
            done.cancel()
        except BaseException as error:  # delivered to whoever waits
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                done.set_exception(as_ordinary(error))
        else:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                done.set_result(result)

    def call(self, function: Callable[..., T], *args: Any, timeout: float) -> T:
        """Run a plain function on the lane and wait for it, at most *timeout* seconds."""

        async def work() -> T:
            return function(*args)

        return self.submit(work()).result(timeout)

    def silent_seconds(self) -> float:
        """Return how long the loop has not answered; ask it anew if it has. Never waits."""
        asked = self._asked
        if asked is not None:
            return running_seconds() - asked
        self._asked = running_seconds()
        try:
            self.loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop is closed
            self._asked = None
        return 0.0

    def _answer(self) -> None:
        self._asked = None

    def stop(self) -> None:
        """Cancel what runs and end the loop. Does not wait."""
        if not self._stopping:  # a second stop would cut short what the first one began
            self._stopping = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, timeout: float) -> None:
        """Wait until a stopped lane and its helper threads have ended, at most *timeout* seconds.

        Before Python 3.14 a thread that comes back from an extension written in C++ while the
        interpreter is torn down aborts the process.
        """
        deadline = time.monotonic() + timeout
        for join in (self.worker.join, *[t.join for t in list(self._helpers.living)]):
            with contextlib.suppress(RuntimeError):  # it is this very thread, or not started yet
                join(max(0.0, deadline - time.monotonic()))


def as_ordinary(error: BaseException) -> Exception:
    """Return what a plugin raised, as an error that stops no event loop."""
    if isinstance(error, Exception):
        return error
    wrapped = PluginLeftError(f"{type(error).__name__} raised by a plugin")
    wrapped.__cause__ = error
    return wrapped


class _DaemonThreads(concurrent.futures.ThreadPoolExecutor):
    """Runs each call on a daemon thread of its own, for ``asyncio.to_thread`` on a lane.

    The standard pool joins its threads before exit handlers run: one that hangs in a storage would
    hold the program for as long as it hangs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.living: set[threading.Thread] = set()

    def submit(
        self, function: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[T]:
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                call()
            finally:
                self.living.discard(threading.current_thread())

        def call() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # delivered to whoever waits
                done.set_exception(as_ordinary(error))
            else:
                done.set_result(result)

        thread = threading.Thread(target=run, name="llmops-call", daemon=True)
        self.living.add(thread)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started while the interpreter exits
            self.living.discard(thread)
            run()
        return done
