"""What a text excludes, in many phrasings: a flip is reported, the same stance in other words is not."""

from __future__ import annotations

import pytest

from llmops_core.analysis.texts import compare

#: (before, after): the stance to a value is the opposite.
FLIPPED = [
    ("Under no circumstances contact Maria Lopez about the delay.",
     "Contact Maria Lopez about the delay."),
    ("Everything except invoice INV-2231 may be paid.", "Invoice INV-2231 may be paid."),
    ("Pay all invoices but not INV-7781.", "Pay all invoices, first INV-7781."),
    ("Please reimburse Omar Reyes.", "Do not reimburse Omar Reyes; he was paid."),
    ("The meeting must not move to March 9, 2025.", "The meeting must move to March 9, 2025."),
    ("Forward the file to ann.lee@example.org.", "Never forward the file to ann.lee@example.org."),
    ("Open a case for #K20117 and skip #K20118.", "Open a case for #K20118 and skip #K20117."),
    ("Nothing except order #K20117 may be shipped today.",
     "Order #K20117 may not be shipped today."),
    ("Without invoice INV-2231 nothing can be refunded.",
     "Handle the refund without invoice INV-2231."),
    ("Don't forget to call Mei Tanaka back.", "Do not call Mei Tanaka back."),
]  # fmt: skip

#: (before, after): both say the same, or at least not the opposite.
STEADY = [
    ("Without order #K20117 nothing can be refunded.", "Refund order #K20117."),
    ("Without order #K20117, no refund is possible.", "The refund needs order #K20117."),
    ("No refund without order #K20117.", "For a refund order #K20117 is required."),
    ("We can't refund anything without order #K20117.", "Order #K20117 comes with the refund."),
    ("Nothing except order #K20117 may be shipped today.", "Ship order #K20117 today, only that."),
    ("Nobody but Maria Lopez may approve the refund.", "Maria Lopez may approve the refund."),
    ("Approve nothing other than invoice INV-2231.", "Approve invoice INV-2231."),
    ("Don't forget to call Mei Tanaka back.", "Call Mei Tanaka back."),
    ("Do not hesitate to contact Omar Reyes with questions.",
     "Contact Omar Reyes with questions."),
    ("Invite not only Mei Tanaka but also Omar Reyes.", "Invite Mei Tanaka and Omar Reyes."),
    ("Deliver the desk no later than March 9, 2025.", "Deliver the desk by March 9, 2025."),
    ("Deliver the desk not later than March 9, 2025.", "Deliver the desk by March 9, 2025."),
    ("The refund must not exceed $40.", "The refund is at most $40."),
    ("Please do not refund #K20117, use #K20118 for the refund.",
     "Refund #K20118, and leave out #K20117."),
    ("If the phone is off, never mind, call Omar Reyes.", "Call Omar Reyes if the phone is off."),
    ("Not sure which lamp it was, so ask Mei Tanaka about the lamp.",
     "Ask Mei Tanaka about the lamp."),
]  # fmt: skip

#: (before, after, things): two things exchanged their numbers.
SWAPPED = [
    ("Pack 4 Garden Hoses and 7 Desk Lamps.", "Pack 7 Garden Hoses and 4 Desk Lamps.", 2),
    ("Garden Hose: 4\nDesk Lamp: 7", "The order has 7 of Garden Hose and 4 of Desk Lamp.", 2),
    ("Transfer $300 to Maria Lopez, $450 to Omar Reyes.",
     "Maria Lopez gets $450 and Omar Reyes gets $300.", 2),
]  # fmt: skip
UNSWAPPED = [
    ("Pack 4 Garden Hoses and 7 Desk Lamps.", "Pack 7 Desk Lamps as well as 4 Garden Hoses."),
    ("Transfer $300 to Maria Lopez, $450 to Omar Reyes.",
     "Omar Reyes: $450. Maria Lopez: $300."),
    ("Garden Hose: 4\nDesk Lamp: 7", "The order has 4 of Garden Hose and 5 of Desk Lamp."),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), FLIPPED)
def test_the_opposite_stance_is_a_flip(before: str, after: str) -> None:
    assert compare(before, after).flips != ()


@pytest.mark.parametrize(("before", "after"), STEADY)
def test_the_same_stance_in_other_words_is_none(before: str, after: str) -> None:
    assert compare(before, after).flips == ()


@pytest.mark.parametrize(("before", "after", "things"), SWAPPED)
def test_things_that_exchanged_their_numbers_are_swapped(
    before: str, after: str, things: int
) -> None:
    assert len(compare(before, after).swaps) == things


@pytest.mark.parametrize(("before", "after"), UNSWAPPED)
def test_numbers_that_stayed_with_their_things_are_not(before: str, after: str) -> None:
    assert compare(before, after).swaps == ()
