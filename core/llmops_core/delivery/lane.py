"""A thread with an event loop, for code that may block: storages, exporters, collectors.

Each foreign part works on a lane of its own. A lane that hangs is abandoned: nothing waits for it
longer than its deadline, and the others never notice.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["Lane"]

T = TypeVar("T")


class Lane:
    """A daemon thread that runs an event loop. Made at set-up: no thread is started at exit."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        # PYTHONASYNCIODEBUG is for the application's loops: ours may block, and nobody waits for it.
        self.loop.set_debug(False)
        self._thread = threading.Thread(target=self._run, name=f"llmops-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    @property
    def on_this_thread(self) -> bool:
        """Whether the caller runs on this lane."""
        return threading.current_thread() is self._thread

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the lane; its BaseException arrives in the future and stops nothing."""
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            self.loop.call_soon_threadsafe(lambda: self.loop.create_task(_contain(work, done)))
        except RuntimeError:  # the loop is closed
            work.close()
            done.cancel()
        return done

    def call(self, function: Callable[..., T], *args: Any, timeout: float) -> T:
        """Run a plain function on the lane and wait for it, at most *timeout* seconds."""

        async def work() -> T:
            return function(*args)

        return self.submit(work()).result(timeout)

    def stop(self) -> None:
        """Ask the loop to end once what runs has yielded. Does not wait."""
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            return  # it has ended already


async def _contain(work: Coroutine[Any, Any, T], done: concurrent.futures.Future[T]) -> None:
    # A SystemExit or KeyboardInterrupt that leaves a task also leaves run_forever.
    try:
        result = await work
    except asyncio.CancelledError:
        done.cancel()
    except BaseException as error:  # delivered to whoever waits
        if not done.cancelled():
            done.set_exception(_ordinary(error))
    else:
        if not done.cancelled():
            done.set_result(result)


def _ordinary(error: BaseException) -> Exception:
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"{type(error).__name__} raised by a plugin")
    wrapped.__cause__ = error
    return wrapped
