"""Values as other countries, trades and hands write them: the same ones are kept, others are not."""

from __future__ import annotations

import pytest

from llmops_core.analysis.texts import Comparison, compare
from llmops_core.scanner import scan


def fates(found: Comparison) -> dict[str, str]:
    return {fate.value: fate.status for fate in found.fates}


SAME = [
    # money
    ("The fee is CHF 1'250.00 a month.", "Monthly fee: 1250 CHF.", "CHF 1'250.00"),
    ("It cost 19,99 € each.", "Each was 19.99 euros.", "19,99 €"),
    ("Wire 12 500 zł to them.", "Wire 12500 PLN to them.", "12 500 zł"),
    ("Paid R$ 350,00 on delivery.", "Paid BRL 350 on delivery.", "R$ 350,00"),
    ("Cost ₹1,20,000 in all.", "Cost INR 120000 in all.", "₹1,20,000"),
    ("Pay 5000 yen by noon.", "Pay ¥5,000 by noon.", "5000 yen"),
    ("Refund USD 1,000.00.", "Refund $1k.", "USD 1,000.00"),
    ("We need 1.500 pieces.", "We need 1500 pieces.", "1.500"),
    # dates and times
    ("Arrives 25/12/2024.", "Arrives December 25th, 2024.", "25/12/2024"),
    ("Due 24.07.2024.", "Due July 24, 2024.", "24.07.2024"),
    ("Due 24-07-2024.", "Due 24 July 2024.", "24-07-2024"),
    ("Termin am 3. März 2025.", "Appointment on March 3, 2025.", "3. März 2025"),
    ("Vence 1 de mayo de 2024.", "Due May 1, 2024.", "1 de mayo de 2024"),
    ("Le 14 juillet 2024.", "On 14 July 2024.", "14 juillet 2024"),
    ("At 2024-05-01T10:15:00Z it failed.", "It failed 2024-05-01 10:15.", "2024-05-01T10:15:00Z"),
    ("Come at 3:30 pm.", "Come at 15:30.", "3:30 pm"),
    # phones
    ("Telefon 030 1234567", "Phone +49 30 1234567", "030 1234567"),
    ("Ring 07700 900123 now.", "Ring +44 7700 900123 now.", "07700 900123"),
    ("Appelez le 01 42 68 53 00.", "Call 0142685300.", "01 42 68 53 00"),
    ("Call +81 3-1234-5678", "Call 81312345678", "+81 3-1234-5678"),
    # codes
    ("IBAN DE89 3704 0044 0532 0130 00", "IBAN: DE89370400440532013000",
     "DE89 3704 0044 0532 0130 00"),
    ("card 4000 1234 5678 9010", "card 4000123456789010", "4000 1234 5678 9010"),
    ("Flight LH 454 is late", "LH454 is late", "LH 454"),
    ("claim number is 77-4921", "claim: 774921", "77-4921"),
    ("ISBN 978-3-16-148410-0", "ISBN 9783161484100", "978-3-16-148410-0"),
    ("to London NW1 6XE.", "to London, NW16XE.", "NW1 6XE"),
    ("see www.example.com", "see https://www.example.com/", "www.example.com"),
    # names
    ("Contact Łukasz Żółty.", "Contact Lukasz Zolty.", "Łukasz Żółty"),
    ("Contact Bjørn Sørensen.", "Contact Bjorn Sorensen.", "Bjørn Sørensen"),
    ("Contact Jürgen Groß.", "Contact Juergen Gross.", "Jürgen Groß"),
    ("Call Sun-hee Petrova.", "CALL SUN-HEE PETROVA.", "Call Sun-hee Petrova"),
    ("Tenant Greta Holm at home.", "Caller: Greta Holm | home", "Tenant Greta Holm"),
    ("Tenant Greta Holm at home.", "Note Holm, Greta. At home.", "Tenant Greta Holm"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "value"), SAME)
def test_a_value_that_is_written_as_elsewhere_is_kept(before: str, after: str, value: str) -> None:
    assert fates(compare(before, after)).get(value) in ("kept", "reformatted")


