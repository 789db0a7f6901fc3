"""Harmful losses: a lost value that somebody downstream asks for, or fetches again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from llmops_core.scanner import fold, scan

if TYPE_CHECKING:
    from llmops_core.analysis.text_index import TextIndex
    from llmops_core.scanner import Entity

__all__ = ["Later", "may_have", "reacquired"]

_BY_THEIR_WORDS: Final = frozenset(("id", "email", "url", "name", "phrase", "quoted", "token"))

#: What a question calls a value of a type.
_ASKED_AS: Final = {
    "id": r"order|number|\bid\b|reference|ticket|booking|account|reservation",
    "email": r"e-?mail",
    "phone": r"phone|call you|number",
    "name": r"name",
    "phrase": r"which (?:one|item|product)|what item|name",
    "address": r"address|where",
    "zip": r"zip|post(?:al)? ?code",
    "date": r"date|when|which day",
    "time": r"time|when",
    "money": r"amount|how much|price",
    "quantity": r"how many|quantity",
}
_QUESTION: Final = re.compile(
    r"[^.!?\n]*\?|[^.!?\n]*\b(?:please (?:provide|share|confirm|send)|could you|can you|need your)\b"
    r"[^.!?\n]*",
    re.IGNORECASE,
)
#: How much of what follows is read: a loss that hurts does so soon.
_MOST: Final = 64


class Later(NamedTuple):
    """What happened after a handoff: a model's words, or what a tool was asked and returned."""

    how: Literal["said", "fetched"]
    text: str


def reacquired(
    lost: Sequence[tuple[str, str]], later: Iterable[Later], index: Callable[[str], TextIndex]
) -> set[str]:
    """Return the lost values, as (type, value), that are asked for or fetched again."""
    missing = {value: kind for kind, value in lost}
    entities = {e.text: e for value in missing for e in scan(value)[:1]}
    found: set[str] = set()
    for at, event in enumerate(later):
        if at >= _MOST or len(found) == len(missing):
            break
        waiting = [value for value in missing if value not in found]
        if event.how == "fetched":
            found |= {
                value
                for value in waiting
                if value in entities
                and may_have(event.text, entities[value])
                and index(event.text).find(entities[value])
            }
        else:
            asked = " ".join(match[0] for match in _QUESTION.finditer(event.text)).lower()
            found |= {
                value
                for value in waiting
                if asked
                and missing[value] in _ASKED_AS
                and re.search(_ASKED_AS[missing[value]], asked)
            }
    return found


def may_have(text: str, entity: Entity) -> bool:
    """Whether a text may have a value at all: its longest word is there. Cheap, and never wrongly no.

    Types that are written in many ways may always be there.
    """
    if entity.type not in _BY_THEIR_WORDS:
        return True
    longest = max(re.findall(r"[^\W_]+", fold(entity.text)), key=len, default="")
    return longest[:-2] in fold(text) if len(longest) > 4 else longest[:2] in fold(text)
