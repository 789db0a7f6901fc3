"""Read what a class is and what an object holds, through C descriptors alone.

``type.__name__``, ``vars()`` and ``getattr`` may run a metaclass's or a class's own code; the
descriptors that ``type`` itself keeps do not.
"""

from __future__ import annotations

import types
from typing import Any, Final, NamedTuple

import msgspec

__all__ = ["Fields", "Layout", "Message", "layout_of", "mro_of", "name_of", "type_name", "vars_of"]

_TYPE_VARS: Final = vars(type)
_MRO: Final = _TYPE_VARS["__mro__"].__get__
_DICT: Final = _TYPE_VARS["__dict__"].__get__
_MODULE: Final = _TYPE_VARS["__module__"].__get__
_QUALNAME: Final = _TYPE_VARS["__qualname__"].__get__
_missing: Final = object()


def mro_of(cls: type) -> tuple[type, ...]:
    """Return the real MRO of a class."""
    return _MRO(cls) or ()  # null while a class is being made


def vars_of(cls: type) -> Any:
    """Return the read-only namespace of a class."""
    return _DICT(cls)


def name_of(cls: type) -> tuple[str, str]:
    """Return module and qualified name; a module that is no text becomes ``?``."""
    try:
        module = _MODULE(cls)
    except AttributeError:
        module = None
    if type(module) is not str:
        module = "?"
    return module, str.__str__(_QUALNAME(cls))


def type_name(cls: type) -> str:
    """Return ``module.QualName``, or the bare name of a builtin."""
    module, name = name_of(cls)
    full = name if module == "builtins" else f"{module}.{name}"
    return full if len(full) <= 200 else full[:200]


class Layout(NamedTuple):
    """Where the instances of a class keep their fields."""

    values: types.GetSetDescriptorType | None
    slots: dict[str, types.MemberDescriptorType]


def layout_of(cls: type) -> Layout:
    """Find the C descriptors of ``__dict__`` and of slots; a property of that name is passed by."""
    values = None
    slots: dict[str, types.MemberDescriptorType] = {}
    for base in mro_of(cls):
        for name, found in vars_of(base).items():
            if name == "__dict__" and type(found) is types.GetSetDescriptorType:
                values = values or found
            elif type(found) is types.MemberDescriptorType and type(name) is str:
                slots.setdefault(name, found)
    return Layout(values, slots)


class Message(msgspec.Struct, frozen=True):
    """What a reader returns for a framework's message: live parts, which the walk then copies.

    *tool_calls* are mappings with ``id``, ``name`` and ``args``.
    """

    role: Any
    content: Any
    name: Any = None
    tool_calls: Any = ()
    tool_call_id: Any = None


class Fields:
    """The fields of one object: its ``__dict__`` and its slots, never a property.

    ``reads`` lists what :meth:`get` found, so that a cached copy can be told to be current;
    ``fixed`` is false once a field was read that cannot be checked that way.
    """

    __slots__ = ("_object", "_slots", "fixed", "reads", "values")

    def __init__(self, value: object, layout: Layout) -> None:
        self._object = value
        self._slots = layout.slots
        values = layout.values.__get__(value) if layout.values is not None else None
        self.values: dict[str, Any] = {} if values is None else values
        self.reads: list[tuple[str, Any]] = []
        self.fixed = type(values) is dict

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or *default* where the object has none of that name."""
        found = dict.get(self.values, name, _missing)
        if found is not _missing:
            self.reads.append((name, found))
            return found
        slot = self._slots.get(name)
        if slot is None:
            return default
        self.fixed = False
        try:
            return slot.__get__(self._object)
        except AttributeError:  # a slot that was never assigned
            return default

    def slots(self) -> list[Any]:
        """Return what the object keeps outside of its ``__dict__``."""
        found = []
        for slot in self._slots.values():
            try:
                found.append(slot.__get__(self._object))
            except AttributeError:  # never assigned
                continue
        return found

    def constant(self, name: str) -> Any:
        """Return a field that never changes once the object is made; a cache need not check it."""
        return dict.get(self.values, name)

    def pairs(self, names: tuple[str, ...]) -> list[tuple[str, Any]]:
        """Return the named fields that the object has."""
        found = ((name, self.get(name, _missing)) for name in names)
        return [pair for pair in found if pair[1] is not _missing]

    @staticmethod
    def message(
        role: Any, content: Any, name: Any = None, tool_calls: Any = (), tool_call_id: Any = None
    ) -> Message:
        """Make a message of live parts, so that a reader needs no other name of the core's."""
        return Message(role, content, name, tool_calls, tool_call_id)
