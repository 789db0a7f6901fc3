"""What no storage can hold is found in short texts, which are looked at together, and in long ones."""

from __future__ import annotations

from typing import Any

import pytest

from llmops_core.errors import PermanentError
from llmops_core.storable import storable
from llmops_core.testing import make_batch, make_span

LONG = "x" * 300


@pytest.mark.parametrize("first", ["short", LONG])
@pytest.mark.parametrize(("bad", "good"), [("\0", "\u2400"), ("\ud800", "\ufffd")])
def test_it_is_found_wherever_it_is(first: str, bad: str, good: str) -> None:
    texts = [first, None, f"{LONG}é{bad}"]
    stored = storable(make_batch([make_span(at, input=text) for at, text in enumerate(texts)]))
    assert [row.input for row in stored.rows] == [first, None, f"{LONG}é{good}"]


@pytest.mark.parametrize("first", ["short", LONG])
def test_what_can_be_stored_is_left_as_it_is(first: str) -> None:
    batch = make_batch([make_span(1, input=f"{first}é"), make_span(2, input="é", attributes={})])
    assert storable(batch) is batch


@pytest.mark.parametrize("first", ["short", LONG])
@pytest.mark.parametrize("wrong", [5, [LONG], b"x" * 300])
def test_a_value_of_another_type_is_refused(first: str, wrong: Any) -> None:
    with pytest.raises(PermanentError):
        storable(make_batch([make_span(1, input=first), make_span(2, input=wrong)]))


@pytest.mark.parametrize("column", ["attributes", "measurements"])
def test_one_map_of_many_is_enough(column: str) -> None:
    maps: list[Any] = [None, {}, {"a": "b"}, {"a\0": "b"}]
    if column == "measurements":
        maps = [None, {}, {"a": 1.5}, {"a\0": 2.5}]
    spans = [make_span(at, **{column: value}) for at, value in enumerate(maps)]
    stored = [getattr(row, column) for row in storable(make_batch(spans)).rows]
    assert stored == [*maps[:3], {"a\u2400": next(iter(maps[3].values()))}]
