"""A text made ready for questions: its words, its entities, and whether it has another's value."""

from __future__ import annotations

import functools
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from llmops_core.scanner import Entity, EntityExtractor, fold, normal, scan, stem
from llmops_core.scanner.canonical import NUMBER_WORDS
from llmops_core.scanner.english import TITLES

__all__ = ["Found", "TextIndex"]

_WORD: Final = re.compile(r"[^\W_]+")
_LABEL: Final = re.compile(r"([A-Za-z][\w ]{0,28})['\"]?: ?[\['\"`<]{0,2}$")
#: The same in prose.
_TOLD: Final = re.compile(
    r"(?:^|[.!?;\n] ?)(?:The |the )?([A-Za-z][a-z]{1,14}(?: [a-z]{2,14})?) (?:is|was) $"
)

#: Values that are compared with values of the same family only, never by their digits in the text.
_FAMILIES: Final = {
    "quantity": "number", "number": "number", "zip": "number", "percent": "percent",
    "money": "money", "time": "time", "date": "date", "phone": "phone", "measure": "measure",
}  # fmt: skip
_BY_WORDS: Final = frozenset(("name", "phrase", "quoted", "address", "suite", "id"))

#: Phones and long numbers of a text that are compared digit by digit, from behind.
_MOST_PHONES: Final = 64
_LEAST_DIGITS: Final = 7
_NOT_DIGIT: Final = re.compile(r"\D+")
#: ``1.500``: one and a half, or, as in most of Europe, fifteen hundred.
_EITHER: Final = re.compile(r"\D{0,4}(\d{1,3}(?:\.\d{3})+)\D{0,10}")
_DIGRAPHS: Final = re.compile("(?<=[aou])e")
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa"})

#: Occurrences of one word that are looked at; a text of nothing else is no handoff.
_MOST_PLACES: Final = 256
#: Handles with a part of a name that are looked at.
_MOST_HANDLES: Final = 16
_MOST_ENTITIES: Final = 5_000


class Found(NamedTuple):
    """A value of another text that this one has too."""

    text: str
    start: int
    end: int
    exact: bool
    #: It is only a part of another value: a name within an e-mail address.
    implied: bool = False


