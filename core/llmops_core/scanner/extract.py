"""From candidates to typed entities: what a candidate is, by its own shape and what stands before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol, runtime_checkable

from llmops_core.scanner.canonical import canonical
from llmops_core.scanner.closed import CODES, is_month
from llmops_core.scanner.english import CALENDAR_WORDS, FUNCTION_WORDS, PEOPLE, TITLES
from llmops_core.scanner.patterns import candidates
from llmops_core.scanner.skeleton import normal, skeleton

__all__ = ["TYPES", "Entity", "EntityExtractor", "scan", "scan_all"]

#: The types of entities, most specific first. ``token`` is what a redactor left of any of them.
TYPES: Final = (
    "token", "url", "email", "phone", "id", "date", "time", "money", "percent", "address",
    "suite", "zip", "quantity", "number", "measure", "name", "phrase", "quoted",
)  # fmt: skip

#: A longer run of letters and digits is data, not something that people hand over.
_LONGEST: Final = 200
_CONTEXT: Final = 40


class Entity(NamedTuple):
    """One value in a text: its type, as it is written, its canonical form, and where it stands."""

    type: str
    text: str
    canonical: str
    start: int
    end: int


@runtime_checkable
class EntityExtractor(Protocol):
    """Finds entities that the scanner has no pattern for: names from a list, a model's findings."""

    def extract(self, text: str) -> Iterable[tuple[str, int, int]]:
        """Return type, start and end of each entity in *text*; types may be your own.

        Called by an analysis, on its thread; may be slow, then the analysis is. If you raise, the
        analysis does: the extractor was named by whoever runs it.
        """


_ZIP_BEFORE: Final = re.compile(
    r"(?:\b(?:zip|postal|postcode|plz)(?:[ _]?codes?)?\W{0,3}(?:is|was|to|of|in|at)?\W{0,4}"
    r"|\b[A-Z]{2},? )$"
)
_ID_BEFORE: Final = re.compile(
    r"\b(?:order|ticket|case|invoice|booking|reservation|confirmation|account|reference|ref|claim"
    r"|transaction|tracking|request|issue|id|number|no|nr|code|serial|policy|member|customer)"
    r"\W{0,3}(?:id|number|no|nr|code)?\W{0,3}(?:is|was)?\W{0,3}$",
    re.IGNORECASE,
)
_NAME_BEFORE: Final = re.compile(
    r"\b(?:name|named|customer|client|contact|owner|user|passenger|guest|patient|caller|member"
    r"|manager|mr|mrs|ms|dr)\W{0,3}(?:is|was|are)?\W{0,3}$",
    re.IGNORECASE,
)
_AIRPORT_BEFORE: Final = re.compile(r"\b(?:from|to|via|at|in|airport)\W{0,2}$|[(>-]\s?$")
_COUNTED_AFTER: Final = re.compile(r"(?: x)? (?:([a-z]{2,14}) )?([a-z]{3,14}s)\b")
#: What may be said before a number of things as well as before an id: ``order 100 lamps``.
_ORDERS: Final = re.compile(r"(?:order|request|claim|issue|number|no)\s", re.IGNORECASE)
_LABEL_AFTER: Final = re.compile(r"[ a-z_]{0,24}:(?:\s|$)")
_SENTENCE_BEFORE: Final = re.compile(r"(?:^|[.!?\n]|[\n:;]\s*[-*\d.]{1,4})[\s\"'*_#(>\[-]*$")
_LIST_NUMBER: Final = re.compile(r"(?:^|\n)[ \t>*#-]{0,8}$")
_QUOTED: Final = re.compile(r'"([^"\n]{2,200})"')
#: Said within single quotes: no value of a dictionary or list, and no title with names, which are
#: followed by themselves.
_SAID: Final = re.compile(r"(?<![\w'\"])'([A-Za-z][^'\"\nA-Z]{1,120} [^'\"\nA-Z]{1,80})'(?![\w'])")
_DAY: Final = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:\D.*)?|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
)
_POSTCODE: Final = re.compile(r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}|[A-Z]\d[A-Z] \d[A-Z]\d")
_FLIGHT: Final = re.compile(r"[A-Z]{2} \d{2,4}")
_ACCOUNT: Final = re.compile(r"[A-Z]{2}\d{2}(?: [A-Z\d]{1,4}){2,8}|\d{4}(?:[ -]\d{4}){3}")
_CURRENCY: Final = "|".join(CODES)
_COINS: Final = re.compile(
    rf"(?:{_CURRENCY}|dollars?|euros?|pounds|yen|yuan|rupees|francs|pesos|reais|rubles|zloty|zl|Kc"
    r"|kronor|kroner|bucks|\$)$",
    re.IGNORECASE,
)
_CODED: Final = re.compile(rf"(?:{_CURRENCY}) ?\d")
_PART: Final = re.compile(r"\S+")
_OPENING: Final = (";", ",", "{", "[", ":")
_PHONE: Final = re.compile(r"\+?[\d ().-]{7,24}")