OTHERS = [
    ("refund $120", "refund $210", "$120", "altered"),
    ("She paid $40 and €40.", "She paid $40.", "€40", "lost"),
    ("A deposit of 300 SEK was made.", "A deposit was made.", "300 SEK", "lost"),
    ("The total is $5,866.25.", "In all USD 5,866.", "$5,866.25", "altered"),
    ("Due 2024-07-24.", "Due 2024-07-26.", "2024-07-24", "altered"),
    ("mail anna@firma.de please", "mail anna@firma.com please", "anna@firma.de", "altered"),
    ("10.0.0.12 is down", "10.0.0.21 is down", "10.0.0.12", "altered"),
    ("VIN 1HGCM82633A004352 here", "VIN 1HGCM82633A004325 here", "1HGCM82633A004352", "altered"),
    ("at 740 Juniper Avenue now", "at 741 Juniper Avenue now", "740 Juniper Avenue", "altered"),
    ("ticket 1415 and more", "ticket 14150, and more", "1415", "altered"),
    ("edit /etc/app/app.conf", "edit the file", "/etc/app/app.conf", "lost"),
    ("They said 'the box was wet' today.", "They said so.", "the box was wet", "lost"),
    ("Il a dit « jamais plus » hier.", "Il a dit.", "jamais plus", "lost"),
    ("Booking reference XKQ7PL for two.", "A booking for two.", "XKQ7PL", "lost"),
    ("Amara Rahman (amara.rahman6@x.example) paid.", "Amara Kowalski (amara.rahman6@x.example) paid.",
     "Amara Rahman", "altered"),
    ("She bought an Espresso Machine.", "The item is Yoga Mat.", "Espresso Machine", "altered"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "value", "status"), OTHERS)
def test_another_value_is_not_taken_for_it(
    before: str, after: str, value: str, status: str
) -> None:
    assert fates(compare(before, after)).get(value) == status


def test_a_name_that_only_its_address_keeps_is_told_but_does_not_count() -> None:
    found = compare(
        "Amara Rahman (amara.rahman6@x.example)", "Amara Kowalski (amara.rahman6@x.example)"
    )
    assert (found.drift, found.n) == (0.0, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 Juniper Road", [("address", "12 Juniper Road")]),
        ("1,200, 30, and 4", [("number", "1,200"), ("number", "30"), ("number", "4")]),
        ("between 2019-2023 or so", [("measure", "2019-2023")]),
        ("{'size': 'very large one', 'tags': ['a b', 'c d']}", []),
        ("order 100 lamps", [("quantity", "100")]),
        ("WINDOWS7 and NO 12", [("number", "12")]),
    ],
)
def test_what_looks_alike_is_something_else(text: str, expected: list[tuple[str, str]]) -> None:
    found = [(e.type, e.text) for e in scan(text) if e.type != "phrase"]
    assert found == expected


SWAPPED = [
    ("Ann gets 3 shares; Bob gets 5 shares.", "Ann gets 5 shares; Bob gets 3 shares."),
    ("Book room 12 for Weber and room 14 for Klein.", "Book room 14 for Weber and room 12 for Klein."),
    ("I want 2 mugs and 6 plates.", "6 mugs and 2 plates."),
    ("I want 2 mugs and 6 plates.", "mugs: 6, plates: 2"),
    ("name: Desk Lamp\nqty: 4\nname: Office Chair\nqty: 7", "Desk Lamp x7, Office Chair x4"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), SWAPPED)
def test_numbers_that_changed_places_are_told_of_what_has_no_name_too(
    before: str, after: str
) -> None:
    assert compare(before, after).swaps
    assert not compare(before, before).swaps


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("I want 2 mugs and 6 plates.", "2x mugs, 6x plates."),
        ("I want 2 mugs and 6 plates.", "plates: 6, mugs: 2"),
        ("name: Desk Lamp\nqty: 4\nname: Office Chair\nqty: 7", "Office Chair x7, Desk Lamp x4"),
        ("Ann gets 3 shares; Bob gets 5 shares.", "Bob gets 5 shares; Ann gets 3 shares."),
    ],
)
def test_numbers_that_stayed_are_not(before: str, after: str) -> None:
    assert not compare(before, after).swaps


@pytest.mark.parametrize(
    ("before", "after", "flips"),
    [
        ("No longer use server db-prod-03.", "Use server db-prod-03.", True),
        ("Tell Eva Klein, no need to tell Max Braun.", "Tell Eva Klein and tell Max Braun.", True),
        ("I do not need #K88123, cancel it", "cancel #K88123, no longer needed", False),
    ],
)
def test_what_is_no_longer_wanted_is_excluded(before: str, after: str, flips: bool) -> None:
    assert bool(compare(before, after).flips) is flips


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("I need order #W61077 sent to Leeds by 2024-05-01.",
         "The ref is order W61077. The city is LEEDS. The day is May 1, 2024."),
        ("Order W61077 sent to 12 Mill Road at noon.",
         "The ref is order W61077. The address is 12 Mill Road."),
        ("He paid $40.50 to Ann Lee and says 212-555-0147 is his phone.",
         "The payee is Ann Lee. The sum is 40.50 USD. Note (212) 555-0147."),
    ],
)  # fmt: skip
def test_a_verb_between_values_that_were_all_kept_is_no_loss(before: str, after: str) -> None:
    found = compare(before, after)
    assert (found.drift, found.values("lost"), found.values("added")) == (0.0, [], [])
