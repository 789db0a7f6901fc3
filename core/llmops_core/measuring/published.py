"""The published collectors: ``MetricCollector.collect(result, args, kwargs, context)``.

They need the call's own objects, so a decorated call that names one keeps references to its
arguments and its result until the collector ran or its span went on without it, or until
:data:`MAX_LIVE` newer calls came.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from llmops_core.errors import ConfigError
from llmops_core.forking import renew_after_fork

__all__ = [
    "CollectorRegistry",
    "Live",
    "MetricCollector",
    "keep_live",
    "let_go",
    "live_calls",
    "named",
    "registered",
    "take_live",
]

MAX_LIVE: Final = 10_000


class MetricCollector(ABC):
    """Measures a call of a decorated function that names it. Subclass it, or fit its shape."""

    @abstractmethod
    def collect(
        self,
        result: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: dict[str, Any],
    ) -> Mapping[str, Any] | None:
        """Return what you measured: numbers, texts, or groups of them such as ``custom_attributes``.

        Called on a helper thread after the call, with its own objects: do not change them. If you
        raise, the span goes on without your values and the failure is counted.
        """

    @property
    def metric_type(self) -> str:
        """The collector's name where it is passed as an object."""
        return type(self).__name__


class CollectorRegistry:
    """Published collectors by name, for ``@monitor_llm(collectors=["name"])``."""

    _factories: ClassVar[dict[str, Any]] = {}

    @classmethod
    def register(cls, name: str, collector: Any) -> None:
        """Register a collector's class, or an object, under a name; a later one replaces it."""
        if not isinstance(name, str) or not name or "," in name:
            raise ConfigError(f"collector name {name!r}", "expected a text without a comma")
        if not callable(getattr(collector, "collect", None)):
            raise ConfigError(
                f"collector {name!r} is {collector!r}", "expected a class or an object with collect"
            )
        cls._factories[name] = collector

    @classmethod
    def names(cls) -> list[str]:
        """Return the registered names, sorted."""
        return sorted(cls._factories)


def registered(name: str) -> Any | None:
    """Return the collector object of a name, made if a class was registered; None if unknown."""
    found = CollectorRegistry._factories.get(name)
    if isinstance(found, type):
        found = CollectorRegistry._factories[name] = found()
    return found


def named(option: str, given: Iterable[object] | None) -> tuple[str, ...]:
    """Return the names of what a decorator lists; objects and classes are registered by theirs."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigError(f"{option}={given!r}", "expected a list", f"write {option}=[{given!r}]")
    names = []
    for item in given:
        if isinstance(item, str):
            if not item or "," in item:
                raise ConfigError(f"{option} names {item!r}", "expected a text without a comma")
            names.append(item)
            continue
        made = item() if isinstance(item, type) else item
        name = getattr(made, "metric_type", None) or getattr(made, "name", None)
        name = name if isinstance(name, str) and name else type(made).__name__
        if CollectorRegistry._factories.get(name, made) is not made:
            name = f"{name}-{id(made):x}"  # another object of the same name
        CollectorRegistry.register(name, made)
        names.append(name)
    return tuple(dict.fromkeys(names))


class Live:
    """The objects of one call, and which collectors want and have had them."""

    __slots__ = ("args", "kwargs", "result", "taken", "wanted")

    def __init__(
        self, result: object, args: tuple[Any, ...], kwargs: dict[str, Any], wanted: set[str]
    ) -> None:
        self.result = result
        self.args = args
        self.kwargs = kwargs
        self.wanted = wanted
        self.taken: set[str] = set()


class _LiveCalls:
    """Calls by span id until their collectors ran. Bounded; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: OrderedDict[str, Live] = OrderedDict()
        #: Kept in a forked child, and never looked at.
        self._parents: list[OrderedDict[str, Live]] = []
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Begin anew: what the parent keeps is for its own collectors. Called in a forked child."""
        self._lock = threading.RLock()  # another thread may have held it
        if self._calls:  # a destructor of the program's objects would act on what is shared
            self._parents.append(self._calls)
            self._calls = OrderedDict()

    def keep(self, key: str, live: Live) -> None:
        with self._lock:
            self._calls[key] = live
            while len(self._calls) > MAX_LIVE:
                self._calls.popitem(last=False)

    def take(self, key: str, collector: str) -> Live | None:
        """Return a call's objects for one collector; the last one that needs them lets them go."""
        with self._lock:
            live = self._calls.get(key)
            if live is None or collector in live.taken:
                return None
            live.taken.add(collector)
            if live.taken >= live.wanted:
                del self._calls[key]
            return live

    def let_go(self, keys: Iterable[str]) -> None:
        """Forget calls whose spans have passed their collectors, whether these ran or not."""
        with self._lock:
            for key in keys:
                self._calls.pop(key, None)

    def __len__(self) -> int:
        return len(self._calls)


_live: Final = _LiveCalls()
take_live: Final = _live.take
let_go: Final = _live.let_go


def keep_live(
    span_id: str,
    collectors: tuple[str, ...],
    result: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Keep a call's own objects until its published collectors ran."""
    wanted = {name for name in collectors if name in CollectorRegistry._factories}
    if wanted:
        _live.keep(span_id, Live(result, args, kwargs, wanted))


def live_calls() -> int:
    """Return how many calls' objects are kept."""
    return len(_live)
