"""Which number belongs to which thing, and whether two things changed their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from llmops_core.scanner import Entity, fold, stem
from llmops_core.scanner.english import FUNCTION_WORDS

if TYPE_CHECKING:
    from llmops_core.analysis.text_index import TextIndex

__all__ = ["bindings", "swapped"]

_NUMBERS: Final = frozenset(("quantity", "number", "money", "percent", "suite"))
_THINGS: Final = frozenset(("phrase", "name", "id", "email", "quoted"))
_CLAUSE: Final = re.compile(r"[.!?](?:\s|$)|\n|:\s")
#: A comma, a semicolon or an "and" stands between pairs, not within one.
_APART: Final = re.compile(r"[,;]|\band\b|\bplus\b|\bor\b|\bthen\b")
#: Characters between a number and its thing; less where there is one pair only.
_FARTHEST: Final = 48
_NEAR: Final = 24
#: What is counted, in small letters: ``6 mugs``, ``6 x mugs``, ``mugs: 6``.
_COUNTED: Final = re.compile(
    r" ?(?:x |units? of |pieces? of |pcs\.? of |boxes of )?([a-z]{3,24})\b"
)
_LABELLED: Final = re.compile(r"\b([A-Za-z]{3,24})(?:['\"]?: ?| x ?)$")
#: Between a name and its number in a record: ``name: Desk Lamp`` and ``qty: 4`` in the next line.
_FIELD: Final = re.compile(
    r"['\"]?[,;]?\s*['\"]?(?:qty|quantity|count|amount|units|number|price|total|cost)['\"]?: ?['\"]?",
    re.IGNORECASE,
)
#: A name that opens its sentence is no entity, but may still be who gets something.
_OPENER: Final = re.compile(r"(?:^|[.!?;\n]\s{0,4})([A-Z][a-z]{1,24})(?= ([a-z]{3,24})\b)")


def swapped(
    a: TextIndex, b: TextIndex, located: Sequence[Entity]
) -> Iterator[tuple[str, str, str]]:
    """Yield (thing, its number before, its number after) where two things changed their numbers.

    Only an exchange is reported: that one number moved may be a decision. *located* are the things
    of the first text where the second has them, which need not be entities there by themselves.
    """
    before = bindings(a.text, _by_place([*a.entities, *_openers(a.text)]))
    if len(before) > 1:
        numbers = [e for e in b.entities if e.type in _NUMBERS]
        things = [e for e in located if e.type in _THINGS]
        after = bindings(b.text, _by_place([*numbers, *things, *_openers(b.text)]))
        yield from _exchanged(before, after)
    counted = _counted(a)
    if len(counted) > 1:
        yield from _exchanged(counted, _counted(b))


Bindings = dict[str, tuple[str, str, str]]


def _by_place(entities: list[Entity]) -> list[Entity]:
    return sorted(entities, key=lambda e: e.start)


def _exchanged(before: Bindings, after: Bindings) -> Iterator[tuple[str, str, str]]:
    moved = {
        thing: (before[thing], after[thing])
        for thing in before
        if thing in after and before[thing][1] != after[thing][1]
    }
    moves = {(old[1], new[1]) for old, new in moved.values()}
    for old, new in moved.values():
        if (new[1], old[1]) in moves:
            yield old[0], old[2], new[2]


def _openers(text: str) -> Iterator[Entity]:
    """Yield the lone names that open a sentence and are followed by what they do: ``Ann gets``."""
    for match in _OPENER.finditer(text):
        word, doing = fold(match[1]), match[2]
        if word not in FUNCTION_WORDS and doing not in FUNCTION_WORDS:
            yield Entity("phrase", match[1], stem(word), *match.span(1))


def _counted(index: TextIndex) -> Bindings:
    """Return what is counted without being named, with its number; nothing that has two."""
    found: Bindings = {}
    doubtful: set[str] = set()
    for entity in index.entities:
        if entity.type not in ("quantity", "number") or "." in entity.canonical:
            continue
        match = _COUNTED.match(index.text, entity.end)
        if match is None:
            match = _LABELLED.search(index.text, max(0, entity.start - 32), entity.start)
        if match is None or fold(match[1]) in FUNCTION_WORDS:
            continue
        thing = stem(fold(match[1]))
        if found.get(thing, ("", entity.canonical))[1] != entity.canonical:
            doubtful.add(thing)
        found[thing] = (match[1], entity.canonical, entity.text)
    return {thing: value for thing, value in found.items() if thing not in doubtful}


def bindings(text: str, entities: Sequence[Entity]) -> Bindings:
    """Return for each thing: its text, the canonical form and the text of its number.

    Within a clause numbers and things take turns, and whichever stands closer tells the order. A
    thing with two numbers has none: it cannot be told which is meant.
    """
    found: dict[str, tuple[str, str, str]] = {}
    doubtful: set[str] = set()
    for clause in _clauses(text, entities):
        for thing, quantity in _pairs(clause, text):
            known = found.get(thing.canonical)
            if known is not None and known[1] != quantity.canonical:
                doubtful.add(thing.canonical)
            found[thing.canonical] = (thing.text, quantity.canonical, quantity.text)
    return {thing: value for thing, value in found.items() if thing not in doubtful}


def _clauses(text: str, entities: Sequence[Entity]) -> Iterator[list[Entity]]:
    clause: list[Entity] = []
    at = 0
    for entity in entities:
        if entity.type not in _NUMBERS and entity.type not in _THINGS:
            continue
        if entity.start < at:
            continue  # within the one before
        between = text[at : entity.start]
        # ``Bicycle: 9`` is one clause; a colon after words opens another.
        joined = re.fullmatch(r"['\"]?:\s*", between) or _FIELD.fullmatch(between)
        if clause and not joined and _CLAUSE.search(between):
            yield clause
            clause = []
        clause.append(entity)
        at = entity.end
    if clause:
        yield clause


def _pairs(clause: list[Entity], text: str) -> Iterator[tuple[Entity, Entity]]:
    """Yield things with their numbers: neighbours, in the order that stands closer."""
    shape = "".join("n" if e.type in _NUMBERS else "t" for e in clause)
    if shape in ("nt", "tn"):
        near = clause[1].start - clause[0].end <= _NEAR
        if near and _belong(clause[0], clause[1], text):
            yield (clause[1], clause[0]) if shape == "nt" else (clause[0], clause[1])
        return
    first = _order(clause, shape, text)
    if first is None:
        return
    at = shape.index(first)
    while at + 1 < len(clause):
        one, other = clause[at], clause[at + 1]
        if shape[at] == first and shape[at + 1] != first:
            if _belong(one, other, text):
                yield (other, one) if first == "n" else (one, other)
            at += 2
        else:
            at += 1


def _belong(one: Entity, other: Entity, text: str) -> bool:
    if other.start - one.end > _FARTHEST:
        return False
    between = text[one.end : other.start]
    return bool(_FIELD.fullmatch(between)) or not _APART.search(between)


def _order(clause: list[Entity], shape: str, text: str) -> str | None:
    """Return which comes first in a pair, by what stands between the neighbours."""
    closer = {"nt": 0, "tn": 0}
    for (one, other), kinds in zip(pairwise(clause), pairwise(shape), strict=True):
        if kinds[0] != kinds[1]:
            apart = bool(_APART.search(text, one.end, other.start))
            closer["".join(kinds)] += -1 if apart else 1
    if closer["nt"] == closer["tn"]:
        return None
    return "n" if closer["nt"] > closer["tn"] else "t"