class TextIndex:
    """A text with its words and entities. Made once for each side of a comparison."""

    def __init__(self, text: str, extractors: Iterable[EntityExtractor] = ()) -> None:
        self.text = normal(text)
        self.entities = scan(self.text, extractors)[:_MOST_ENTITIES]
        # Folding may lengthen a text, but not one of ASCII: that is folded as a whole.
        folded = fold(self.text) if self.text.isascii() else None
        self.spans = [match.span() for match in _WORD.finditer(self.text)]
        if folded is not None:
            self.stems = [stem(word) for word in _WORD.findall(folded)]
        else:
            self.stems = [stem(fold(word)) for word in _WORD.findall(self.text)]
        self._starts = [start for start, _ in self.spans]
        self.stem_places: dict[str, list[int]] = {}
        for at, word in enumerate(self.stems):
            places = self.stem_places.get(word)
            if places is None:
                self.stem_places[word] = [at]
            elif len(places) < _MOST_PLACES:
                places.append(at)
        self.distinct = _distinct(self.entities)
        self._file()
        # An earlier entity may reach further than a later one.
        self._reach = list(accumulate((e.end for e in self.entities), max))
        handles = [e for e in self.entities if e.type in ("email", "id", "url")]
        self._handles = "\n".join(fold(e.text) for e in handles)
        self._in_handles = sorted((e.start, e.end) for e in handles)

    def _file(self) -> None:
        """File every entity under what it may be looked for."""
        self._by_form: dict[tuple[str, str], Entity] = {}
        #: Dates by month and day, then by year: the first of each.
        self._by_day: dict[str, dict[str, Entity]] = defaultdict(dict)
        self._phones: list[tuple[str, Entity]] = []
        for entity in self.entities:
            for key in _keys_of(entity.type, entity.canonical):
                self._by_form.setdefault(key, entity)
            other = _other_reading(entity)
            if other is not None:
                self._by_form.setdefault(other, entity)
            if entity.type in ("phone", "id") and len(self._phones) < _MOST_PHONES:
                digits = _national(entity)
                if digits:
                    self._phones.append((digits, entity))
            if entity.type == "date":
                year, _, day = entity.canonical.partition("-")
                self._by_day[day].setdefault(year, entity)

    def find(self, entity: Entity) -> Found | None:
        """Return where this text has the value of another's entity, or None."""
        for key in _asked_for(entity.type, entity.canonical):
            same = self._by_form.get(key)
            if same is not None:
                return Found(same.text, same.start, same.end, same.text == entity.text)
        other = _other_reading(entity)
        same = self._by_form.get(other) if other is not None else self._phone(entity)
        if same is not None:
            return Found(same.text, same.start, same.end, exact=False)
        if entity.type == "quantity" or entity.type == "number":
            return self._number_word(entity)
        if entity.type == "date":
            return self._date(entity)
        if entity.type not in _FAMILIES:
            parts = _stems(entity.text)
            named = entity.type in ("name", "phrase")
            found = self._words(parts, entity.text, named)
            if named and found is None:
                found = self._transliterated(entity.text, parts)
            if named and (found is None or found.implied):
                found = self._person(parts) or found
            return found
        return None

    def word_at(self, place: int) -> int:
        """Return the index of the word at or before a place in the text."""
        return max(0, bisect_right(self._starts, place) - 1)

    def first_word(self, entity: Entity) -> int:
        """Return the index of an entity's first word: a sign may stand before it."""
        return min(bisect_left(self._starts, entity.start), max(0, len(self._starts) - 1))

    def label(self, entity: Entity) -> str | None:
        """Return the label of an entity: ``Amount`` of ``Amount: $5`` and of ``The amount is $5``."""
        since, start = max(0, entity.start - 36), entity.start
        match = None
        if self.text.rfind(":", max(0, start - 6), start) >= 0:
            match = _LABEL.search(self.text, since, start)
        elif self.text.endswith((" is ", " was "), 0, start):
            match = _TOLD.search(self.text, since, start)
        return fold(match[1]).replace("_", " ").strip() if match else None

    def counted(self, entity: Entity) -> str | None:
        """Return the word after a quantity: what it is a quantity of."""
        after = self.word_at(entity.start) + 1
        if entity.type != "quantity" or after >= len(self.stems):
            return None
        return self.stems[after]

    def opens_sentence(self, entity: Entity) -> bool:
        """Whether an entity is the first of its sentence, line or clause."""
        before = self.text[max(0, entity.start - 8) : entity.start].rstrip(" \t\"'*_#(>[-")
        return not before or before[-1] in ".!?\n:;"

    def covered(self, start: int, end: int) -> bool:
        """Whether an entity lies over a part of the text."""
        before = bisect_left(self.entities, end, key=lambda e: e.start)
        return before > 0 and self._reach[before - 1] > start

    def _words(self, parts: Sequence[str], said: str, named: bool) -> Found | None:
        """Find words in a row, looking at the places of the rarest; no name within an address."""
        places = [self.stem_places[part] for part in parts if part in self.stem_places]
        if not parts or len(places) < len(parts):
            return None
        within = None
        count = len(parts)
        rarest = 0
        for at in range(1, count):
            if len(places[at]) < len(places[rarest]):
                rarest = at
        for place in places[rarest]:
            at = place - rarest
            if at >= 0 and self.stems[at : at + count] == parts:
                start, end = self.spans[at][0], self.spans[at + len(parts) - 1][1]
                if named and self._in_handle(start, end):
                    within = within or Found(self.text[start:end], start, start, False, True)
                    continue
                there = self.text[start:end]
                core = said.strip(" #\"'`<>")
                exact = there == core and self.text[max(0, start - 1) : end].endswith(
                    said[-len(there) :]
                )
                whole = self.text[start - (len(said) - len(core)) : end]
                return Found(there, start, end, exact and (whole == said or there == said))
        return within

    def _transliterated(self, text: str, parts: Sequence[str]) -> Found | None:
        """Find ``Jürgen`` that is written ``Juergen``, either way."""
        if text.isascii():
            other = [_DIGRAPHS.sub("", part) for part in parts]
        else:
            other = _stems(text.lower().translate(_UMLAUTS))
        return self._words(other, text, True) if other != list(parts) else None

    def _person(self, parts: Sequence[str]) -> Found | None:
        """Find a person by surname with initial or title, else by a handle that holds the name."""
        if not 2 <= len(parts) <= 4 or not all(p.isalpha() for p in parts):
            return None
        first, last = parts[0], parts[-1]
        for at in self.stem_places.get(last, ()):
            before = self.stems[at - 1] if at else ""
            after = self.stems[at + 1] if at + 1 < len(self.stems) else ""
            if before in (first[0], *TITLES):
                return self._span(at - 1, at)
            if after == first:
                return self._span(at, at + 1)
        return self._handle(parts)

    def _handle(self, parts: Sequence[str]) -> Found | None:
        """Find an e-mail address, id or link that all parts of a name are in."""
        handles, longest = self._handles, max(parts, key=len)
        if not all(part in handles for part in parts):
            return None
        at = handles.find(longest)
        for _ in range(_MOST_HANDLES):
            if at < 0:
                break
            end = handles.find("\n", at)
            handle = handles[handles.rfind("\n", 0, at) + 1 : end if end >= 0 else None]
            if all(part in handle for part in parts):
                return Found(handle, 0, 0, exact=False, implied=True)
            at = handles.find(longest, at + 1)
        return None

    def _in_handle(self, start: int, end: int) -> bool:
        """Whether a place lies within an e-mail address, id or link."""
        before = bisect_right(self._in_handles, (start, len(self.text))) - 1
        return before >= 0 and end <= self._in_handles[before][1]

    def _span(self, first: int, last: int) -> Found:
        start, end = self.spans[first][0], self.spans[last][1]
        return Found(self.text[start:end], start, end, exact=False)

    def _phone(self, entity: Entity) -> Entity | None:
        """Find a phone that is written with its country or without: one ends as the other."""
        if entity.type not in ("phone", "id") or not self._phones:
            return None
        mine = _national(entity)
        if len(mine) < _LEAST_DIGITS:
            return None
        for digits, other in self._phones:
            short, long = sorted((mine, digits), key=len)
            one_is_phone = "phone" in (entity.type, other.type)
            if one_is_phone and len(short) >= _LEAST_DIGITS and long.endswith(short):
                return other
        return None

    def _number_word(self, entity: Entity) -> Found | None:
        for word, value in NUMBER_WORDS.items():
            if value == entity.canonical and word in self.stem_places:
                return self._span(self.stem_places[word][0], self.stem_places[word][0])
        return None

    def _date(self, entity: Entity) -> Found | None:
        """Find a date whose year is only said on one side."""
        year, _, rest = entity.canonical.partition("-")
        same = self._by_day.get(rest, {})
        found = next(iter(same.values()), None) if year == "?" else same.get("?")
        return Found(found.text, found.start, found.end, exact=False) if found else None


