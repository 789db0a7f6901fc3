"""The pattern of what may be an entity: one alternation over the skeleton, run by RE2.

It only finds candidates. Each begins at a word's boundary, takes a whole run of letters and digits
(so no number is cut out of an id), and no part that can fail looks further than a bounded way: the
time is linear in the text, whatever the text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, Final

from llmops_core.errors import MissingDependency
from llmops_core.scanner.closed import CODES, FOREIGN_MONTHS

__all__ = ["STREETS", "UNITS", "candidates"]

#: What streets are called, and their postal abbreviations: one form for both.
STREETS: Final = {
    "street": "st", "st": "st", "avenue": "ave", "ave": "ave", "av": "ave", "road": "rd",
    "rd": "rd", "drive": "dr", "dr": "dr", "lane": "ln", "ln": "ln", "boulevard": "blvd",
    "blvd": "blvd", "court": "ct", "ct": "ct", "place": "pl", "pl": "pl", "square": "sq",
    "sq": "sq", "terrace": "ter", "ter": "ter", "way": "way", "highway": "hwy", "hwy": "hwy",
    "parkway": "pkwy", "pkwy": "pkwy", "circle": "cir", "cir": "cir",
}  # fmt: skip

#: Parts of a building.
UNITS: Final = {
    "suite": "suite", "ste": "suite", "apt": "apt", "apartment": "apt", "unit": "unit",
    "room": "room", "rm": "room", "floor": "floor",
}  # fmt: skip

_MONTH: Final = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?"
    r"|JAN(?:UARY)?|FEB(?:RUARY)?|MAR(?:CH)?|APR(?:IL)?|MAY|JUNE?|JULY?|AUG(?:UST)?"
    r"|SEPT?(?:EMBER)?|OCT(?:OBER)?|NOV(?:EMBER)?|DEC(?:EMBER)?)\.?"
)
_DAY: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_FOREIGN_MONTH: Final = (
    "(?:" + "|".join(f"[{m[0].upper()}{m[0]}]{m[1:]}" for m in FOREIGN_MONTHS) + ")"
)
_STREET: Final = (
    r"(?:[Ss]treet|STREET|[Ss]t|ST|[Aa]venue|AVENUE|[Aa]ve|AVE|[Rr]oad|ROAD|[Rr]d|RD|[Dd]rive"
    r"|DRIVE|[Dd]r|DR|[Ll]ane|LANE|[Ll]n|LN|[Bb]oulevard|BOULEVARD|[Bb]lvd|BLVD|[Cc]ourt|COURT"
    r"|[Cc]t|CT|[Pp]lace|PLACE|[Pp]l|PL|[Ss]quare|SQUARE|[Ss]q|SQ|[Tt]errace|TERRACE|[Ww]ay|WAY"
    r"|[Hh]ighway|HIGHWAY|[Hh]wy|HWY|[Pp]arkway|PARKWAY|[Pp]kwy|PKWY|[Cc]ircle|CIRCLE|[Cc]ir|CIR)\b"
)
_UNIT: Final = (
    r"(?:[Ss]uite|SUITE|[Ss]te|STE|[Aa]pt|APT|[Aa]partment|APARTMENT|[Uu]nit|UNIT|[Rr]oom|ROOM)"
)
_AMOUNT: Final = (
    r"(?:\d{1,3}(?:\.\d{3})+,\d{1,2}\b|\d{1,3}(?:'\d{3})+(?:\.\d{1,2})?\b|\d(?:,?\d)*(?:\.\d+)?)"
)
#: Only beside a currency may spaces group digits: elsewhere they are two numbers.
_SPACED: Final = r"\d{1,3}(?: \d{3})+(?:[.,]\d{1,2})?"
_CODE: Final = "(?:" + "|".join(CODES) + ")"
_MONEY_AFTER: Final = (
    rf"(?: ?(?:{_CODE}|[Dd]ollars?|[Ee]uros?|[Pp]ounds|[Yy]en|[Yy]uan|[Rr]upees|[Ff]rancs|[Pp]esos"
    r"|[Rr]eais|[Rr]ubles|[Zz]loty|zl|Kc|[Kk]ronor|[Kk]roner|[Bb]ucks)\b| ?\$\B)"
)
_METRIC: Final = r"(?:kg|mg|lbs?|oz|km|cm|mm|mL|ml|[KMGT]B|kWh|mph)"
_LINK: Final = r"[^\s<>\"'`{}|\\^\[\]]"
_CAPITAL: Final = r"[A-Z][A-Za-z0-9]*(?:['&/-][A-Za-z0-9]+)*"
#: An initial or a title has a stop of its own; any other stop ends a sentence.
_NAMED: Final = rf"(?:(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof)\. ?){{0,3}}{_CAPITAL}"

#: Patterns, in order of precedence at one place of the text.
ALTERNATIVES: Final = (
    # what a redactor put in place of a value
    r"<[A-Za-z][A-Za-z_]{1,23}:[0-9a-f]{6,64}>",
    rf"\b(?:https?|HTTPS?|ftp)://{_LINK}+",
    r"\b[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}",
    rf"\b(?:[a-z0-9-]{{1,63}}\.){{1,4}}[a-z]{{2,10}}/{_LINK}+",
    rf"\bwww\.{_LINK}+",
    r"\B/[A-Za-z0-9_.-]{1,64}(?:/[A-Za-z0-9_.-]{1,64})+",
    # dates and times
    r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?\b",
    r"\b\d{1,4}[/.]\d{1,2}[/.]\d{2,4}\b",
    r"\b\d{1,2}-\d{1,2}-\d{4}\b",
    rf"\b\d{{1,2}}(?:\.|er)? (?:de )?{_FOREIGN_MONTH}(?:,? (?:de )?\d{{4}})?\b",
    rf"\b{_MONTH} {_DAY}(?:,? \d{{4}})?\b",
    rf"\b{_DAY} (?:of )?{_MONTH}(?:,? \d{{4}})?\b",
    rf"\b(?:\d{{4}} )?{_MONTH} {_DAY}\b",
    r"\b\d{1,2}:\d{2}(?::\d{2})?(?: ?(?:[AaPp]\.[Mm]\.|[AaPp][Mm]\b))?",
    r"\b\d{1,2} ?(?:[AaPp]\.[Mm]\.|[AaPp][Mm]\b)",
    # phones: with a country code, or three groups as in North America
    r"\+\d{1,3}(?:[ .()-]{0,2}\d{1,11}){1,5}\b",
    r"\(\d{3}\) ?\d{3}[ .-]\d{4}\b",
    r"\b\d{3}[ .-]\d{3}[ .-]\d{4}\b",
    # a trunk zero and groups, as in most other countries
    r"\b0\d{1,4}[ -]\d{6,8}\b",
    r"\b0\d{1,4}(?:[ ./-]\d{2,4}){2,4}\b",
    # accounts and cards, in groups of four
    r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?\b",
    r"\b\d{4}(?:[ -]\d{4}){3}\b",
    # British and Canadian postcodes
    r"\b[A-Z]{1,2}\d[A-Z0-9]? \d[A-Z]{2}\b",
    r"\b[A-Z]\d[A-Z] \d[A-Z]\d\b",
    # places
    rf"\b\d{{1,6}} (?:[A-Z0-9][A-Za-z0-9.']{{0,30}} ){{1,4}}{_STREET}",
    rf"\b{_UNIT}\.? #?[A-Z]{{0,2}}\d[A-Za-z0-9-]{{0,8}}\b",
    # money and percent
    rf"(?:\b[A-Z]{{1,2}})?\$ ?{_AMOUNT}(?: ?(?:[kKmM]|bn|million|billion|thousand)\b)?",
    rf"\b{_CODE} ?(?:{_SPACED}|{_AMOUNT})(?: ?(?:[kKmM]|bn|million|billion)\b)?",
    rf"\b(?:{_SPACED}|{_AMOUNT}){_MONEY_AFTER}",
    rf"\b{_AMOUNT} ?(?:%|[Pp]ercent\b|per cent\b)",
    rf"\b{_AMOUNT} {_METRIC}\b",
    # flights: a carrier and a number
    r"\b[A-Z]{2} \d{2,4}\b",
    # ids: marked, joined by underscores, or of letters and digits
    r"# ?[A-Za-z]{0,6}-?\d[A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*",
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b",
    r"\b[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+\b",
    # a name that begins with a joined one
    rf"\b[A-Z][a-z]+-[A-Za-z]+ {_NAMED}(?: (?:(?:of|de|da|do|von|van|del|la|&) )?{_NAMED}){{0,6}}",
    r"\b[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)+\b",
    r"\b[A-Za-z]+\d[A-Za-z0-9]*\b",
    rf"\b{_AMOUNT}[A-Za-z][A-Za-z0-9]*\b",
    rf"\b{_AMOUNT}",
    # words with capitals: names of people, places, products
    rf"\b{_NAMED}(?: (?:(?:of|de|da|do|von|van|del|la|&) )?{_NAMED}){{0,7}}",
)

#: The last word of a run of capitals, and what follows it, where both are one value.
_OPENS: Final = re.compile(
    rf"[A-Z]{{2}}\d{{2}} [A-Z0-9]{{4}}\b|{_MONTH} \d|{_CODE} \d|{_UNIT}\.? #?\d|[A-Z]{{1,2}}\$"
    r"|(?!AM |PM |NO |TO |IN |ON |AT |OF |BY |OR |ST |DR |RD )[A-Z]{2} \d{2,4}(?!\d)"
    r"|[A-Z]{1,2}\d[A-Z0-9]? \d[A-Z]{2}\b|[A-Z]\d[A-Z] \d[A-Z]\d\b",
    re.DOTALL,
)

_LONGEST_OPENER: Final = 12

_MISSING: Final = (
    "the scanner needs google-re2, which is not installed",
    "a regular expression engine of linear time",
    "pip install google-re2",
)


@functools.cache
def _compiled() -> Any:
    try:
        import re2
    except ImportError as error:
        raise MissingDependency(*_MISSING) from error
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 64 << 20
    pattern = "|".join(f"(?:{part})" for part in ALTERNATIVES)
    return re2.compile(pattern.encode(), options)


def candidates(bones: str) -> Iterator[tuple[int, int]]:
    """Yield the places of the candidates in a skeleton, from left to right, never overlapping."""
    # As bytes: each match of a text would measure the text again to find its characters.
    find, data, at = _compiled().search, bones.encode("ascii", "replace"), 0
    while match := find(data, at):
        start, at = match.span()
        if data[start : start + 1].isupper() and data[at : at + 1] in (b" ", b"$"):
            at = _before_code(bones, start, at)
        yield start, at


def _before_code(bones: str, start: int, end: int) -> int:
    """Return where a run of capitals ends, without a last word that belongs to what follows it.

    The run ``Arrives June`` of ``Arrives June 5`` ends before the date, that of ``Paid R$ 5`` before
    the amount.
    """
    last = bones.rfind(" ", start, end) + 1
    if last <= start or end - last > _LONGEST_OPENER or not _OPENS.match(bones, last, end + 8):
        return end
    return last - 1
