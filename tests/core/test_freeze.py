"""Freezing copies what can change, within a budget, and calls nothing of the user's."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_core.errors import ConfigError
from llmops_core.freeze import walk as freeze_walk
from llmops_core.freeze.content import encode_content
from llmops_core.freeze.freezer import Freezer, FrozenBytes, Message
from llmops_core.freeze.types import make_plan

FREEZER = Freezer()
CALLS: list[str] = []

DUNDERS = [
    "__repr__", "__str__", "__len__", "__iter__", "__eq__", "__hash__", "__bool__", "__getattr__",
    "__getattribute__", "__getitem__", "__contains__", "__next__", "__format__", "__int__",
    "__float__", "__index__", "__lt__", "__call__", "__dir__", "__sizeof__", "__reduce_ex__",
    "__copy__", "__deepcopy__", "__fspath__", "__array__", "__instancecheck__", "__ne__",
    "__length_hint__", "__reversed__", "__missing__", "__buffer__", "__bytes__", "__complex__",
]  # fmt: skip


def _hostile(name: str) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        CALLS.append(name)
        raise AssertionError(name)

    return method


def hostile_class(*bases: type, **extra: Any) -> type:
    space = {name: _hostile(name) for name in DUNDERS}
    space["__class__"] = property(_hostile("__class__"))
    space["__dict__"] = property(_hostile("__dict__"))
    space |= {
        name: _hostile(name) for name in ("model_dump", "dict", "items", "keys", "values", "get")
    }
    return type("Hostile", bases, space | extra)


@pytest.fixture(autouse=True)
def no_calls() -> Iterator[None]:
    CALLS.clear()
    yield
    assert CALLS == []


def frozen(value: object, freezer: Freezer = FREEZER) -> Any:
    return freezer.freeze(value).value


# --- never calls the user's code ----------------------------------------------------------------


def test_an_unknown_object_is_told_by_its_type_and_none_of_its_methods_runs() -> None:
    hostile = hostile_class()()
    assert frozen({"a": hostile, "b": [hostile]}) == {
        "a": f"<{__name__}.Hostile>",
        "b": [f"<{__name__}.Hostile>"],
    }


@pytest.mark.parametrize("base", [str, int, float, list, tuple, dict, set, frozenset, bytes])
def test_a_subclass_of_a_builtin_is_read_through_the_builtin(base: Any) -> None:
    plain: Any = {
        str: "text", int: 7, float: 1.5, list: [1], tuple: (1,), dict: {"a": 1}, set: set(),
        frozenset: frozenset(), bytes: b"x",
    }[base]  # fmt: skip
    cls = hostile_class(base)
    value = base.__new__(cls, plain) if base not in (list, dict, set) else base.__new__(cls)
    if base is list:
        list.append(value, 1)
    if base is dict:
        dict.__setitem__(value, "a", 1)
    found = frozen([value])[0]
    if base is bytes:
        assert found.size == 1
    else:
        assert found == (list(plain) if base in (tuple, set, frozenset) else plain)
        assert type(found) in (str, int, float, list, dict)


def test_a_hostile_metaclass_is_never_asked() -> None:
    meta = type("Meta", (type,), {name: _hostile(name) for name in ("__hash__", "__eq__", "__ne__",
        "__repr__", "__instancecheck__", "__subclasscheck__", "__getattribute__", "mro_")})  # fmt: skip
    cls = meta("Odd", (), {"__module__": "odd"})
    value = object.__new__(cls)
    assert frozen({"a": value, "b": cls, "c": [value]}) == {
        "a": "<odd.Odd>", "b": "<class odd.Odd>", "c": ["<odd.Odd>"]
    }  # fmt: skip


def test_a_hostile_key_is_told_by_its_type() -> None:
    cls = type("Key", (), {"__eq__": _hostile("__eq__"), "__repr__": _hostile("__repr__"),
                           "__hash__": lambda self: id(self)})  # fmt: skip
    found = frozen({cls(): 1, cls(): 2})
    assert found == {f"<{__name__}.Key>": 1, f"<{__name__}.Key>#2": 2}


def test_a_module_or_name_that_is_no_plain_text_is_not_asked() -> None:
    text = hostile_class(str)
    cls = type("X", (), {"__module__": hostile_class()()})
    cls.__qualname__ = str.__new__(text, "Odd")  # type: ignore[assignment]
    assert frozen(object.__new__(cls)) == "<?.Odd>"


def test_generators_iterators_files_and_locks_are_neither_consumed_nor_touched() -> None:
    generator = (n for n in range(3))
    iterator = iter([1, 2, 3])
    with open(__file__) as file:  # noqa: PTH123
        found = frozen({"g": generator, "i": iterator, "f": file, "l": threading.Lock()})
    assert found["g"] == "<generator>"
    assert found["i"] == "<list_iterator>"
    assert found["f"] == "<_io.TextIOWrapper>"
    assert found["l"].endswith("lock>")
    assert list(generator) == [0, 1, 2]
    assert list(iterator) == [1, 2, 3]


def test_a_user_mapping_is_never_called() -> None:
    class Lazy(Mapping[str, int]):
        __getitem__ = _hostile("__getitem__")
        __iter__ = _hostile("__iter__")
        __len__ = _hostile("__len__")

    assert frozen({"m": Lazy()})["m"].endswith("Lazy>")


def test_the_fields_of_a_hostile_dataclass_are_read_without_its_code() -> None:
    @dataclasses.dataclass
    class Plain:
        a: int
        b: str = "x"
        shared: ClassVar[int] = 3
        locals()["__class__"] = property(_hostile("__class__"))

    value = Plain(1)
    for name in ("__getattribute__", "__repr__", "__eq__"):
        setattr(Plain, name, _hostile(name))
    assert frozen(value) == {"a": 1, "b": "x"}


def test_pydantic_fields_are_read_without_properties_or_model_dump() -> None:
    pydantic = pytest.importorskip("pydantic")

    class State(pydantic.BaseModel, extra="allow"):  # type: ignore[name-defined,misc]
        a: int
        b: list[int]
        model_dump = _hostile("model_dump")
        __iter__ = _hostile("__iter__")

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def c(self) -> int:
            return _hostile("c")()  # type: ignore[no-any-return]

    assert frozen(State(a=1, b=[2], z=3)) == {"a": 1, "b": [2], "z": 3}


# --- what is copied -----------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: list[int]


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: Any = None


class Zone(dt.tzinfo):
    utcoffset = _hostile("utcoffset")
    tzname = _hostile("tzname")
    dst = _hostile("dst")


class Stamp(dt.datetime):
    isoformat = _hostile("isoformat")  # type: ignore[assignment]


NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**70), str(-(2**70))),
        (float("nan"), "NaN"),
        ([float("inf")], ["Infinity"]),
        ({"a": float("-inf")}, {"a": "-Infinity"}),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"b", "a"}, ["a", "b"]),
        (collections.deque([1, 2]), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
        (Color.RED, "red"),
        ({Color.RED: Level.HIGH}, {"red": 3}),
        (Point(1, [2]), {"x": 1, "y": [2]}),
        (Slotted(1, [2]), {"a": 1, "b": [2]}),
        (PurePosixPath("a/b"), "a/b"),
        (1 + 2j, "(1+2j)"),
        (range(3), {"start": 0, "stop": 3, "step": 1}),
        (decimal.Decimal("1.10"), decimal.Decimal("1.10")),
        (uuid.UUID(int=1), uuid.UUID(int=1)),
        (NOON, NOON),
        (Stamp(2024, 5, 1), dt.datetime(2024, 5, 1)),
        (dt.datetime(2024, 5, 1, tzinfo=Zone()), f"2024-05-01T00:00:00[{__name__}.Zone]"),
        (dt.timedelta(1), dt.timedelta(1)),
        (ValueError("x", 1), {"type": "ValueError", "args": ["x", 1]}),
        (int, "<class int>"),
        (print, "<builtin_function_or_method>"),
        ({None: 0, 1.5: 2, (1, 2): 3}, {"null": 0, "1.5": 2, "[1,2]": 3}),
    ],
)  # fmt: skip
def test_each_type_has_one_plain_form(value: object, expected: object) -> None:
    found = FREEZER.freeze(value)
    assert found.value == expected
    assert type(found.value) is type(expected)
    assert not found.truncated


def test_keys_that_are_no_texts_get_a_suffix_where_they_meet() -> None:
    assert frozen({1: "a", "1": "b", 1.0 + 0.5: "c", False: "d", "false": "e"}) == {
        "1": "a", "1#2": "b", "1.5": "c", "false": "d", "false#2": "e"
    }  # fmt: skip


def test_numpy_arrays_keep_their_shape_and_scalars_their_value() -> None:
    np = pytest.importorskip("numpy")
    assert frozen(np.zeros((2, 3))) == {"type": "numpy.ndarray", "shape": [2, 3], "dtype": "<f8"}
    assert frozen([np.float32(1.5), np.int64(4), np.bool_(True)]) == [1.5, 4, True]


def test_binary_data_keeps_its_size_and_its_head() -> None:
    found = FREEZER.freeze([b"\x89PNG" + bytes(100_000), bytearray(b"ab"), memoryview(b"cd")])
    png, array, view = found.value
    assert all(type(item) is FrozenBytes for item in found.value)
    assert (png.size, len(png.head)) == (100_004, 4096)
    assert (array.head, view.head) == (b"ab", b"cd")
    assert found.truncated
    assert found.cut_bytes == 100_004 - 4096


def test_a_released_memoryview_is_told_by_its_type() -> None:
    view = memoryview(b"abc")
    view.release()
    assert frozen([view]) == ["<memoryview>"]


# --- the budget ---------------------------------------------------------------------------------


def test_a_lone_text_is_shared_or_cut_to_the_limit() -> None:
    text = "x" * 8192
    assert FREEZER.freeze(text).value is text
    cut = FREEZER.freeze(text + "yz")
    assert (cut.value, cut.truncated, cut.cut_bytes) == (text, True, 2)


def test_a_cycle_ends_in_a_marker() -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["self"] = loop
    both: list[Any] = [loop]
    both.append(both)
    assert frozen(both) == [{"a": 1, "self": "<cycle>"}, "<cycle>"]
    shared = [1]
    assert frozen([shared, shared]) == [[1], [1]]


def test_depth_100_000_ends_in_a_marker() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    found = FREEZER.freeze({"deep": deep})
    assert found.truncated
    assert json.dumps(found.value).count("[") == 31
    assert "<too deep>" in json.dumps(found.value)
    while deep:
        deep = deep.pop()


@pytest.mark.parametrize("make", [
    lambda n: dict.fromkeys(map(str, range(n)), 1),
    lambda n: list(range(n)),
    lambda n: set(range(n)),
    lambda n: collections.deque(range(n)),
    lambda n: tuple(range(n)),
    lambda n: [[[k] * 50] for k in range(n // 50)],
])  # fmt: skip
def test_work_on_a_huge_container_is_bounded_by_the_node_limit(make: Any) -> None:
    value = make(1_000_000)
    steps = 0

    def count(frame: Any, event: str, arg: Any) -> Any:
        nonlocal steps
        steps += 1
        return count

    previous = sys.gettrace()
    sys.settrace(count)
    try:
        found = Freezer(node_limit=100).freeze(value)
    finally:
        sys.settrace(previous)
    assert found.truncated
    assert steps < 10_000  # lines of Python; the container holds a million values
    assert found.weight < 20_000


def test_what_was_omitted_is_counted() -> None:
    small = Freezer(node_limit=10)
    assert frozen(list(range(100)), small) == [*range(10), {"omitted_items": 90}]
    found = frozen({str(n): n for n in range(100)}, small)
    assert found == {str(n): n for n in range(10)} | {"omitted_keys": 90}
    assert frozen(["x" * 6000, "y" * 6000, "z"]) == ["x" * 6000, "y" * 2192, {"omitted_items": 1}]


def test_keys_and_numbers_are_still_shown_when_the_text_is_spent() -> None:
    state = {"context": "x" * 10_000, "route": "research", "score": 0.5}
    assert frozen(state) == {"context": "x" * (8192 - 7), "route": "", "score": 0.5}


def test_of_many_keys_some_thirty_are_shown_when_the_text_is_spent() -> None:
    state = {"context": "x" * 10_000} | {f"k{n}": "y" * 50 for n in range(1000)}
    found = FREEZER.freeze(state)
    omitted = found.value.pop("omitted_keys")
    assert 20 < len(found.value) < 40
    assert omitted == 1001 - len(found.value)
    assert set(list(found.value.values())[1:]) == {""}
    assert 5000 < found.cut_bytes < len(json.dumps(state))


def test_a_small_dict_is_copied_as_the_walk_would_copy_it() -> None:
    plain = {"t": "x" * 10, "n": 1, "f": 0.5, "b": True, "none": None}
    odd: list[dict[Any, Any]] = [
        plain | {"big": 2**70}, plain | {"nan": float("nan")}, plain | {1: 2}, plain | {"l": [1]},
        plain | {"k" * 300: 1}, plain | {"long": "x" * 9000}, dict.fromkeys("abcdefghij", 0),
    ]  # fmt: skip
    for value in [{}, plain, *odd]:
        for limits in ((8192, 2000, 32), (12, 2000, 32), (8192, 3, 32)):
            found = Freezer(*limits).freeze(value)
            walk = freeze_walk.Walk(*limits, make_plan, None)
            assert found.value == freeze_walk.copy_value(walk, value, 0)
            assert (found.truncated, found.cut_bytes) == (walk.truncated, max(walk.cut, 0))


def test_a_gigantic_number_is_cut_and_costs_no_quadratic_time() -> None:
    assert frozen([10**1000])[0] == hex(10**1000)
    assert FREEZER.freeze([1 << 10_000_000]).value == ["<int of 10000001 bits>"]


def test_long_texts_of_a_set_are_sorted_by_their_ends_alone() -> None:
    common = "x" * 20_000
    texts = {f"{common}{n}{common}" for n in range(100)} | {f"{common}{n}" for n in range(100)}
    short = {f"{n}" for n in range(100)}
    found = Freezer(text_limit=1_000_000).freeze(texts | short).value
    assert found[:100] == sorted(short)
    assert found[100:120] == [f"{common}{n}" for n in [*range(20)]]


def test_a_gigantic_decimal_is_kept_only_where_the_text_has_room_for_it() -> None:
    huge = decimal.Decimal("9" * 100_000)
    found = Freezer().freeze({"price": huge, "plain": decimal.Decimal("1.10")})
    assert found.value["price"] == f"<Decimal of {huge.__sizeof__()} bytes>"
    assert found.value["plain"] == decimal.Decimal("1.10")
    assert found.truncated
    roomy = Freezer(text_limit=1_000_000).freeze([huge])
    assert roomy.value == [huge]
    assert roomy.weight > 100_000


def test_a_limit_that_cannot_be_used_is_refused() -> None:
    for bad in ({"text_limit": 2_000_000}, {"text_limit": -1}, {"node_limit": 0},
                {"depth_limit": 1000}, {"text_limit": 1.5}):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Freezer(**bad)  # type: ignore[arg-type]


def test_the_plans_of_classes_made_at_run_time_are_bounded() -> None:
    for n in range(freeze_walk_limit() + 50):
        FREEZER.freeze([type(f"T{n}", (), {})()])
    assert len(freeze_walk.PLANS) <= freeze_walk_limit()


def freeze_walk_limit() -> int:
    from llmops_core.freeze import types as freeze_types

    return freeze_types.MAX_CLASSES


def test_a_host_near_its_recursion_limit_gets_a_marker_and_no_exception() -> None:
    value = {"a": [{"b": [{"c": [1]}]}]}

    def deeper() -> Any:
        try:
            return deeper()
        except RecursionError:
            return FREEZER.freeze(value)

    assert deeper().value in (value, "<unreadable>")


# --- what is frozen stays ------------------------------------------------------------------------


def test_a_change_after_the_freeze_changes_nothing_1000_times() -> None:
    for n in range(1000):
        inner = [n]
        value = {"d": {"x": inner}, "l": [{"y": n}], "s": Slotted(n, [n]), "p": Point(n, [n])}
        copy = FREEZER.freeze(value)
        inner.append("late")
        value["d"]["z"] = "late"  # type: ignore[index,call-overload]
        value["l"][0]["y"] = "late"  # type: ignore[index]
        value["s"].a = "late"  # type: ignore[union-attr,assignment]
        value["s"].b.append("late")  # type: ignore[union-attr]
        value["p"].y.append("late")  # type: ignore[union-attr]
        del value["l"]
        assert copy.value == {
            "d": {"x": [n]}, "l": [{"y": n}], "s": {"a": n, "b": [n]}, "p": {"x": n, "y": [n]}
        }  # fmt: skip


def test_a_dict_that_changes_its_size_while_it_is_copied_is_copied_or_marked() -> None:
    shared = dict.fromkeys(map(str, range(500)), 1)
    stop = threading.Event()

    def churn() -> None:
        n = 0
        while not stop.is_set():
            shared[f"new{n % 50}"] = 1
            shared.pop(f"new{(n + 25) % 50}", None)
            n += 1

    thread = threading.Thread(target=churn)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        results = [FREEZER.freeze({"s": shared, "n": 1}) for _ in range(500)]
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert all(found.value["n"] == 1 and type(found.value["s"]) is dict for found in results)


# --- messages -----------------------------------------------------------------------------------


def test_a_message_made_by_an_integration_has_five_keys_in_one_order() -> None:
    call = {"name": "search", "args": {"z": 1, "q": [2]}, "id": "c1", "type": "tool_call"}
    found = FREEZER.freeze([Message("assistant", "hi", tool_calls=[call])])
    assert encode_content(found).text == (
        '[{"role":"assistant","content":"hi","name":null,'
        '"tool_calls":[{"id":"c1","name":"search","args":{"q":[2],"z":1}}],"tool_call_id":null}]'
    )


# --- sizes --------------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=8)
    ),
    max_leaves=40,
)


@settings(deadline=None)
@given(value=trees, text=st.integers(0, 60), nodes=st.integers(1, 30), depth=st.integers(1, 4))
def test_the_size_before_the_cut_is_never_more_than_the_true_size(
    value: object, text: int, nodes: int, depth: int
) -> None:
    whole = Freezer(1_000_000, 1_000_000, 200).freeze(value)
    assert (whole.truncated, whole.cut_bytes) == (False, 0)
    cut = Freezer(text, nodes, depth).freeze(value)
    content = encode_content(cut)
    assert cut.cut_bytes >= 0
    assert cut.cut_bytes == 0 or content.size <= encode_content(whole).size
    assert cut.truncated or cut.value == whole.value
    assert cut.weight >= 0