@functools.lru_cache(maxsize=4_096)
def _stems(text: str) -> list[str]:
    """Return the stems of a value's words; not to be changed."""
    return [stem(word) for word in _WORD.findall(fold(text))]


@functools.lru_cache(maxsize=4_096)
def _keys_of(kind: str, form: str) -> tuple[tuple[str, str], ...]:
    """Return what a value is filed under: its family and canonical form."""
    keys = [(_FAMILIES.get(kind, kind), form), *_coded(kind, form)]
    amount, _, currency = form.partition(" ")
    if kind == "money":
        keys.append(("amount", amount))
    if kind == "number" or (kind == "money" and not currency):
        keys.append(("bare", amount))
    return tuple(keys)


@functools.lru_cache(maxsize=4_096)
def _asked_for(kind: str, form: str) -> tuple[tuple[str, str], ...]:
    """Return what a value is looked for under: an amount of one currency is none of another."""
    keys = [(_FAMILIES.get(kind, kind), form), *_coded(kind, form)]
    amount, _, currency = form.partition(" ")
    if kind == "number" or (kind == "money" and not currency):
        keys.append(("amount", amount))
    if kind == "money":
        keys.append(("bare", amount))
    return tuple(keys)


def _coded(kind: str, form: str) -> Iterator[tuple[str, str]]:
    """Yield what codes share, whatever was taken for their type."""
    if kind in ("zip", "quantity", "number", "id", "phone") and form.isdigit():
        yield "digits", form
    elif kind in ("zip", "id"):
        yield "code", form


def _other_reading(entity: Entity) -> tuple[str, str] | None:
    """Return the other number that ``1.500`` may be."""
    kind = _FAMILIES.get(entity.type)
    if kind not in ("number", "money") or "." not in entity.text:
        return None
    match = _EITHER.fullmatch(entity.text)
    if match is None:
        return None
    currency = entity.canonical.partition(" ")[2]
    return kind, f"{match[1].replace('.', '')} {currency}".strip()


def _national(entity: Entity) -> str:
    """Return the digits of a number that may be a phone's, without what only a country adds."""
    digits = _NOT_DIGIT.sub("", entity.text)
    if entity.type == "id" and len(digits) < len(entity.text):
        return ""  # it has letters
    return digits.lstrip("0") if 9 <= len(digits) <= 15 else ""


def _distinct(entities: Iterable[Entity]) -> list[Entity]:
    """Return each value once, in the order of the text."""
    known: dict[tuple[str, str], Entity] = {}
    for entity in entities:
        kind = "phrase" if entity.type == "name" else _FAMILIES.get(entity.type, entity.type)
        known.setdefault((kind, entity.canonical), entity)
    return list(known.values())
