"""Things that no pattern finds, and that a text in place replaced by a word for any of their kind.

``send the tea kettle back`` becomes ``send an item back``: what stood there is lost, although nothing
in its shape says that it is an entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from llmops_core.scanner import Entity, fold
from llmops_core.scanner.english import FUNCTION_WORDS

if TYPE_CHECKING:
    from llmops_core.analysis.alignment import Gap
    from llmops_core.analysis.text_index import TextIndex

__all__ = ["replaced_words"]

_LONGEST: Final = 4
#: What begins a mention of something that is not named.
_DETERMINERS: Final = frozenset(
    ("a", "an", "the", "some", "any", "this", "that", "these", "those", "it", "his", "her", "its",
     "their", "our", "your", "my")
)  # fmt: skip

_TELLS: Final = re.compile(
    r"[.!?;:|\n]|\b(?:is|are|was|were|will|should|must|has|have)\b", re.IGNORECASE
)


def replaced_words(a: TextIndex, b: TextIndex, holes: Sequence[Gap]) -> Iterator[Entity]:
    """Yield the words of the first text that an unnamed mention stands for in the second."""
    known = {entity.canonical for entity in a.distinct}
    for gap in holes:
        if not gap.firm or not 1 <= gap.b_end - gap.b_start <= _LONGEST:
            continue
        if fold(b.text[slice(*b.spans[gap.b_start])]) not in _DETERMINERS:
            continue
        mention = b.text[b.spans[gap.b_start][0] : b.spans[gap.b_end - 1][1]]
        if _TELLS.search(mention):
            continue  # it is no mention but tells of what comes next: ``The address is``
        at = _content(a, range(gap.a_start, gap.a_end))
        if not 1 <= len(at) <= _LONGEST or any(a.stems[i] in b.stem_places for i in at):
            continue
        start, end = a.spans[at[0]][0], a.spans[at[-1]][1]
        said, form = a.text[start:end], " ".join(a.stems[i] for i in at)
        plain = said == said.lower() and len(said) >= 4 and form.replace(" ", "").isalpha()
        if plain and form not in known and not a.covered(start, end):
            known.add(form)
            yield Entity("phrase", said, form, start, end)


def _content(index: TextIndex, words: range) -> range:
    """Return a stretch of words without the function words at its ends."""
    first, last = words.start, words.stop
    while first < last and index.stems[first] in FUNCTION_WORDS:
        first += 1
    while first < last and index.stems[last - 1] in FUNCTION_WORDS:
        last -= 1
    return range(first, last)
