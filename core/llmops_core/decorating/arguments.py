"""The arguments of a call as its input: by name, without ``self``, without calling anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Arguments"]

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """The parameters of one function, read once.

    The input of a function with one parameter is that argument itself; of any other an object of
    the arguments that were given, by name. Further positional ones are under ``*args``' own name.
    """

    __slots__ = ("all_names", "defaults", "first", "is_single", "names", "open_keywords", "rest")

    def __init__(self, function: Callable[..., Any], *, bound: bool) -> None:
        parameters = _parameters(function)
        positional = [p.name for p in parameters if p.kind in _POSITIONAL]
        #: Positional arguments that are left out: ``self`` or ``cls``.
        self.first = 1 if positional and (bound or _is_method(function, positional[0])) else 0
        self.names: tuple[str, ...] = tuple(positional[self.first :])
        keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        self.rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self.open_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.all_names = (*self.names, *keyword)
        variable = self.open_keywords or self.rest is not None
        self.is_single = len(self.all_names) == 1 and not variable
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}

    def content(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what is recorded as the input of a call."""
        first, names = self.first, self.names
        given = len(args) - first
        if self.is_single and given + len(kwargs) == 1:
            return args[first] if given == 1 else next(iter(kwargs.values()))
        if first:
            args = args[first:]
        if given <= 0:
            return kwargs
        values = dict(zip(names, args, strict=False))
        if given > len(names):
            values[self.rest or "args"] = args[len(names) :]
        if kwargs:
            values.update(kwargs)
        return values

    def has(self, name: str) -> bool:
        """Whether a call can have an argument of this name."""
        return self.open_keywords or name in self.all_names

    def has_named(self, name: str) -> bool:
        """Whether a parameter has this name."""
        return name in self.all_names

    def value(self, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the argument of a name; its default if the call did not give it."""
        if name is None:
            return None
        if name in kwargs:
            return kwargs[name]
        if name in self.names:
            at = self.names.index(name) + self.first
            if at < len(args):
                return args[at]
        return self.defaults.get(name)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin that does not tell
        return []


def _is_method(function: Callable[..., Any], first: str) -> bool:
    """Whether a function is defined in a class and takes ``self`` or ``cls``."""
    qualname = getattr(function, "__qualname__", "")
    owner = qualname.rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>") and first in ("self", "cls")
