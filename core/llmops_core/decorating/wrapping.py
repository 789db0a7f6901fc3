"""The wrappers around plain functions, coroutines, generators and async generators.

Results, exceptions, and what is sent or thrown into a generator pass through as they are. A
generator's body runs as a child of where the generator was made; what its consumer does between two
items does not.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from llmops_core.decorating.items import Items
from llmops_core.decorating.operation import Operation
from llmops_core.nesting import ActiveCall

__all__ = ["GeneratorFunction", "wrap"]

_METHODS = (types.FunctionType, types.MethodDescriptorType)


class GeneratorFunction:
    """A decorated generator function, which frameworks recognise as one.

    A real one could not know where it was made: its body only runs at the first step. And a plain
    function that returns a generator is none to ``inspect``, nor to those that ask it, such as
    LangChain's runnables and the dependencies of web frameworks. ``inspect`` takes what has the
    attributes of a function for one, and reads the sort from the code: so this has the code of what
    it calls.
    """

    def __init__(self, call: Callable[..., Any], function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, call)
        self._call = call
        inner = _function_in(function)
        self.__wrapped__ = function
        self.__code__ = inner.__code__
        self.__defaults__ = inner.__defaults__
        self.__kwdefaults__ = inner.__kwdefaults__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the generator of a call; nothing of the function's body has run yet."""
        return self._call(*args, **kwargs)

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        """Bind as a function does, so that it serves as a method."""
        return self if owner is None else types.MethodType(self, owner)

    def __reduce__(self) -> str:
        """Pickle and copy as a function does: by name."""
        return str(self._call.__qualname__)

    def __repr__(self) -> str:
        """Return what a function shows."""
        return f"<function {self._call.__qualname__} at {id(self):#x}>"


def _function_in(function: Any) -> Any:
    """Return the function with code in what is decorated: of a partial, a method or an object."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__code__"):
        function = getattr(function, "__func__", None) or type(function).__call__
    return function


def wrap(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return *function* with its calls recorded, of the same sort as it is."""
    if _is(inspect.isasyncgenfunction, function):
        return GeneratorFunction(_async_generator(operation, function), function)
    if _is(inspect.isgeneratorfunction, function):
        if _function_in(function).__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return _iterable_coroutine(operation, function)
        return GeneratorFunction(_generator(operation, function), function)
    if _is(inspect.iscoroutinefunction, function):
        return _coroutine(operation, function)
    return _with_methods(_plain(operation, function), function)


def _with_methods(call: Callable[..., Any], function: Any) -> Callable[..., Any]:
    """Give a wrapper the methods of what it wraps: of ``lru_cache``, or of an object that is called.

    Only methods: to read another attribute may run code of the object.
    """
    kind = type(function)
    for name in {name for base in kind.__mro__ for name in vars(base)}:
        found = inspect.getattr_static(kind, name)
        # By identity: isinstance would ask the object itself.
        is_method = any(type(found) is kept for kept in _METHODS)
        if is_method and not name.startswith("_") and not hasattr(call, name):
            setattr(call, name, types.MethodType(found, function))
    return call


def _is(what: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Whether a function is of a sort, or an object is whose call is."""
    return what(function) or what(type(function).__call__)


def _plain(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    begin, ok, failed = operation.begin, operation.finish_ok, operation.finish_error

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        active = begin(args, kwargs)
        if active is None:
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            failed(active, error)
            raise
        ok(active, result, args, kwargs)
        return result

    return call


def _coroutine(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    begin, ok, failed = operation.begin, operation.finish_ok, operation.finish_error

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        active = begin(args, kwargs)
        if active is None:
            return await function(*args, **kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            failed(active, error)
            raise
        ok(active, result, args, kwargs)
        return result

    return call


def _iterable_coroutine(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    """Of ``types.coroutine``: a generator that is awaited; what it yields is the event loop's."""
    begin, ok, failed = operation.begin, operation.finish_ok, operation.finish_error

    @functools.wraps(function)
    @types.coroutine
    def call(*args: Any, **kwargs: Any) -> Any:
        active = begin(args, kwargs)
        if active is None:
            return (yield from function(*args, **kwargs))
        try:
            result = yield from function(*args, **kwargs)
        except BaseException as error:
            failed(active, error)
            raise
        ok(active, result, args, kwargs)
        return result

    return call


def _generator(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        active = operation.place_safely()
        if active is None:
            return generator
        return _named(_drive(operation, active, generator, args, kwargs), generator)

    return call


def _named(driven: Any, generator: Any) -> Any:
    """Return what drives a generator under its name, which tracebacks and warnings show."""
    driven.__name__, driven.__qualname__ = generator.__name__, generator.__qualname__
    return driven


def _drive(
    operation: Operation,
    call: ActiveCall,
    generator: Generator[Any, Any, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Generator[Any, Any, Any]:
    operation.start_safely(call, args, kwargs)
    if not operation.collectors:
        args, kwargs = (), {}
    items = Items(operation, call)
    step: Callable[[Any], Any] = generator.send
    given: Any = None
    item: Any = None  # emptied by the yield itself: it would keep what the reader may have let go
    try:
        while True:
            operation.enter(call)
            try:
                item = step(given)
            finally:
                given = None  # it would stay until the next step; an exception for good, in a cycle
                operation.leave(call)
            try:
                items.add(item)
            except BaseException:  # a breaker stops the run: nobody would close what it left
                operation.enter(call)
                try:
                    generator.close()
                finally:
                    operation.leave(call)
                raise
            try:
                given = yield (item, item := None)[0]
            except BaseException as thrown:  # also GeneratorExit: a body may answer it
                items.is_left_by(thrown)
                step, given = generator.throw, thrown
            else:
                step = generator.send
    except StopIteration as stop:
        items.finish(stop.value, args, kwargs)
        return stop.value
    except BaseException as error:
        items.fail(error)
        raise


def _async_generator(operation: Operation, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        active = operation.place_safely()
        if active is None:
            return generator
        return _named(_drive_async(operation, active, generator, args, kwargs), generator)

    return call


async def _drive_async(
    operation: Operation,
    call: ActiveCall,
    generator: AsyncGenerator[Any, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> AsyncGenerator[Any, Any]:
    operation.start_safely(call, args, kwargs)
    if not operation.collectors:
        args, kwargs = (), {}
    items = Items(operation, call)
    step: Callable[[Any], Any] = functools.partial(_first_step, generator)
    given: Any = None
    item: Any = None
    try:
        while True:
            operation.enter(call)
            try:
                item = await step(given)
            finally:
                given = None
                operation.leave(call)
            try:
                items.add(item)
            except BaseException:
                operation.enter(call)
                try:
                    await generator.aclose()
                finally:
                    operation.leave(call)
                raise
            try:
                given = yield (item, item := None)[0]
            except BaseException as thrown:
                items.is_left_by(thrown)
                step, given = generator.athrow, thrown
            else:
                step = generator.asend
    except StopAsyncIteration:
        items.finish(None, args, kwargs)
        return
    except BaseException as error:
        items.fail(error)
        raise


def _first_step(generator: AsyncGenerator[Any, Any], nothing: None) -> Any:
    """Start a generator that is ours to close, so that the event loop does not learn of it.

    A loop that knew both would close both at once, where closing the outer one closes the inner
    one. And the garbage collector may come upon the inner one first, which has to wait too.
    """
    hooks = sys.get_asyncgen_hooks()
    try:
        sys.set_asyncgen_hooks(None, _left_to_the_outer)
        return generator.asend(nothing)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _left_to_the_outer(_generator: AsyncGenerator[Any, Any]) -> None:
    """Close nothing."""
