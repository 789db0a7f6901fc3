"""How instances of each class are read without calling their code: one plan a class, made once.

A class is told by its real MRO and its fields are read through C descriptors, because a value's own
``__class__``, ``__getattr__``, ``items`` or properties are the user's code: they may block, raise,
query a database or change the state that is being recorded.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import sys
import types
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final

from llmops_core.freeze import walk as fw
from llmops_core.freeze.message_cache import message_plan
from llmops_core.freeze.messages import FrozenBytes, copy_message
from llmops_core.freeze.type_names import (
    Fields,
    Message,
    layout_of,
    mro_of,
    name_of,
    type_name,
    vars_of,
)
from llmops_core.freeze.walk import PLANS, Plan, PlanEntry, Walk

__all__ = ["know", "make_plan"]

MAX_CLASSES: Final = 4096
_SORTED_CHARS: Final = 1_000_000  # takes a millisecond where all have one beginning
_END_CHARS: Final = 256
_SMALL_DECIMAL: Final = 256  # some 350 digits, and the object itself

_KNOWN: Final[dict[tuple[str, str], Callable[[Any, Fields], Any]]] = {}

_missing: Final = object()


def know(module: str, qualname: str, reader: Callable[[Any, Fields], Any]) -> None:
    """Register how instances of a framework's class, and of its subclasses, are read.

    *reader* gets the object and its :class:`Fields`, and returns plain data or a
    :class:`~llmops_core.freeze.type_names.Message`, whose parts are then copied within the budget.
    Called on the host's thread: it must touch the object through its fields alone.
    """
    _KNOWN[module, qualname] = reader
    PLANS.clear()


def make_plan(cls: type) -> PlanEntry:
    """Make and remember the plan of a class."""
    exact = _EXACT.get(id(cls))
    entry = PlanEntry(exact[1], cls) if exact is not None else _plan_class(cls)
    if len(PLANS) >= MAX_CLASSES:  # classes made at run time; a plan is cheap to make again
        PLANS.clear()
    PLANS[id(cls)] = entry
    return entry


def _plan_class(cls: type) -> PlanEntry:
    mro = mro_of(cls)
    for base in mro:
        name = name_of(base)
        reader = _KNOWN.get(name)
        if reader is not None:
            return message_plan(cls, reader)
    for known, make in _BASES:
        if any(base is known for base in mro):
            return PlanEntry(make(cls), cls)
    for name, make in _NAMED.items():
        if any(name_of(base) == name for base in mro):
            return PlanEntry(make(cls), cls)
    return PlanEntry(_dataclass(cls) or _unknown(cls), cls)


def _unknown(cls: type) -> Plan:
    marker = f"<{type_name(cls)}>"
    return lambda walk, value, depth: marker


# --- scalars -----------------------------------------------------------------------------------


def _keep(walk: Walk, value: Any, depth: int) -> Any:
    return value


def _float(walk: Walk, value: Any, depth: int) -> Any:
    value = float.__float__(value)
    if value - value == 0.0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _text(walk: Walk, value: Any, depth: int) -> Any:
    return fw.keep_text(walk, value, str.__len__(value))


def _integer(walk: Walk, value: Any, depth: int) -> Any:
    return fw.keep_int(walk, value)


def _decimal(walk: Walk, value: Any, depth: int) -> Any:
    size = decimal.Decimal.__sizeof__(value)
    if size <= _SMALL_DECIMAL:
        return value
    digits = size * 5 // 2  # at most: eight bytes hold 19
    if digits <= walk.text:
        walk.text -= digits
        return value
    return fw.stop(walk, f"<Decimal of {size} bytes>")


def _complex(walk: Walk, value: Any, depth: int) -> Any:
    return complex.__repr__(value)


def _range(walk: Walk, value: Any, depth: int) -> Any:
    return {
        "start": fw.keep_int(walk, value.start),
        "stop": fw.keep_int(walk, value.stop),
        "step": fw.keep_int(walk, value.step),
    }


def _path(walk: Walk, value: Any, depth: int) -> Any:
    # Exact classes only: __str__ of a subclass reads what the subclass may have redefined.
    text = value.__str__()
    return fw.keep_text(walk, text, len(text))


def _binary(walk: Walk, value: Any, depth: int) -> Any:
    if type(value) is memoryview:
        try:
            size = value.nbytes
            view = value.cast("B") if value.contiguous else memoryview(b"")
        except (ValueError, TypeError):  # released, or of a format that cannot be cast
            return "<memoryview>"
        return _bytes_marker(walk, size, view)
    base = bytearray if any(base is bytearray for base in mro_of(type(value))) else bytes
    return _bytes_marker(walk, base.__len__(value), value, base)


def _bytes_marker(walk: Walk, size: int, value: Any, base: Any = memoryview) -> FrozenBytes:
    keep = min(size, fw.HEAD_BYTES, max(walk.heads, 0))
    walk.heads -= keep
    head = bytes(base.__getitem__(value, slice(0, keep)))
    if size > keep:
        walk.truncated = True
        walk.cut += size - keep
    return FrozenBytes(size, head)


def _is_safe_zone(zone: object) -> bool:
    """Whether msgspec may ask a time zone for its offset without running a user's code."""
    if zone is None or type(zone) is dt.timezone:
        return True
    zoneinfo = sys.modules.get("zoneinfo")
    return zoneinfo is not None and type(zone) is vars(zoneinfo).get("ZoneInfo", _missing)