def scan(text: str, extractors: Iterable[EntityExtractor] = ()) -> list[Entity]:
    """Return the entities of a text, in order. Linear in its length; never raises on any text.

    Places are those in ``normal(text)``: the text itself, but for accents written apart.
    """
    text = normal(text)
    bones = skeleton(text)
    found = list(_scanned(text, bones))
    for start, end in _quotes(bones):
        if " " in bones[start:end] or not any(e.start <= start < e.end for e in found[-1:]):
            found.append(_entity("quoted", text, start, end))
    for extractor in extractors:
        for kind, start, end in extractor.extract(text):
            found.append(_entity(kind, text, start, end))
    found.sort(key=lambda e: (e.start, -e.end))
    return found


def _quotes(bones: str) -> Iterator[tuple[int, int]]:
    for match in _QUOTED.finditer(bones):
        inner = match[1].strip()
        if len(inner) > 1:
            start = match.start(1) + match[1].index(inner)
            yield start, start + len(inner)
    for match in _SAID.finditer(bones):
        before = bones[max(0, match.start() - 8) : match.start()].rstrip()
        after = bones[match.end() : match.end() + 2].lstrip()
        listed = before[-1:] == "," and before[-2:-1] in ("'", "}", "]")
        if before[-1:] not in (":", "{", "[") and after[:1] not in (":", "]", "}") and not listed:
            yield match.span(1)


def scan_all(
    texts: Iterable[str], extractors: Iterable[EntityExtractor] = ()
) -> list[list[Entity]]:
    """Return the entities of each text of a batch; equal texts are scanned once."""
    known: dict[str, list[Entity]] = {}
    extractors = tuple(extractors)
    for text in (texts := list(texts)):
        if text not in known:
            known[text] = scan(text, extractors)
    return [known[text] for text in texts]


def _entity(kind: str, text: str, start: int, end: int) -> Entity:
    return Entity(kind, text[start:end], canonical(kind, text[start:end]), start, end)


def _scanned(text: str, bones: str) -> Iterator[Entity]:
    for start, end in candidates(bones):
        if end - start > _LONGEST and "://" not in bones[start : start + 8]:
            continue
        shape = bones[start:end]
        if shape[0].isupper() and not _has_digit_or_joint(shape):
            yield from _phrases(text, bones, start, end)
            continue
        kind = _kind(shape, bones, start, end)
        if kind is None:
            continue
        if kind == "phrase":
            yield from _phrases(text, bones, start, end)
            continue
        yield _entity(kind, text, *_trimmed(kind, shape, start, end))


def _trimmed(kind: str, shape: str, start: int, end: int) -> tuple[int, int]:
    """Return a candidate's place without what only stands around the value."""
    if kind == "url":
        return start, start + len(shape.rstrip(".,;:!?)'*"))
    if kind == "quantity":  # 9x and x9
        return start + shape[0].isalpha(), end - shape[-1].isalpha()
    return start, end


def _has_digit_or_joint(shape: str) -> bool:
    return "_" in shape or "@" in shape or any(c.isdigit() for c in shape)


def _kind(shape: str, bones: str, start: int, end: int) -> str | None:
    """Return the type of a candidate that has digits or joints, None for what is no entity."""
    first = shape[0]
    if first == "<":
        return "token"
    if "@" in shape:
        return "email"
    if first == "/" or "://" in shape[:8] or ("/" in shape and first.isalpha()):
        return "url"
    if shape.startswith("www."):
        return "url"
    if first == "#":
        return "id"
    if "$" in shape[:3]:
        return "money"
    if shape[-1] == "%" or shape.lower().endswith(("percent", "per cent")):
        return "percent"
    if first.isdigit() or first in "+(":
        return _numeric(shape, bones, start, end)
    return _wordlike(shape, bones, start)


