"""Take the place where code runs along: to a thread, to an executor, to another process."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llmops_core import holding
from llmops_core.context import trace_here
from llmops_core.errors import ConfigError
from llmops_core.intake.drafts import span_id_of
from llmops_core.nesting import nearest_run
from llmops_core.trace_context import format_traceparent

if TYPE_CHECKING:
    from llmops_core.monitor import Monitor

__all__ = ["carry", "traceparent"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def carry(function: _Function) -> _Function:
    """Return *function* so that what it runs belongs to where ``carry`` was called, in any thread.

    ``Thread(target=carry(work))``, ``pool.submit(carry(work), x)``, ``pool.map(carry(work), items)``,
    ``loop.run_in_executor(None, carry(work))``. Each call runs in a copy of the caller's context
    variables, all of them, as ``asyncio.to_thread`` does it: several may run at once, and what one
    sets stays in it. A coroutine function runs in the task that awaits it, in a context of its own.

    Costs about a microsecond a call. Not for generators, whose bodies run where they are read.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"carry() was given a generator function, {getattr(function, '__name__', function)!r}",
            "expected a function or a coroutine function",
            "carry the function that reads the generator",
        )
    if not callable(function):
        raise ConfigError(f"carry() was given a {type(function).__name__}", "expected a function")
    context = copy_context()
    if inspect.iscoroutinefunction(function):
        return cast("_Function", _carry_coroutine(function, context))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return context.copy().run(function, *args, **kwargs)

    return cast("_Function", call)


def _carry_coroutine(function: Callable[..., Any], context: Context) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await _stepped(function(*args, **kwargs), context.copy())

    return call


@types.coroutine
def _stepped(work: Coroutine[Any, Any, Any], context: Context) -> Generator[Any, Any, Any]:
    """Await *work* in a context of its own; what closes or cancels its caller reaches it at once.

    A coroutine runs in the context of the task that awaits it. A task of its own would be left
    behind by a caller that is closed.
    """
    step: Callable[[Any], Any] = work.send
    given: Any = None
    while True:
        try:
            asked = context.run(step, given)
        except StopIteration as stop:
            return stop.value
        finally:
            given = None  # an exception would be kept for good, in a cycle with its traceback
        try:
            given = yield asked
        except BaseException as thrown:
            step, given = work.throw, thrown
        else:
            step = work.send


def traceparent(monitor: Monitor | None = None) -> str | None:
    """Return the W3C header that names the run that is open here, to send with a request.

    Whoever receives it joins the trace with ``monitoring_trace(traceparent=...)``. Where no run is
    open it is the header that was received, and without one None. Without *monitor* it is about
    what the default monitor records. Costs some microseconds; never raises.
    """
    recorder = holding.default_recorder() if monitor is None else monitor.recorder
    try:
        run = nearest_run(recorder)
        if run is not None and run.trace is not None:
            trace = run.trace if isinstance(run.trace, str) else f"{run.trace:032x}"
            return format_traceparent(trace, span_id_of(run.run_id))
        joined = trace_here() if run is None else None
        if joined is not None and joined.remote is not None:
            return format_traceparent(*joined.remote)
    except Exception as error:
        recorder.report("traceparent", error)
    return None