def _moment(base: type, names: tuple[str, ...]) -> Callable[[type], Plan]:
    """Plan a date or time: kept by reference if exact, else rebuilt from its C fields."""
    getters = [vars(dt.date if name in _DAY and base is dt.datetime else base)[name]
               for name in names]  # fmt: skip
    zone_getter = vars(base).get("tzinfo")

    def make(cls: type) -> Plan:
        def plan(walk: Walk, value: Any, depth: int) -> Any:
            zone = zone_getter.__get__(value) if zone_getter is not None else None
            safe = _is_safe_zone(zone)
            if type(value) is base and safe:
                return value
            parts = {
                name: getter.__get__(value) for name, getter in zip(names, getters, strict=True)
            }
            if zone_getter is not None and safe:
                parts["tzinfo"] = zone
            copy = base(**parts)
            return copy if safe else f"{copy.isoformat()}[{type_name(type(zone))}]"

        return plan

    return make


_DAY: Final = ("year", "month", "day")
_CLOCK: Final = ("hour", "minute", "second", "microsecond", "fold")


# --- containers --------------------------------------------------------------------------------


def _dict(cls: type) -> Plan:
    def plan(walk: Walk, value: Any, depth: int) -> Any:
        pairs = fw.snapshot(walk, lambda: dict.items(value), walk.nodes)
        return fw.copy_pairs(walk, value, pairs, dict.__len__(value), depth)

    return plan


def _list(cls: type) -> Plan:
    def plan(walk: Walk, value: Any, depth: int) -> Any:
        items = list.__getitem__(value, slice(0, max(walk.nodes, 0)))
        return fw.copy_head(walk, list, value, items, list.__len__(value), depth)

    return plan


def _tuple(cls: type) -> Plan:
    names = _class_var(cls, "_fields")
    named = type(names) is tuple and all(type(name) is str for name in names)

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        items = tuple.__getitem__(value, slice(0, max(walk.nodes, 0)))
        total = tuple.__len__(value)
        if named and len(names) == total:
            pairs = list(zip(names, items, strict=False))
            return fw.copy_pairs(walk, value, pairs, total, depth)
        return fw.copy_head(walk, tuple, value, items, total, depth)

    return plan


def _ends_of(text: str) -> tuple[str, int, str]:
    """Tell long texts apart without comparing all of what they have in common.

    Those that differ in the middle alone stay in the order that the set has.
    """
    return text[:_END_CHARS], len(text), text[-_END_CHARS:]


def _iterable(base: Any) -> Callable[[type], Plan]:
    def plan(walk: Walk, value: Any, depth: int) -> Any:
        items = fw.snapshot(walk, lambda: base.__iter__(value), walk.nodes)
        if base is not deque and all(type(item) is str for item in items):
            # The order of a set of texts changes from process to process.
            items.sort(key=None if sum(map(len, items)) <= _SORTED_CHARS else _ends_of)
        return fw.copy_sequence(walk, value, items, base.__len__(value), depth)

    return lambda cls: plan


# --- objects -----------------------------------------------------------------------------------


def _enum(cls: type) -> Plan:
    layout = layout_of(cls)
    marker = f"<{type_name(cls)}>"

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        inner = Fields(value, layout).get("_value_", _missing)
        return marker if inner is _missing else fw.copy_value(walk, inner, depth + 1)

    return plan


def _exception(cls: type) -> Plan:
    name = type_name(cls)
    args = vars(BaseException)["args"]

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        pairs = [("type", name), ("args", args.__get__(value))]
        return fw.copy_pairs(walk, value, pairs, 2, depth)

    return plan


def _class(cls: type) -> Plan:
    return lambda walk, value, depth: f"<class {type_name(value)}>"


def _class_var(cls: type, name: str) -> Any:
    for base in mro_of(cls):
        found = vars_of(base).get(name, _missing)
        if found is not _missing:
            return found
    return None


def _dataclass(cls: type) -> Plan | None:
    fields = _class_var(cls, "__dataclass_fields__")
    if type(fields) is not dict or not all(type(name) is str for name in fields):
        return None
    names, layout = tuple(fields), layout_of(cls)

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        # Class variables are listed among the fields too; no instance holds them.
        pairs = Fields(value, layout).pairs(names)
        return fw.copy_pairs(walk, value, pairs, len(pairs), depth)

    return plan


