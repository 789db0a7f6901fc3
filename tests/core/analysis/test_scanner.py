"""The scanner finds typed entities and gives them canonical forms, on any text and in linear time."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_core.errors import PluginError
from llmops_core.scanner import canonical, normal, scan, scan_all, skeleton
from llmops_core.scanner.patterns import candidates


def found(text: str) -> list[tuple[str, str]]:
    return [(entity.type, entity.text) for entity in scan(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ann.lee@example.org today", [("email", "ann.lee@example.org")]),
        ("see https://example.org/a/b?c=1.", [("url", "https://example.org/a/b?c=1")]),
        ("see example.org/a/b.", [("url", "example.org/a/b")]),
        ("call (212) 555-0147 or +44 20 7946 0958",
         [("phone", "(212) 555-0147"), ("phone", "+44 20 7946 0958")]),
        ("order #A-10023 was paid", [("id", "#A-10023")]),
        ("account acct_99120 and visa_card_1", [("id", "acct_99120")]),
        ("ticket 4411 is open", [("id", "4411")]),
        ("the key 123e4567-e89b-12d3-a456-426614174000 fits",
         [("id", "123e4567-e89b-12d3-a456-426614174000")]),
        ("due 2025-03-09, or 9 March 2025, or March 9",
         [("date", "2025-03-09"), ("date", "9 March 2025"), ("date", "March 9")]),
        ("at 17:30 or 5 pm", [("time", "17:30"), ("time", "5 pm")]),
        ("paid $1,250.50, EUR 30 and 12 dollars",
         [("money", "$1,250.50"), ("money", "EUR 30"), ("money", "12 dollars")]),
        ("a fee of 2.5 % or 3 percent", [("percent", "2.5 %"), ("percent", "3 percent")]),
        ("lives at 12 Long Pine Road, Apt 4B", [("address", "12 Long Pine Road"), ("suite", "Apt 4B")]),
        ("zip code 90210", [("zip", "90210")]),
        ("wants 3 boxes", [("quantity", "3")]),
        ("wants 4x and x5", [("quantity", "4"), ("quantity", "5")]),
        ("she said \"call me back soon\"", [("quoted", "call me back soon")]),
        ("he met Anna Berg in Oslo", [("phrase", "Anna Berg"), ("phrase", "Oslo")]),
        ("my name is Anna Berg", [("name", "Anna Berg")]),
        ("he met Иван Петров there", [("phrase", "Иван Петров")]),
        ("from <email:0a1b2c3d4e5f> on", [("token", "<email:0a1b2c3d4e5f>")]),
        ("please Book HAT202 now", [("id", "HAT202")]),
    ],
)  # fmt: skip
def test_entities_have_types(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "You should return it. Then we will see.",
        "In May it may rain; on Monday I am away.",
        "Customer: unknown. Order: none.",
        "1. first\n2. second\n",
        "the item, a desk, was fine",
        "",
    ],
)
def test_what_only_looks_like_an_entity_is_none(text: str) -> None:
    assert found(text) == []


def test_digits_are_never_cut_out_of_an_id_a_phone_or_an_address() -> None:
    text = "gift_card_5550001, 212-555-0147, a1@x9.io, v2.10.3, 7f3e9a10bb, #W12340, 12340"
    numbers = [entity.text for entity in scan(text) if entity.type in ("number", "quantity")]
    assert numbers == ["12340"]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("phone", "+1 (212) 555-0147", "2125550147"),
        ("date", "2025-03-09", "9th March 2025"),
        ("date", "03/25/2025", "25.03.2025"),
        ("time", "5 pm", "17:00"),
        ("money", "$1,250", "1250.00 USD"),
        ("money", "€1.250,00", "1250 euros"),
        ("money", "$2k", "USD 2,000"),
        ("percent", "60.00 %", "60 percent"),
        ("id", "#W12-34", "w1234"),
        ("email", "Ann@Example.org", "mailto:ann@example.org"),
        ("url", "https://www.example.org/a/", "http://example.org/a"),
        ("address", "12 Pine Street", "12 PINE St."),
        ("suite", "Suite 12", "Ste 12"),
        ("phrase", "José Núñez", "JOSE NUNEZ"),
        ("phrase", "Desk Lamps", "desk lamp"),
        ("quantity", "1,200", "1200"),
    ],
)
def test_two_ways_to_write_a_value_have_one_canonical_form(kind: str, one: str, other: str) -> None:
    assert canonical(kind, one) == canonical(kind, other)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("quantity", "1,200", "12,000"),
        ("money", "$5", "€5"),
        ("id", "1234", "12340"),
        ("date", "2025-03-09", "2025-09-03"),
        ("time", "5 am", "17:00"),
        ("phrase", "Desk Lamp", "Desk Stand"),
    ],
)
def test_other_values_have_other_forms(kind: str, one: str, other: str) -> None:
    assert canonical(kind, one) != canonical(kind, other)


def test_an_accent_that_is_written_apart_is_the_same_letter() -> None:
    assert [e.canonical for e in scan("met Jose\u0301 Nu\u0301n\u0303ez there")] == ["jose nunez"]


def test_equal_texts_of_a_batch_are_scanned_alike() -> None:
    text = "order #A100 for Anna Berg"
    assert scan_all([text, "nothing", text]) == [scan(text), [], scan(text)]


@pytest.mark.parametrize(
    "found",
    [
        5,
        [5],
        [("colour", 0)],
        [(1, 0, 3)],
        [("colour", -3, 2)],
        [("colour", 3, 3)],
        [("colour", 0, 99)],
    ],
)
def test_an_extractor_that_says_what_cannot_be_ends_the_scan_with_its_name(found: Any) -> None:
    class Wrong:
        def extract(self, text: str) -> Any:
            return found

    with pytest.raises(PluginError, match="Entity extractor Wrong failed with"):
        scan("a teal cup", [Wrong()])


def test_an_interrupt_while_an_extractor_works_is_the_users() -> None:
    class Slow:
        def extract(self, text: str) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan("a teal cup", [Slow()])


def test_an_extractor_adds_entities_of_its_own_type() -> None:
    class Colours:
        def extract(self, text: str) -> list[tuple[str, int, int]]:
            at = text.find("teal")
            return [("colour", at, at + 4)] if at >= 0 else []

    assert [(e.type, e.text) for e in scan("a teal chair", [Colours()])] == [("colour", "teal")]


@given(st.text(max_size=400))
@settings(max_examples=80, deadline=None)
def test_any_text_can_be_scanned_and_every_entity_lies_in_it(text: str) -> None:
    whole = normal(text)
    for entity in scan(text):
        assert entity.text == whole[entity.start : entity.end]
        assert entity.text


_PIECES = st.lists(
    st.sampled_from(
        ["a", "A", "1", ".", ",", "-", "_", "@", "#", "$", "+", "(", ")", " ", "\n", '"', "'", "/",
         "://", "http://", "May ", "of ", "A of ", "St", "é", "Ж", "\ud800", "\0", "%", "<", ":"]
    ),
    max_size=80,
)  # fmt: skip


@given(_PIECES)
@settings(max_examples=100, deadline=None)
def test_pieces_of_patterns_in_any_order_can_be_scanned(pieces: list[str]) -> None:
    scan("".join(pieces))


@given(st.text(max_size=200))
@settings(max_examples=80, deadline=None)
def test_the_skeleton_is_ascii_and_as_long_as_the_text(text: str) -> None:
    bones = skeleton(normal(text))
    assert bones.isascii()
    assert len(bones) == len(normal(text))


HOSTILE = ["a", "a.", "A", "1,", "a_", "A ", "1 ", "+1", "#", "1.1.", "A of ", "a-", "1 A ", "May ",
           "http://", "a@", '"', "$1", "Mr. ", "x1", "(1) "]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_candidates_of_hostile_texts_grow_with_the_text_and_no_faster(piece: str) -> None:
    """The engine is linear by construction; what could break it is a pattern that finds more than
    one candidate at a place, or one that overlaps another."""
    last = 0
    count = 0
    text = piece * 3000
    for start, end in candidates(text):
        assert start >= last
        assert end > start
        last = end
        count += 1
    assert count <= len(text)
    scan(text)


def test_a_long_text_takes_memory_in_proportion() -> None:
    scan("order #A1")
    peaks = []
    for size in (2_000, 20_000):
        text = "order #A100 for Anna Berg, 3 boxes. " * size
        tracemalloc.start()
        for _ in candidates(text):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 20 * peaks[0]


def test_importing_the_scanner_and_the_front_door_imports_no_engine() -> None:
    code = "import sys, llmops_core, llmops_core.scanner; print('re2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
