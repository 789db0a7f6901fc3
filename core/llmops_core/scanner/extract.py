"""From candidates to typed entities: what a candidate is, by its own shape and what stands before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol, runtime_checkable

from llmops_core.errors import plugin_errors
from llmops_core.scanner.canonical import canonical
from llmops_core.scanner.english import CALENDAR_WORDS, FUNCTION_WORDS, PEOPLE, TITLES
from llmops_core.scanner.kinds import kind_of
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

        Called by an analysis, on its thread; may be slow, then the analysis is. If you raise, or
        give a place that is not in the text, the analysis raises a ``PluginError``: the extractor
        was named by whoever runs it.
        """


_NAME_BEFORE: Final = re.compile(
    r"\b(?:name|named|customer|client|contact|owner|user|passenger|guest|patient|caller|member"
    r"|manager|mr|mrs|ms|dr)\W{0,3}(?:is|was|are)?\W{0,3}$",
    re.IGNORECASE,
)
_AIRPORT_BEFORE: Final = re.compile(r"\b(?:from|to|via|at|in|airport)\W{0,2}$|[(>-]\s?$")
_LABEL_AFTER: Final = re.compile(r"[ a-z_]{0,24}:(?:\s|$)")
_SENTENCE_BEFORE: Final = re.compile(r"(?:^|[.!?\n]|[\n:;]\s*[-*\d.]{1,4})[\s\"'*_#(>\[-]*$")
_QUOTED: Final = re.compile(r'"([^"\n]{2,200})"')
#: Said within single quotes: no value of a dictionary or list, and no title with names, which are
#: followed by themselves.
_SAID: Final = re.compile(r"'(?<![\w'\"]')([A-Za-z][^'\"\nA-Z]{1,120} [^'\"\nA-Z]{1,80})'(?![\w'])")
#: Two capitals before a number are a carrier, but for these.
_LONE_NUMBER: Final = re.compile(r"(?:NO|TO|IN|ON|AT|OF|BY|OR|IS|AM|PM|MY|WE|IT|AS|IF|DO|UP|SO) \d")
_DIGIT_OR_JOINT: Final = re.compile(r"[\d_@]")
_PART: Final = re.compile(r"\S+")
_OPENING: Final = (";", ",", "{", "[", ":")


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
        found += _extracted(extractor, text)
    found.sort(key=lambda e: (e.start, -e.end))
    return found


def _extracted(extractor: EntityExtractor, text: str) -> list[Entity]:
    with plugin_errors(f"entity extractor {type(extractor).__name__}"):
        found = []
        for kind, start, end in extractor.extract(text):
            if not isinstance(kind, str) or not 0 <= start < end <= len(text):
                raise ValueError("a place that is not in the text")
            found.append(_entity(kind, text, start, end))
        return found


def _quotes(bones: str) -> Iterator[tuple[int, int]]:
    for match in _QUOTED.finditer(bones):
        inner = match[1].strip()
        if len(inner) > 1:
            start = match.start(1) + match[1].index(inner)
            yield start, start + len(inner)
    for match in _SAID.finditer(bones) if "'" in bones else ():
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
    for first, end in candidates(bones):
        start = first + 3 if _LONE_NUMBER.match(bones, first) else first
        if end - start > _LONGEST and "://" not in bones[start : start + 8]:
            continue
        shape = bones[start:end]
        if shape[0].isupper() and not _has_digit_or_joint(shape):
            yield from _phrases(text, bones, start, end)
            continue
        kind = kind_of(shape, bones, start, end)
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
    return _DIGIT_OR_JOINT.search(shape) is not None


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
    return not word.isalpha() and len(word) >= 4 and sum(c.isdigit() for c in word) >= 2


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
