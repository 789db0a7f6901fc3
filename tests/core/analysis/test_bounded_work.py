"""Scanning and comparing take work in proportion to the text, whatever the text.

No clock: the steps are counted, as lines and calls that the interpreter ran, and what each regular
expression of Python's own engine was given, as that one may go back over what it read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_core.analysis.texts import compare
from llmops_core.scanner import extract, kinds, patterns, scan


def steps(work: Callable[[], object]) -> int:
    """Return how many lines and calls of Python some work takes; the same at each time."""
    work()  # fills the caches
    count = 0

    def count_one(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return count_one

    before = sys.gettrace()
    sys.settrace(count_one)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


_UNITS = st.lists(
    st.sampled_from(
        ["a", "A", "1", ".", ",", "-", "_", "@", "#", "$", "+", "(", ")", " ", "\n", '"', "'s ", "/",
         "://", "http://", "May ", "of ", "A of ", "St", "é", "Ж", "%", "<", ":", "Mr. ", "order ",
         " x ", "Suite ", "USD", "name: ", "1.1."]
    ),
    min_size=1,
    max_size=8,
).map("".join)  # fmt: skip


@given(_UNITS)
@settings(max_examples=150, deadline=None)
def test_four_times_the_text_is_scanned_in_four_times_the_steps(unit: str) -> None:
    small, large = (steps(lambda n=n: scan(unit * n)) for n in (80, 320))
    assert large <= 4.3 * small + 200


class Watched:
    """A compiled expression that refuses more text than an entity and what stands before it."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._bounded = width(pattern) < 500

    def _given(self, text: str, at: int, end: int) -> None:
        if not self._bounded:
            assert min(end, len(text)) - at <= extract._LONGEST, self._pattern.pattern

    def search(self, text: str, at: int = 0, end: int = sys.maxsize) -> re.Match[str] | None:
        self._given(text, at, end)
        return self._pattern.search(text, at, end)

    def match(self, text: str, at: int = 0, end: int = sys.maxsize) -> re.Match[str] | None:
        self._given(text, at, end)
        return self._pattern.match(text, at, end)

    def fullmatch(self, text: str) -> re.Match[str] | None:
        self._given(text, 0, len(text))
        return self._pattern.fullmatch(text)

    def finditer(self, text: str, at: int = 0, end: int = sys.maxsize) -> Iterator[re.Match[str]]:
        self._given(text, at, end)
        return self._pattern.finditer(text, at, end)


def width(pattern: re.Pattern[str]) -> int:
    """Return how many characters a match has at most."""
    return int(re._parser.parse(pattern.pattern, pattern.flags).getwidth()[1])  # type: ignore[attr-defined]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Watch every expression of the scanner that Python's engine runs, and return their names."""
    found = [
        (module, name)
        for module in (extract, kinds, patterns)
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    ]
    for module, name in found:
        monkeypatch.setattr(module, name, Watched(getattr(module, name)))
    return [name for _, name in found]


HOSTILE = ["a", "a.", "A", "1,", "a_", "A ", "1 ", "+1", "#", "1.1.", "A of ", "a-", "1 A ", "May ",
           "http://", "a@", '"', '" ', "$1", "Mr. ", "x1", "(1) ", " ", "\n", ">", "*", "A's ", "1.\n",
           "id ", "name: ", "zip ", " x s", "1 as ", "(", ": A", "A\n", " 'a", " 'a b", "/a", "0 1",
           "AB 1 ", "A1 2B", "USD 1 ", "1 000 "]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_expression_that_may_go_back_is_given_a_long_text(
    watched: list[str], piece: str
) -> None:
    assert len(watched) >= 20
    scan(piece * 2_000)
    scan("Anna " + piece * 2_000 + " order 4411, Anna Berg's 3 boxes")


def word(at: int) -> str:
    return "w" + "".join(chr(97 + at // 26**power % 26) for power in range(3))


#: Texts of n values, as (before, after) of the n-th: all are left on both sides, or nearly found.
PAIRS: dict[str, tuple[Callable[[int], str], Callable[[int], str]]] = {
    "amounts": (lambda i: f"${7 * i + 3}.10", lambda i: f"${11 * i + 5}.20"),
    "amounts between words": (
        lambda i: f"{word(i)} ${7 * i + 3}.10", lambda i: f"{word(i)} ${11 * i + 5}.20"),
    "amounts of things": (
        lambda i: f"Thing {word(i).title()} costs ${i}.", lambda i: f"${i ^ 1}: {word(i).title()}."),
    "dates": (lambda i: f"{1000 + i}-03-09", lambda i: f"{3000 + i}-04-09"),
    "days": (lambda i: f"March {i % 28 + 1}", lambda i: f"April {i % 28 + 1}, {1990 + i}"),
    "days of many years": (lambda i: f"{1000 + i}-03-09", lambda i: f"{5000 + i}-03-09"),
    "names": (lambda i: f"met {word(i).title()} Berg,", lambda i: f"met {word(i).title()} Holm,"),
    "names and handles": (
        lambda i: f"Anna {word(i).title()}.", lambda i: f"anna.x{word(i)[1:]}@x.org"),
    "order numbers": (lambda i: f"#A{7 * i + 100_000}", lambda i: f"#A{11 * i + 100_000}"),
    "boxes": (lambda i: f"{7 * i} boxes,", lambda i: f"{11 * i} boxes,"),
    "exclusions": (lambda i: f"not #A{i + 1000}", lambda i: f"use #A{i + 1000}"),
    "exceptions": (lambda i: f"nothing except #A{i + 1000}", lambda i: f"but not #A{i + 1000}"),
    "exchanged": (
        lambda i: f"Thing{word(i)}: {i}.", lambda i: f"Thing{word(i)}: {i ^ 1}."),
    "replaced words": (
        lambda i: f"{word(i)} go tea{word(i)[1:]}pot on #A{i}", lambda i: f"{word(i)} go an item on #A{i}"),
    "one amount": (lambda i: "$5", lambda i: "$6"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAIRS)
def test_four_times_the_values_are_compared_in_four_times_the_steps(kind: str) -> None:
    first, second = PAIRS[kind]

    def work(n: int) -> Callable[[], object]:
        before, after = (" ".join(map(of, range(n))) for of in (first, second))
        return lambda: compare(before, after)

    assert steps(work(400)) <= 4.3 * steps(work(100))
