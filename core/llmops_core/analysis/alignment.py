"""Where two texts say the same: which part of one took the place of which part of the other.

Words that occur once in both texts are anchors; the longest run of anchors in the same order holds,
and grows over equal neighbours. What lies between two anchored stretches is a *gap*: there the one
text was replaced by the other. Near linear, unlike a full diff, and enough to see an edit in place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["Gap", "gaps"]


#: Words of a replacement at most: what is longer was rewritten, and no place in it means anything.
_LARGEST: Final = 16
_SMALL: Final = 2


class Gap(NamedTuple):
    """Words ``[a_start, a_end)`` of the first text stand where ``[b_start, b_end)`` do in the second."""

    a_start: int
    a_end: int
    b_start: int
    b_end: int
    #: Whether words on both sides are the same in both texts, so that the gap is a replacement.
    bounded: bool
    #: Whether it is so by more than one word on either side: enough for what has no shape of its own.
    firm: bool = False


def gaps(first: Sequence[str], second: Sequence[str]) -> list[Gap]:
    """Return the gaps between the parts that two texts share, from left to right."""
    found = []
    a_at = b_at = 0
    stretch = 0  # how many words the stretch before the gap has
    before = False  # whether what stands before the gap shows where it begins
    for a_start, b_start, length in [*_stretches(first, second), (len(first), len(second), 0)]:
        if a_start > a_at or b_start > b_at:
            size = max(a_start - a_at, b_start - b_at)
            least = min(a_start - a_at, b_start - b_at)
            ends = a_start == len(first) and b_start == len(second) and 2 * least >= size
            last = length and a_start + length == len(first) and b_start + length == len(second)
            # So it is after a word or two that took the place of a word or two.
            near = length == 1 and 1 <= least <= size <= _SMALL
            bounded = before and size <= _LARGEST and bool(length >= 2 or ends or last or near)
            firm = bounded and stretch >= 2 and bool(length >= 2 or ends)
            found.append(Gap(a_at, a_start, b_at, b_start, bounded, firm))
        # One word is enough where both texts begin or end with it.
        before = length >= 2 or (length == 1 and a_start == b_start == 0)
        a_at, b_at, stretch = a_start + length, b_start + length, length
    return found


def _stretches(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int, int]]:
    """Return the shared stretches as (place in the first, place in the second, words)."""
    found: list[tuple[int, int, int]] = []
    a_least = b_least = 0
    for a_at, b_at in [*_anchors(first, second), (len(first), len(second))]:
        if a_at < a_least or b_at < b_least:
            continue  # inside the stretch before
        a_start, b_start = a_at, b_at
        while a_start > a_least and b_start > b_least and first[a_start - 1] == second[b_start - 1]:
            a_start, b_start = a_start - 1, b_start - 1
        a_end, b_end = a_at, b_at
        while a_end < len(first) and b_end < len(second) and first[a_end] == second[b_end]:
            a_end, b_end = a_end + 1, b_end + 1
        if a_end > a_start:
            if found and found[-1][0] + found[-1][2] == a_start:
                before = found[-1]
                if before[1] + before[2] == b_start:
                    found.pop()
                    a_start, b_start = before[0], before[1]
            found.append((a_start, b_start, a_end - a_start))
            a_least, b_least = a_end, b_end
    return found


def _anchors(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of words that occur once in each text, where their order is the same."""
    in_first, in_second = Counter(first), Counter(second)
    place = {word: at for at, word in enumerate(second) if in_second[word] == 1}
    pairs = [
        (at, place[word]) for at, word in enumerate(first) if in_first[word] == 1 and word in place
    ]
    return _increasing(pairs)


def _increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest part of *pairs* whose second members rise (patience sorting)."""
    tails: list[int] = []
    tail_at: list[int] = []
    before: list[int] = []
    for index, (_, value) in enumerate(pairs):
        pile = bisect_left(tails, value)
        before.append(tail_at[pile - 1] if pile else -1)
        if pile == len(tails):
            tails.append(value)
            tail_at.append(index)
        else:
            tails[pile], tail_at[pile] = value, index
    kept = []
    index = tail_at[-1] if tail_at else -1
    while index >= 0:
        kept.append(pairs[index])
        index = before[index]
    return kept[::-1]
