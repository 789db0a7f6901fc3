"""Two texts compared: what is kept, reformatted, altered, lost and added, and what was exchanged."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_core.analysis.content import readable
from llmops_core.analysis.texts import Comparison, compare


def fates(found: Comparison) -> dict[str, str]:
    return {fate.value: fate.status for fate in found.fates}


def test_the_published_example_reports_name_email_and_order_number_as_lost() -> None:
    found = compare(
        "Customer John Smith (john@example.com) needs help with order #12345", "order help"
    )
    assert found.values("lost") == ["John Smith", "john@example.com", "#12345"]
    assert found.drift == 1.0
    assert found.has_high_drift


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("call 212-555-0147", "phone: +1 (212) 555 0147"),
        ("due 2025-03-09", "due on March 9, 2025"),
        ("due March 9", "due 2025-03-09"),
        ("paid $1,250", "1250 USD were paid"),
        ("meet at 5 pm", "meet at 17:00"),
        ("write to Ann@example.org", "mailto:ann@example.org"),
        ("order #W6001", "order no. W6001"),
        ("use gift_card_77120", "use gift card 77120"),
        ("lives at 12 Pine Street", "12 PINE ST."),
        ("wants 6 boxes", "six boxes"),
        ("for José Núñez", "for Jose Nunez"),
        ("for Anna Berg", "for A. Berg"),
        ("for Anna Berg", "for Ms. Berg"),
        ("for Anna Berg", "Berg, Anna"),
        ("a Desk Lamp", "two desk lamps"),
        ("see https://example.org/x", "see example.org/x"),
        ("a rate of 60.00%", "60 percent"),
    ],
)
def test_a_value_that_is_written_otherwise_is_no_loss(before: str, after: str) -> None:
    found = compare(before, after)
    assert found.values("lost") == []
    assert found.values("altered") == []
    assert found.values("added") == []
    assert found.values("reformatted") != []
    assert found.drift == 0.0


@pytest.mark.parametrize(
    ("before", "after", "value", "becomes"),
    [
        ("order #W60012 is late", "order #W60021 is late", "#W60012", "#W60021"),
        ("mail ann.lee12@example.org", "mail ann.lee72@example.org",
         "ann.lee12@example.org", "ann.lee72@example.org"),
        ("ticket 1234 is open", "ticket 12340 is open", "1234", "12340"),
        ("due 2025-03-09", "due 2025-03-10", "2025-03-09", "2025-03-10"),
        ("The total was $950 for it.", "The total was $95 for it.", "$950", "$95"),
        ("she asked for Anna Berg today", "she asked for Anna Holm today", "Anna Berg", "Anna Holm"),
        ("please return the Desk Lamp with the receipt", "please return the Tea Pot with the receipt",
         "Desk Lamp", "Tea Pot"),
        ("she wants 3 boxes of it", "she wants 5 boxes of it", "3", "5"),
    ],
)  # fmt: skip
def test_a_value_that_was_changed_on_its_way_is_altered(
    before: str, after: str, value: str, becomes: str
) -> None:
    found = compare(before, after)
    assert [(f.value, f.becomes) for f in found.fates if f.status == "altered"] == [
        (value, becomes)
    ]
    assert found.values("lost") == []
    assert found.values("added") == []


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ("ship 1,200 units by May; limit 12,000 units", "ship 12,000 units", ["1,200"]),
        ("wants 3 boxes at 5 pm", "come at 3 PM or 5 pm", ["3"]),
        ("May Young called", "it may take a while", ["May Young"]),
        ("pin 4410 for Anna Berg", "Anna Berg has 44101", ["4410"]),
    ],
)
def test_a_value_is_not_found_inside_another(before: str, after: str, lost: list[str]) -> None:
    found = compare(before, after)
    assert found.values("lost") + found.values("altered") == lost


def test_words_that_were_replaced_in_place_are_lost_too() -> None:
    found = compare(
        "please send the tea kettle back to the store", "please send an item back to the store"
    )
    assert found.values("lost") == ["tea kettle"]


def test_what_the_second_text_invents_is_added() -> None:
    found = compare(
        "refund order #A1001",
        "refund order #A1001, call 212-555-0147, pay $40 to Anna Berg by 2025-01-02, see #B2002",
    )
    assert found.values("added") == ["212-555-0147", "$40", "Anna Berg", "2025-01-02", "#B2002"]


def test_a_name_that_only_survives_in_an_address_is_neither_kept_nor_lost() -> None:
    found = compare("Anna Berg, anna.berg@example.org", "anna.berg@example.org")
    assert fates(found)["Anna Berg"] == "implied"
    assert found.n == 1


def test_stable_tokens_are_followed_as_the_values_they_stand_for_were() -> None:
    """A redactor replaces a value by a token of its canonical form: equal values, equal tokens."""
    before = "<name:0a1b2c3d4e> lives at <address:11aa22bb33>, mail <email:99ff00aa11>"
    found = compare(before, "Contact <name:0a1b2c3d4e>, <email:99ff00aa12>, <phone:1234567890>")
    assert fates(found) == {
        "<name:0a1b2c3d4e>": "kept",
        "<address:11aa22bb33>": "lost",
        "<email:99ff00aa11>": "lost",
        "<email:99ff00aa12>": "added",
        "<phone:1234567890>": "added",
    }


def test_a_text_that_was_cut_makes_unknown_and_never_lost() -> None:
    found = compare("order #A1001 of Anna Berg, 3 boxes", "order #A1001", complete=False)
    assert found.values("lost") == []
    assert found.values("unknown") == ["Anna Berg", "3"]
    assert found.drift == 0.0


def test_nothing_to_keep_has_no_drift() -> None:
    found = compare("hello there", "hello")
    assert found.drift is None
    assert not found.has_high_drift


SWAPPED = [
    ("She wants 2 x Blue Lamp and 5 x Red Chair.", "Blue Lamp (5), Red Chair (2)."),
    ("Send 4 boxes to Berlin and 7 boxes to Oslo.", "Berlin gets 7 boxes and Oslo gets 4 boxes."),
    ("Anna Berg pays $40 and Omar Reyes pays $95.", "Charge: Anna Berg $95; Omar Reyes $40."),
    ("Transfer $200 to acct_1111 and $350 to acct_2222.",
     "Move $350 to acct_1111, then $200 to acct_2222."),
    ("We need quantity 9 for Garden Hose, quantity 10 for Desk Lamp.",
     "Garden Hose: 10\nDesk Lamp: 9"),
    ("Bought 6 Notebook and 12 Pencil Set under order #K77123.",
     "Order #K77123: Notebook x12, Pencil Set x6"),
    ("There are 4 tickets for Anna Berg and 2 tickets for Omar Reyes.",
     "Omar Reyes: 4 tickets. Anna Berg: 2 tickets."),
]  # fmt: skip
STRAIGHT = [
    ("She wants 2 x Blue Lamp and 5 x Red Chair.", "Red Chair: 5, Blue Lamp: 2."),
    ("Send 4 boxes to Berlin and 7 boxes to Oslo.", "Oslo gets 7 boxes and Berlin gets 4 boxes."),
    ("Anna Berg pays $40 and Omar Reyes pays $95.", "Omar Reyes $95; Anna Berg $40."),
    ("Transfer $200 to acct_1111 and $350 to acct_2222.",
     "acct_1111 receives $200 and acct_2222 receives $350"),
    ("We need quantity 9 for Garden Hose, quantity 10 for Desk Lamp.",
     "Garden Hose: 9\nDesk Lamp: 10"),
    ("There are 4 tickets for Anna Berg and 2 tickets for Omar Reyes.",
     "Omar Reyes: 2 tickets. Anna Berg: 4 tickets."),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), SWAPPED)
def test_two_things_that_exchanged_their_numbers_are_reported(before: str, after: str) -> None:
    found = compare(before, after)
    assert len(found.swaps) == 2
    assert found.drift == 0.0, "nothing is lost: each value is still there"


@pytest.mark.parametrize(("before", "after"), STRAIGHT)
def test_another_order_of_the_same_pairs_is_no_exchange(before: str, after: str) -> None:
    assert compare(before, after).swaps == ()


FLIPPED = [
    ("Ship to 12 Oak Street, not to 40 Pine Road.", "Ship to 40 Pine Road, not to 12 Oak Street."),
    ("Use paypal_123456, don't use credit_card_999111.",
     "Use credit_card_999111; paypal_123456 must not be used."),
    ("Call Maria Lopez, never Tom Ford.", "Please call Tom Ford, never Maria Lopez."),
    ("Book HAT101 instead of HAT202.", "Book HAT202 instead of HAT101."),
    ("Avoid flight HAT122; take HAT345.", "Take flight HAT122 and avoid HAT345."),
    ("Cancel order #A10013. Do not cancel order #A10024.",
     "Cancel order #A10024 but not #A10013."),
    ("Never share invoice INV-2231 with Acme Corp.", "Share invoice INV-2231 with Acme Corp."),
    ("The user does not want to exchange Desk Lamp, but wants to return Garden Hose.",
     "The user wants to exchange Desk Lamp, but does not want to return Garden Hose."),
]  # fmt: skip
STEADY = [
    ("Ship to 12 Oak Street, not to 40 Pine Road.",
     "Send it to 12 Oak Street; 40 Pine Road must not be used."),
    ("Use paypal_123456, don't use credit_card_999111.",
     "Payment: paypal_123456 (not credit_card_999111)."),
    ("Call Maria Lopez, never Tom Ford.", "Never call Tom Ford; call Maria Lopez."),
    ("Book HAT101 instead of HAT202.", "Book HAT101 rather than HAT202."),
    ("Cancel order #A10013. Do not cancel order #A10024.",
     "Orders: #A10013 to cancel; #A10024 not to cancel."),
    ("You do not want to wait. Cancel order #A10013 because it is no longer needed.",
     "Order: #A10013; Reason: no longer needed"),
    ("You don't remember which email you used: ann@example.org. Return order #A10013.",
     "Email: ann@example.org; Order: #A10013."),
    ("The customer has no receipt for Desk Lamp and wants to return Desk Lamp.",
     "Return of Desk Lamp, no receipt."),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), FLIPPED)
def test_a_value_that_was_excluded_and_is_no_more_is_reported(before: str, after: str) -> None:
    assert compare(before, after).flips != ()


@pytest.mark.parametrize(("before", "after"), STEADY)
def test_an_exclusion_in_other_words_is_no_flip(before: str, after: str) -> None:
    assert compare(before, after).flips == ()


_VALUES = st.lists(
    st.one_of(
        st.from_regex(r"#[A-Z][0-9]{5,7}", fullmatch=True),
        st.from_regex(r"[a-z]{3,8}\.[a-z]{3,8}@example\.org", fullmatch=True),
        st.from_regex(r"\$[1-9][0-9]{1,3}\.[0-9]{2}", fullmatch=True),
        st.sampled_from(["Anna Berg", "Omar Reyes", "Mei Tanaka", "Blue Lamp", "Oslo Harbour"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda value: value.lower(),
)
_FILLER = ["about", "and then", "with", "please check", "as well as", "regarding"]


@given(_VALUES, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_on_null_data_nothing_is_lost_altered_added_or_flipped(values, random) -> None:
    """The same values in another order and in other words: every finding would be false."""
    before = " ".join(f"{random.choice(_FILLER)} {value}," for value in values)
    random.shuffle(values)
    after = " ".join(f"{random.choice(_FILLER)} {value};" for value in values)
    found = compare(before, after)
    assert found.values("lost") == found.values("altered") == found.values("added") == []
    assert found.swaps == found.flips == ()
    assert found.drift == 0.0


@given(_VALUES, st.data())
@settings(max_examples=60, deadline=None)
def test_exactly_the_values_that_were_left_out_are_lost(values, data) -> None:
    kept = data.draw(st.lists(st.sampled_from(values), unique=True))
    before = ", ".join(f"about {value}" for value in values)
    after = ", ".join(f"regarding {value}" for value in kept)
    assert compare(before, after).values("lost") == [v for v in values if v not in kept]


@given(st.text(max_size=200), st.text(max_size=200))
@settings(max_examples=80, deadline=None)
def test_any_two_texts_can_be_compared(one: str, other: str) -> None:
    compare(one, other)


@given(st.text(alphabet="aA1 .#@$-:\n'\"é", max_size=150))
@settings(max_examples=80, deadline=None)
def test_a_text_compared_with_itself_keeps_everything(text: str) -> None:
    found = compare(text, text)
    assert {fate.status for fate in found.fates} <= {"kept", "reformatted"}


def test_messages_are_read_without_roles_and_json_with_its_keys_as_labels() -> None:
    assert (
        readable(
            '[{"role":"user","content":"hi","name":"x"},{"role":"assistant","content":"",'
            '"tool_calls":[{"id":"1","name":"f","args":{"order":"#A1"}}]}]'
        )
        == "hi\norder: #A1"
    )
    assert readable('{"amount": 5, "who": {"name": "Anna"}}') == "amount: 5\nname: Anna"
    assert readable('{"cut": "in the mid') == '{"cut": "in the mid'
    assert readable(None) == ""


@pytest.mark.parametrize("handle", ["{}@example.org", "http://x.org/{}", "{}-44710"])
def test_a_name_is_found_in_the_handle_of_many_that_has_all_of_it(handle: str) -> None:
    handles = [handle.format(name) for name in ("anna.holm", "omar.berg", "anna.berg", "mei.berg")]
    found = compare("asks Anna Berg, not Ruth Holm", "see " + ", ".join(handles))
    assert fates(found)["Anna Berg"] == "implied"
    assert fates(found)["Ruth Holm"] == "lost"