def _numeric(shape: str, bones: str, start: int, end: int) -> str | None:
    digits = sum(c.isdigit() for c in shape)
    if _ACCOUNT.fullmatch(shape):
        return "id"
    if _DAY.fullmatch(shape):
        return "date"
    if 7 <= digits <= 15 and _is_phone(shape):
        return "phone"
    if digits == len(shape) or re.fullmatch(r"[\d,']+(?:\.\d+)?", shape):
        return _plain_number(shape, bones, start, end)
    spaced = " " in shape
    if ":" in shape and not re.match(r"\d{4}-", shape):
        return "time"
    if re.fullmatch(r"\d{1,2} ?[AaPp]\.?[Mm]\.?", shape):
        return "time"
    if _COINS.search(shape):
        return "money"
    if spaced:
        if _has_month(shape):
            return "date"
        return "measure" if re.fullmatch(r"[\d.,]+ [A-Za-z]{2,3}", shape) else "address"
    if re.fullmatch(r"\d{1,5}[xX]", shape):
        return "quantity"
    if re.fullmatch(r"\d[\d,.]*-?[A-Za-z]{1,6}", shape):
        return "measure"
    if _mixed(shape):
        return "id" if len(shape) >= 5 else "measure"
    # 978-3-16 and 10.0.0.12 are ids; 2019-2023 is a range, unless it is said to be one
    long = digits >= 6 and len(re.findall(r"\d+", shape)) > 2
    return "id" if long or _ID_BEFORE.search(bones[max(0, start - _CONTEXT) : start]) else "measure"


def _is_phone(shape: str) -> bool:
    if shape[0] == "0" and sum(c.isdigit() for c in shape) < 9:
        return False
    grouped = shape[0] in "+(0" or " " in shape or shape.count("-") == 2 or shape.count(".") == 2
    return bool(grouped and _PHONE.fullmatch(shape))


def _plain_number(shape: str, bones: str, start: int, end: int) -> str | None:
    before = bones[max(0, start - _CONTEXT) : start]
    plain = shape.isdigit()
    if plain and len(shape) == 10 and shape[0] in "023456789":
        return "phone"
    if plain and len(shape) == 5 and _ZIP_BEFORE.search(before):
        return "zip"
    if bones[end : end + 1] in (".", ")") and len(shape) <= 2 and _LIST_NUMBER.search(before):
        return None  # 1. of a list
    numbered = _ID_BEFORE.search(before) if plain and len(shape) >= 3 else None
    if numbered and not _ORDERS.match(numbered[0]):
        return "id"
    if _is_counted(bones, end):
        return "quantity"
    if numbered:
        return "id"
    if plain and len(shape) >= 7:
        return "id"
    return "number"


def _is_counted(bones: str, end: int) -> bool:
    """Whether the plural of something follows a number: ``3 boxes``, ``3 small boxes``."""
    match = _COUNTED_AFTER.match(bones, end)
    return match is not None and not FUNCTION_WORDS & {match[1] or "", match[2]}


def _wordlike(shape: str, bones: str, start: int) -> str | None:
    """Return the type of a candidate that begins with a letter and has a digit or a joint."""
    digits = sum(c.isdigit() for c in shape)
    if " " in shape:
        if digits and _CODED.match(shape):
            return "money"
        if _POSTCODE.fullmatch(shape):
            return "zip"
        if _FLIGHT.fullmatch(shape):
            return None if shape[:2].lower() in FUNCTION_WORDS else "id"
        if _ACCOUNT.fullmatch(shape):
            return "id"
        if digits and _has_month(shape):
            return "date"
        head = shape.split(" ", 1)[0].rstrip(".").lower()
        if digits and head in ("suite", "ste", "apt", "apartment", "unit", "room"):
            return "suite"
        return "phrase"
    if _CODED.match(shape):
        return "money"
    if re.fullmatch(r"[xX]\d{1,5}", shape):
        return "quantity"
    if digits == 0:
        return "phrase" if shape[0].isupper() and "_" not in shape else None
    if digits >= 2 and (len(shape) >= 5 or shape.isupper()) and not _is_label(bones, start, shape):
        return "id"
    if len(shape) >= 6 and shape.isupper() and shape.isalnum() and not shape[-1].isdigit():
        return "id"  # XKQ7PL, but not WINDOWS7
    return "phrase" if "-" in shape and shape[0].isupper() else None


