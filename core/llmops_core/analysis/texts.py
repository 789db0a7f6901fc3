"""Two texts compared: which entities of the first are kept, reformatted, altered or lost in the
second, and which the second adds. Pure, and near linear in the length of the texts.

1. Entities of both (:mod:`llmops_core.scanner`), each value once.
2. A value is preserved where its words stand in the other text in a row, or, for numbers, dates,
   phones and money, where an entity there has the same canonical form: the 3 of ``3 PM`` is nobody's
   quantity. A person is preserved by surname and initial, or by surname and title.
3. What is left of both is paired: *altered* where the type is the same and the edit is small, or
   where one stands in the other's place. The rest is *lost* and *added*.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, Literal, NamedTuple

from llmops_core.analysis.alignment import Gap, gaps
from llmops_core.analysis.binding import swapped
from llmops_core.analysis.equivalence import Equivalences
from llmops_core.analysis.pairing import Left, pair
from llmops_core.analysis.polarity import flipped
from llmops_core.analysis.replaced import replaced_words
from llmops_core.analysis.text_index import Found, TextIndex
from llmops_core.scanner import TYPES, Entity, EntityExtractor, canonical

__all__ = ["COUNTED", "HIGH_DRIFT", "Comparison", "Fate", "Status", "compare", "compare_indices"]

Status = Literal["kept", "reformatted", "altered", "lost", "added", "implied", "unknown"]

#: Above this share of its entities a handoff has high drift.
HIGH_DRIFT: Final = 0.4

#: Types that count in the ratio. Bare numbers and measures are followed, but too many of them are
#: no information (years, sizes, numbers of steps).
_UNCOUNTED: Final = frozenset(("number", "measure"))
COUNTED: Final = frozenset(TYPES) - _UNCOUNTED


_CAPITAL_BEFORE: Final = re.compile(r"\b[A-Z]\w* $")
_OPENED: Final = re.compile(r"(?:^|[.!?:;\n|])[\s\"'*_#(>\[-]*$")


class Fate(NamedTuple):
    """What became of one entity."""

    type: str
    value: str
    status: Status
    #: How the second text has it, where it is reformatted or altered.
    becomes: str | None
    counts: bool
    #: Where it stands: in the first text, for an added one in the second.
    start: int
    end: int


class Comparison(NamedTuple):
    """The fates of all entities of a pair of texts, and what they come to."""

    fates: tuple[Fate, ...]
    #: (lost + altered) / all that count; None where nothing counts.
    drift: float | None
    #: How many entities that ratio is of.
    n: int
    #: Values whose partners were exchanged, as (thing, its number before, its number after).
    swaps: tuple[tuple[str, str, str], ...]
    #: Values that were excluded on one side and named on the other.
    flips: tuple[str, ...]
    #: Places of the values that became ``kept``, ``reformatted`` or ``altered``, in the second text.
    places: tuple[tuple[int, int, Status], ...]

    def values(self, status: Status) -> list[str]:
        """Return the values that have a status, in the order of the text."""
        return [fate.value for fate in self.fates if fate.status == status]

    def places_in_second(self) -> list[tuple[int, int, str]]:
        """Return the places in the second text and what stands there, in order."""
        return list(self.places)

    @property
    def has_high_drift(self) -> bool:
        """Whether more than 40 % of what counts is lost or altered."""
        return self.drift is not None and self.drift > HIGH_DRIFT


def compare(
    first: str,
    second: str,
    *,
    extractors: Iterable[EntityExtractor] = (),
    complete: bool = True,
    equivalences: Equivalences | None = None,
) -> Comparison:
    """Compare what a text says with what became of it.

    ``complete=False`` says that the second text was cut by a capture limit: what is not found in it
    is ``unknown``, never ``lost``. *equivalences* are asked about
    what is left on both sides; what means the same is ``reformatted``.
    """
    extractors = tuple(extractors)
    a, b = TextIndex(first, extractors), TextIndex(second, extractors)
    return compare_indices(a, b, complete=complete, equivalences=equivalences)


def compare_indices(
    a: TextIndex,
    b: TextIndex,
    *,
    complete: bool = True,
    equivalences: Equivalences | None = None,
) -> Comparison:
    """Compare as :func:`compare` does, texts that are indexed already."""
    missing: Status = "lost" if complete else "unknown"
    fates, places, located, left, hinted = _matched(a, b)
    claimed = _Places(places)
    news = [e for e in b.distinct if a.find(e) is None and not claimed.overlap(e)]
    if equivalences is not None:
        left, news = _without_equivalents(left, news, equivalences, fates, places)
    holes = gaps(a.stems, b.stems)
    paired = pair(_left(a, left, holes, 0), _left(b, news, holes, 1)) if left and news else {}
    for at, entity in enumerate(left):
        partner = news[paired[at]] if at in paired else None
        if partner is None:
            fates.append(_fate(entity, missing, None))
        else:
            fates.append(_fate(entity, "altered", partner.text))
            places.append((partner.start, partner.end, "altered"))
    fates += [_fate(entity, missing, None) for entity in replaced_words(a, b, holes)]
    taken = set(paired.values())
    rest = [at for at in range(len(news)) if at not in taken]
    became = _renamed(a, b, hinted, [news[at] for at in rest], holes)
    for entity in hinted:
        if entity not in became:
            fates.append(_fate(entity, "implied", None))
            continue
        chosen = rest[became[entity]]
        partner = news[chosen]
        taken.add(chosen)
        # Told, but not counted: who reads the address still knows who it was.
        fates.append(_fate(entity, "altered", partner.text)._replace(counts=False))
        places.append((partner.start, partner.end, "altered"))
    for at, entity in enumerate(news):
        if at not in taken and _is_addition(entity, a):
            fates.append(_fate(entity, "added", None))
            places.append((entity.start, entity.end, "added"))
    return _summed(a, b, fates, places, located)


def _matched(
    a: TextIndex, b: TextIndex
) -> tuple[list[Fate], list[tuple[int, int, Status]], list[Entity], list[Entity], list[Entity]]:
    """Return the fates of what the second text has, where it is there, what is left, and names that
    only an address there holds."""
    fates: list[Fate] = []
    places: list[tuple[int, int, Status]] = []
    located: list[Entity] = []  # values of the first text, where the second has them
    left: list[Entity] = []
    hinted: list[Entity] = []
    for entity in a.distinct:
        match = b.find(entity) or _without_opening(a, b, entity)
        if match is None:
            left.append(entity)
            continue
        if match.implied:
            hinted.append(entity)
            continue
        status: Status = "kept" if match.exact else "reformatted"
        fates.append(_fate(entity, status, None if match.exact else match.text))
        if match.end > match.start:
            places.append((match.start, match.end, status))
            located.append(entity._replace(start=match.start, end=match.end))
    return fates, places, located, left, hinted


def _renamed(
    a: TextIndex,
    b: TextIndex,
    hinted: list[Entity],
    news: list[Entity],
    holes: Sequence[Gap],
) -> dict[Entity, int]:
    """Return which names, although an address still holds them, are another name where they stood."""
    if not hinted or not news:
        return {}
    paired = pair(_left(a, hinted, holes, 0), _left(b, news, holes, 1), least=0.5)
    return {hinted[at]: other for at, other in paired.items()}


def _without_equivalents(
    left: list[Entity],
    news: list[Entity],
    equivalences: Equivalences,
    fates: list[Fate],
    places: list[tuple[int, int, Status]],
) -> tuple[list[Entity], list[Entity]]:
    """Return the leftovers of both sides that do not mean the same, and note those that do."""
    same = equivalences.matches(left, news)
    for at, other in same.items():
        fates.append(_fate(left[at], "reformatted", news[other].text))
        places.append((news[other].start, news[other].end, "reformatted"))
    matched = set(same.values())
    return (
        [e for at, e in enumerate(left) if at not in same],
        [e for at, e in enumerate(news) if at not in matched],
    )


def _without_opening(a: TextIndex, b: TextIndex, entity: Entity) -> Found | None:
    """Find a phrase without the word that opened its sentence: ``Return Water Bottle``.

    Where another capitalised word stands in its stead, that is another name, not an opening.
    """
    head, _, tail = entity.text.partition(" ")
    if entity.type != "phrase" or not tail or not a.opens_sentence(entity):
        return None
    rest = entity._replace(
        text=tail, canonical=canonical("phrase", tail), start=entity.start + len(head) + 1
    )
    found = b.find(rest)
    if found is None or (not found.implied and _names_on(b.text, found.start)):
        return None
    return found._replace(exact=False)


def _names_on(text: str, place: int) -> bool:
    """Whether the name at a place begins before it: the word there has a capital and opens nothing."""
    match = _CAPITAL_BEFORE.search(text, max(0, place - 40), place)
    return match is not None and not _OPENED.search(text, max(0, match.start() - 8), match.start())


class _Places:
    """Places of a text in order, so that an overlap is found without looking at all of them."""

    def __init__(self, places: Iterable[tuple[int, int, Status]]) -> None:
        self._places = sorted((start, end) for start, end, _ in places)
        # An earlier place may reach further than a later one.
        self._reach = list(accumulate((end for _, end in self._places), max))

    def overlap(self, entity: Entity) -> bool:
        before = bisect_left(self._places, (entity.end,))
        return before > 0 and self._reach[before - 1] > entity.start


def _fate(entity: Entity, status: Status, becomes: str | None) -> Fate:
    counts = entity.type not in _UNCOUNTED and status not in ("implied", "added", "unknown")
    return Fate(entity.type, entity.text, status, becomes, counts, entity.start, entity.end)


def _summed(
    a: TextIndex,
    b: TextIndex,
    fates: list[Fate],
    places: list[tuple[int, int, Status]],
    located: list[Entity],
) -> Comparison:
    counted = [fate for fate in fates if fate.counts]
    bad = sum(fate.status in ("lost", "altered") for fate in counted)
    return Comparison(
        fates=tuple(sorted(fates, key=lambda f: (f.status == "added", f.start))),
        drift=bad / len(counted) if counted else None,
        n=len(counted),
        swaps=tuple(swapped(a, b, located)),
        flips=tuple(flipped(a, b, located)),
        places=tuple(sorted(places)),
    )


def _left(
    index: TextIndex, entities: Sequence[Entity], holes: Sequence[Gap], side: int
) -> list[Left]:
    """Return what is left with the gap that it stands in, and how far into the gap."""
    bounds = [(gap[2 * side], gap[2 * side + 1]) for gap in holes]
    found = []
    for entity in entities:
        at = index.first_word(entity)
        hole = _gap_at(bounds, at)
        if hole is None:  # it begins before the gap: only the end of an address was changed
            first, at = at, index.word_at(max(entity.start, entity.end - 1))
            hole = _gap_at(bounds, at)
            if hole is not None and (bounds[hole - 1][1] if hole else 0) >= first:
                hole = None  # and nothing before it is shared
        place = 0.0
        if hole is not None:
            lo, hi = bounds[hole]
            place = (at - lo) / max(1, hi - lo)
            gap = holes[hole]
            if not gap.bounded or gap.a_end == gap.a_start or gap.b_end == gap.b_start:
                hole = None  # nothing stands there on the other side
        found.append(Left(entity, hole, place, index.label(entity), index.counted(entity)))
    return found


def _gap_at(bounds: Sequence[tuple[int, int]], word: int) -> int | None:
    """Return the gap that a word stands in. Gaps are in order; some are empty on one side."""
    at = bisect_left(bounds, (word + 1,)) - 1
    while at >= 0 and bounds[at][0] == bounds[at][1] == word:
        at -= 1  # an empty one before the word itself
    return at if at >= 0 and bounds[at][0] <= word < bounds[at][1] else None


_NOT_ADDED: Final = frozenset(("number", "measure", "quoted", "quantity", "percent", "time"))


def _is_addition(entity: Entity, source: TextIndex) -> bool:
    """Whether a value that only the second text has says something new about the world."""
    if entity.type in _NOT_ADDED:
        return False
    if entity.type == "phrase":
        return len(entity.canonical.split()) > 1 and not any(
            w in source.stem_places for w in entity.canonical.split()
        )
    return True
