"""What is left on both sides, paired: a value that was altered on its way has two halves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from llmops_core.scanner import Entity

__all__ = ["Left", "family", "pair"]

#: How many values of one type are compared with each other; further ones only by their place.
_MOST: Final = 60

_FAMILY: Final = {"name": "phrase", "quantity": "number", "zip": "number", "suite": "suite"}

#: Labels that say that something is new.
_NEW: Final = frozenset(("extra", "additional", "other", "new", "another", "related"))


class Left(NamedTuple):
    """An entity that the other side does not have, and where it stands."""

    entity: Entity
    #: Number of the gap between shared words; the same number on both sides is the same place.
    gap: int | None
    #: How far into the gap, from 0 to 1.
    place: float
    #: The label that stands before it, as in ``Amount: $5``.
    label: str | None
    #: What a quantity counts: the word after it.
    counted: str | None = None


def pair(left: Sequence[Left], news: Sequence[Left], *, least: float = 0.0) -> dict[int, int]:
    """Return which of *left* became which of *news*, the likeliest first, one to one.

    *least* is how likely a pair must be: 0.5 leaves out what only the kind of thing speaks for.
    """
    by_family: dict[str, list[int]] = defaultdict(list)
    for at, item in enumerate(news):
        by_family[family(item.entity)].append(at)
    left_of: dict[str, int] = defaultdict(int)
    for item in left:
        left_of[family(item.entity)] += 1
    scored = []
    for at, item in enumerate(left):
        kind = family(item.entity)
        for other in by_family[kind][:_MOST]:
            alone = left_of[kind] == 1 and len(by_family[kind]) == 1
            score = _score(item, news[other], alone)
            if score > 0 and score >= least:
                scored.append((-score, at, other))
    paired: dict[int, int] = {}
    taken: set[int] = set()
    for _, at, other in sorted(scored):
        if at not in paired and other not in taken:
            paired[at] = other
            taken.add(other)
    return paired


def family(entity: Entity) -> str:
    """Return what values must share to become one another."""
    if (
        entity.type == "token"
    ):  # of the same type only, and by its place only: a hash is near to none
        return entity.canonical.partition(":")[0]
    return _FAMILY.get(entity.type, entity.type)


def _score(one: Left, other: Left, alone: bool) -> float:
    """Return how likely one value became the other; 0 for not at all."""
    near = _nearness(one.entity, other.entity)
    if one.gap is not None and one.gap == other.gap and (near or _alike(one.entity, other.entity)):
        return 2 + near + 1 - abs(one.place - other.place)
    if one.label and one.label == other.label:
        return 2 + near
    if one.counted and one.counted == other.counted:
        return 1.5 + near
    if near:
        return near
    named = other.label is not None and not _NEW & set(other.label.split())
    if family(one.entity) == "phrase" and other.entity.type == "phrase":
        # A list of things, each with its label: one of them is another thing now. Things that are
        # named by as many words are likelier the same sort.
        if not named or one.entity.type != "phrase":
            return 0
        alike = one.entity.text.count(" ") == other.entity.text.count(" ")
        return 0.3 if alike else 0.2
    return 0.1 if named and alone and family(one.entity) in ("money", "number") else 0


def _alike(one: Entity, other: Entity) -> bool:
    """Whether one may stand in the other's place: ids only where their letters and digits do."""
    if one.type != "id":
        return (one.type == "name") == (other.type == "name") or family(one) != "phrase"
    a, b = one.canonical, other.canonical
    return len(a) == len(b) and all(x.isdigit() == y.isdigit() for x, y in zip(a, b, strict=True))


def _nearness(one: Entity, other: Entity) -> float:
    """Return 1 for a small edit down to 0 for none, by the rules of the type."""
    a, b = one.canonical, other.canonical
    kind = family(one)
    if one.type == "token":
        return 0.0
    if kind == "phrase":
        return _shared_word(a, b)
    if kind == "date":
        return _close_dates(a, b)
    if kind == "money":
        return _close_amounts(a, b)
    return _small_edit(a, b)


def _small_edit(a: str, b: str) -> float:
    """Return how little of two texts differs, once their equal ends are taken off.

    One digit changed, two exchanged, one put in or left out: all leave a short middle.
    """
    shorter = min(len(a), len(b))
    start = 0
    while start < shorter and a[start] == b[start]:
        start += 1
    end = 0
    while end < shorter - start and a[-1 - end] == b[-1 - end]:
        end += 1
    middle = max(len(a), len(b)) - start - end
    if middle > 2 or shorter - middle < 2:
        return 0.0
    return 1 - middle / (max(len(a), len(b)) + 1)


def _shared_word(a: str, b: str) -> float:
    """Return a half where names of two or three words share their first or their last."""
    first, second = a.split(), b.split()
    if not (2 <= len(first) <= 3 and 2 <= len(second) <= 3):
        return 0.0
    return 0.5 if first[0] == second[0] or first[-1] == second[-1] else 0.0


def _close_dates(a: str, b: str) -> float:
    """Return a half for dates that are a day, a month or a year apart, all else equal."""
    first, second = _head(a).split("-"), _head(b).split("-")
    if len(first) != 3 or len(second) != 3:
        return 0.0
    differing = [(x, y) for x, y in zip(first, second, strict=True) if x != y and "?" not in (x, y)]
    if len(differing) != 1:
        return 0.0
    x, y = differing[0]
    return 0.5 if abs(int(x) - int(y)) == 1 else 0.0


def _close_amounts(a: str, b: str) -> float:
    """Return a half for a slip of the point, a doubling, and a little less for one of the pen."""
    x, y = _value(a), _value(b)
    if not x or not y:
        return 0.0
    ratio = max(x, y) / min(x, y)
    if any(abs(ratio - simple) < 1e-6 * simple for simple in (2, 10, 100, 1000)):
        return 0.5
    if int(x) == int(y) or round(x) == round(y):  # the cents were dropped
        return 0.5
    return 0.8 * _small_edit(_head(a), _head(b))


def _head(form: str) -> str:
    """Return a canonical form without its currency or clock."""
    return form.partition(" ")[0]


def _value(form: str) -> float:
    try:
        return float(_head(form))
    except ValueError:
        return 0.0