def _pydantic(cls: type) -> Plan:
    layout = layout_of(cls)

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        fields = Fields(value, layout)
        pairs = fw.snapshot(walk, lambda: dict.items(fields.values), walk.nodes)
        total = dict.__len__(fields.values)
        extra = fields.get("__pydantic_extra__")
        if type(extra) is dict and extra:
            pairs += fw.snapshot(walk, lambda: dict.items(extra), walk.nodes)
            total += len(extra)
        return fw.copy_pairs(walk, value, pairs, total, depth)

    return plan


def _is_c_field(found: object) -> bool:
    return type(found) is types.GetSetDescriptorType or type(found) is types.MemberDescriptorType


def _numpy_array(cls: type) -> Plan:
    if name_of(cls) != ("numpy", "ndarray"):
        return _unknown(cls)
    shape: Any = vars_of(cls).get("shape")
    dtype: Any = vars_of(cls).get("dtype")

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        kind = dtype.__get__(value)
        code: Any = next((v["str"] for b in mro_of(type(kind)) if "str" in (v := vars_of(b))), None)
        pairs = [
            ("type", "numpy.ndarray"),
            ("shape", shape.__get__(value)),
            (
                "dtype",
                code.__get__(kind) if _is_c_field(code) else type_name(type(kind)),
            ),
        ]
        return fw.copy_pairs(walk, value, pairs, 3, depth)

    c_made = _is_c_field(shape) and _is_c_field(dtype)
    return plan if c_made else _unknown(cls)


def _pil_image(cls: type) -> Plan:
    layout = layout_of(cls)
    named = _class_var(cls, "format")

    def plan(walk: Walk, value: Any, depth: int) -> Any:
        fields = Fields(value, layout)
        pairs = [
            ("type", "PIL.Image"),
            ("format", named if type(named) is str else None),
            ("mode", fields.get("_mode")),
            ("size", fields.get("_size")),
        ]
        return fw.copy_pairs(walk, value, pairs, 4, depth)

    return plan


def _numpy_scalar(cls: type) -> Plan:
    mro = mro_of(cls)
    item = next((v["item"] for b in mro if name_of(b) == ("numpy", "generic")
                 for v in [vars_of(b)] if "item" in v), None)  # fmt: skip
    simple = any(name_of(b)[0] == "numpy" and name_of(b)[1] in _NUMPY_PLAIN for b in mro)
    if type(item) is not types.MethodDescriptorType or not simple:
        return _unknown(cls)
    return lambda walk, value, depth: fw.copy_value(walk, item(value), depth)


_NUMPY_PLAIN: Final = ("number", "bool", "bool_")


def _always(plan: Plan) -> Callable[[type], Plan]:
    return lambda cls: plan


_BASES: Final[list[tuple[type, Callable[[type], Plan]]]] = [
    (enum.Enum, _enum),
    (str, _always(_text)),
    (int, _always(_integer)),
    (float, _always(_float)),
    (dict, _dict),
    (list, _list),
    (tuple, _tuple),
    (set, _iterable(set)),
    (frozenset, _iterable(frozenset)),
    (deque, _iterable(deque)),
    (bytes, _always(_binary)),
    (bytearray, _always(_binary)),
    (dt.datetime, _moment(dt.datetime, _DAY + _CLOCK)),
    (dt.date, _moment(dt.date, _DAY)),
    (dt.time, _moment(dt.time, _CLOCK)),
    (dt.timedelta, _moment(dt.timedelta, ("days", "seconds", "microseconds"))),
    (BaseException, _exception),
    (type, _class),
]
_NAMED: Final[dict[tuple[str, str], Callable[[type], Plan]]] = {
    ("pydantic.main", "BaseModel"): _pydantic,
    ("pydantic.v1.main", "BaseModel"): _pydantic,
    ("numpy", "ndarray"): _numpy_array,
    ("numpy", "generic"): _numpy_scalar,
    ("PIL.Image", "Image"): _pil_image,
}
_EXACT_PLANS: Final[list[tuple[type, Plan]]] = [
    (type(None), _keep),
    (bool, _keep),
    (str, _text),
    (int, _integer),
    (float, _float),
    (dict, fw.copy_dict),
    (list, fw.copy_list),
    (tuple, fw.copy_list),
    (complex, _complex),
    (range, _range),
    (memoryview, _binary),
    (decimal.Decimal, _decimal),
    (uuid.UUID, _keep),
    (Message, copy_message),
    (PosixPath, _path),
    (WindowsPath, _path),
    (PurePosixPath, _path),
    (PureWindowsPath, _path),
]
# By id, for the same reason as PLANS; these classes live for ever.
_EXACT: Final[dict[int, tuple[type, Plan]]] = {id(plan[0]): plan for plan in _EXACT_PLANS}
