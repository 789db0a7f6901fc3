"""Harmful losses: a lost value that somebody downstream asks for, or fetches again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from llmops_core.analysis.text_index import TextIndex
from llmops_core.scanner import scan

if TYPE_CHECKING:
    from llmops_core.scanner import EntityExtractor

__all__ = ["Later", "reacquired"]

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
    lost: Sequence[tuple[str, str]],
    later: Iterable[Later],
    extractors: Sequence[EntityExtractor] = (),
) -> set[str]:
    """Return the lost values, as (type, value), that are asked for or fetched again."""
    missing = {value: kind for kind, value in lost}
    entities = {e.text: e for value in missing for e in scan(value, extractors)[:1]}
    found: set[str] = set()
    for at, event in enumerate(later):
        if at >= _MOST or len(found) == len(missing):
            break
        if event.how == "fetched":
            index = TextIndex(event.text, extractors)
            found |= {
                value
                for value in missing
                if value not in found and value in entities and index.find(entities[value])
            }
        else:
            asked = " ".join(match[0] for match in _QUESTION.finditer(event.text)).lower()
            found |= {
                value
                for value, kind in missing.items()
                if asked and kind in _ASKED_AS and re.search(_ASKED_AS[kind], asked)
            }
    return found
