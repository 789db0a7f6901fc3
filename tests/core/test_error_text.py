"""An exception is described without its code."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from llmops_core.freeze.error_text import describe_error


class Hostile(Exception):
    def __str__(self) -> str:
        raise AssertionError

    __repr__ = __str__


class WithMessage(Exception):
    def __init__(self) -> None:
        self.message = "kept apart"


def raised(call: Any) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad"), ("ValueError", "bad")),
        (ValueError(), ("ValueError", "")),
        (KeyError("a"), ("KeyError", "'a'")),
        (OSError(2, "No such file", "/x"),
         ("FileNotFoundError", "[Errno 2] No such file: '/x'")),
        (StopIteration(4), ("StopIteration", "4")),
        (Hostile("shown"), (f"{__name__}.Hostile", "shown")),
        (Hostile(1, {"a": 2}), (f"{__name__}.Hostile", '[1,{"a":2}]')),
        (Hostile(), (f"{__name__}.Hostile", "")),
        (WithMessage(), (f"{__name__}.WithMessage", "kept apart")),
        (ValueError(Hostile("in")), ("ValueError", f'{{"args":["in"],"type":"{__name__}.Hostile"}}')),
        (KeyError(Hostile()), ("KeyError", f'{{"args":[],"type":"{__name__}.Hostile"}}')),
        (OSError(1, "x", Hostile()), ("PermissionError", '[1,"x"]')),
        (KeyboardInterrupt(), ("KeyboardInterrupt", "")),
    ],
)  # fmt: skip
def test_an_exception_is_its_type_and_what_it_was_made_with(
    error: BaseException, expected: tuple[str, str]
) -> None:
    assert describe_error(error) == expected


def test_no_attribute_is_asked_for_by_name() -> None:
    class Closed(Exception):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    assert describe_error(Closed("shown"))[1] == "shown"
    assert describe_error(Closed())[1] == ""


def test_a_unicode_error_reads_as_python_prints_it() -> None:
    error = raised(lambda: b"\xff".decode())
    assert describe_error(error) == ("UnicodeDecodeError", str(error))


def test_the_message_is_bounded() -> None:
    assert describe_error(ValueError("x" * 1_000_000))[1] == "x" * 2000
    assert describe_error(ValueError("x" * 100), limit=10)[1] == "x" * 10
    assert len(describe_error(KeyError("x" * 1_000_000))[1]) <= 2000
    assert len(describe_error(Hostile(*range(10_000)))[1]) <= 2000


def test_a_validation_error_lists_its_fields_and_not_the_inputs() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        count: int
        items: list[int]

    name, text = describe_error(raised(lambda: Order(count="secret", items=[1, "x"])))
    assert name == "pydantic_core._pydantic_core.ValidationError"
    assert text.startswith("Order: count: Input should be a valid integer")
    assert "items.1: " in text
    assert "secret" not in text


def test_a_validator_that_raises_has_its_message_told_and_none_of_its_code_called() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Counted(ValueError):
        calls = 0

        def __str__(self) -> str:
            Counted.calls += 1
            return "counted"

    def refuse(value: str) -> None:
        raise {"counted": Counted("x"), "holds": ValueError(Counted("x"))}.get(
            value, ValueError(value)
        )

    class Order(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        item: str
        check = pydantic.field_validator("item")(refuse)

    if not any(
        type(found) is ValueError
        for found in gc.get_referents(raised(lambda: Order(item="sold out")))
    ):
        pytest.skip("this pydantic does not say what a validator raised")

    def within(value: str) -> None:
        try:
            raise Counted
        except Counted:
            Order(item=value)

    def describe(call: Any) -> str:
        error = raised(call)
        before = Counted.calls
        text = describe_error(error)[1]
        assert Counted.calls == before
        return text

    assert describe(lambda: Order(item="sold out")) == "Order: item: Value error, sold out"
    assert describe(lambda: within("sold out")) == "Order: item: Value error, sold out"
    assert describe(lambda: Order(item="counted")) == "Order: 1 validation error"
    assert describe(lambda: Order(item="holds")) == "Order: 1 validation error"


def test_of_many_validation_errors_the_count_is_told_and_none_is_rendered() -> None:
    pydantic = pytest.importorskip("pydantic")
    numbers = pydantic.TypeAdapter(list[int])
    few = describe_error(raised(lambda: numbers.validate_python(["x"] * 50)))[1]
    assert few.startswith("list[int]: 0: Input should be a valid integer")
    assert few.endswith("; and 40 more")
    many = describe_error(raised(lambda: numbers.validate_python(["x"] * 51)))[1]
    assert many == "list[int]: 51 validation errors"