def _is_label(bones: str, start: int, shape: str) -> bool:
    """Whether a joined word with a digit names a field: address1, item_2."""
    stripped = shape.rstrip("0123456789")
    plain = stripped.islower() and stripped.replace("_", "").isalpha()
    return plain and len(shape) - len(stripped) <= 2


def _mixed(shape: str) -> bool:
    return any(c.isdigit() for c in shape) and any(c.isalpha() for c in shape)


def _has_month(shape: str) -> bool:
    return any(is_month(word) for word in re.findall(r"[A-Za-z]{3,10}", shape))


def _phrases(text: str, bones: str, start: int, end: int) -> Iterator[Entity]:
    """Yield what a run of capitalised words names; nothing for the first word of a sentence."""
    before = bones[max(0, start - _CONTEXT) : start]
    begins = bool(_SENTENCE_BEFORE.search(before))
    after = bones[end : end + _CONTEXT]
    # ``Payment method: ...`` is a label; ``Anna Berg: ...`` and ``Anna Berg here: ...`` are not.
    opens = (begins or before.rstrip()[-1:] in _OPENING) and " " not in bones[start:end]
    if opens and _LABEL_AFTER.match(after):
        return
    while True:  # Apple's Board of Directors: two names
        owner = bones.find("'s ", start, end)
        stop = end if owner < 0 else owner
        yield from _phrase(text, bones, start, stop, before, begins)
        if owner < 0:
            return
        start, before, begins = owner + 3, bones[max(0, owner - _CONTEXT) : owner + 3], False


def _phrase(
    text: str, bones: str, start: int, end: int, before: str, begins: bool
) -> Iterator[Entity]:
    parts = list(_PART.finditer(bones, start, end))
    coded = next((at for at, part in enumerate(parts) if _is_code(part[0])), None)
    if coded is not None and len(parts) > 1:  # Book HAT202
        code = parts[coded]
        if coded > 1:  # a lone word before a code says what it is the code of
            yield from _phrase(text, bones, start, code.start(), before, begins)
        yield _entity("id", text, code.start(), code.end())
        yield from _phrase(text, bones, code.end(), end, "x", False)
        return
    while parts and parts[0][0].strip(".'").lower() in FUNCTION_WORDS and not _is_name(parts):
        parts.pop(0)
        begins = False
    while parts and parts[-1][0].lower() in FUNCTION_WORDS:
        parts.pop()
    if len(parts) > 2 and parts[0][0].lower() in PEOPLE:  # Customer John Smith
        before, begins = parts.pop(0)[0] + " ", False
    if not parts:
        return
    first, last = parts[0].start(), parts[-1].end()
    if bones[last - 2 : last] == "'s":
        last -= 2
    if len(parts) == 1 and (
        begins or _says_nothing(parts[0][0], before) or _opens_clause(before, bones, last)
    ):
        return
    kind = "phrase"
    if len(parts) > 1 and (
        parts[0][0].rstrip(".").lower() in TITLES or _NAME_BEFORE.search(before)
    ):
        kind = "name"
    yield _entity(kind, text, first, last)


def _is_code(word: str) -> bool:
    return sum(c.isdigit() for c in word) >= 2 and len(word) >= 4


def _opens_clause(before: str, bones: str, end: int) -> bool:
    """Whether a lone word after a semicolon or colon goes on: no item of a list, but a clause."""
    return before.rstrip()[-1:] in (";", ":") and bool(
        re.match(r" [#a-z0-9]", bones[end : end + 2])
    )


def _is_name(parts: list[re.Match[str]]) -> bool:
    """Whether a first word that is also a function word is a name here: May Young."""
    word = parts[0][0].lower()
    return word in CALENDAR_WORDS and len(parts) > 1


def _says_nothing(word: str, before: str) -> bool:
    """Whether a lone capitalised word is no name: a month, an initial, an abbreviation."""
    lowered = word.lower()
    if lowered in CALENDAR_WORDS or lowered.rstrip(".") in TITLES or len(word) < 3:
        return True
    if len(word) == 3 and word.isupper():  # an airport, but not a country or an abbreviation
        return not _AIRPORT_BEFORE.search(before)
    return False
