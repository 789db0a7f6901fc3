"""Which number belongs to which thing, and whether two things changed their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llmops_core.analysis.text_index import TextIndex
    from llmops_core.scanner import Entity

__all__ = ["bindings", "swapped"]

_NUMBERS: Final = frozenset(("quantity", "number", "money", "percent"))
_THINGS: Final = frozenset(("phrase", "name", "id", "email", "quoted"))
_CLAUSE: Final = re.compile(r"[.!?](?:\s|$)|\n|:\s")
#: A comma, a semicolon or an "and" stands between pairs, not within one.
_APART: Final = re.compile(r"[,;]|\band\b|\bplus\b|\bor\b|\bthen\b")
#: Characters between a number and its thing; less where there is one pair only.
_FARTHEST: Final = 48
_NEAR: Final = 24


def swapped(
    a: TextIndex, b: TextIndex, located: Sequence[Entity]
) -> Iterator[tuple[str, str, str]]:
    """Yield (thing, its number before, its number after) where two things changed their numbers.

    Only an exchange is reported: that one number moved may be a decision. *located* are the things
    of the first text where the second has them, which need not be entities there by themselves.
    """
    before = bindings(a.text, a.entities)
    if len(before) < 2:
        return
    numbers = [e for e in b.entities if e.type in _NUMBERS]
    things = [e for e in located if e.type in _THINGS]
    after = bindings(b.text, sorted([*numbers, *things], key=lambda e: e.start))
    moved = {
        thing: (before[thing], after[thing])
        for thing in before
        if thing in after and before[thing][1] != after[thing][1]
    }
    moves = {(old[1], new[1]) for old, new in moved.values()}
    for old, new in moved.values():
        if (new[1], old[1]) in moves:
            yield old[0], old[2], new[2]


def bindings(text: str, entities: Sequence[Entity]) -> dict[str, tuple[str, str, str]]:
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
        if clause and _CLAUSE.search(between) and not re.fullmatch(r"['\"]?:\s*", between):
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
    near = other.start - one.end <= _FARTHEST
    return near and not _APART.search(text, one.end, other.start)


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
