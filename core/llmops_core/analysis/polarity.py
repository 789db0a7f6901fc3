"""What a text excludes: ``not to X``, ``never use X``, ``X must not be``; and whether that flipped."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from llmops_core.scanner import fold
from llmops_core.scanner.english import FUNCTION_WORDS

if TYPE_CHECKING:
    from llmops_core.analysis.text_index import TextIndex
    from llmops_core.scanner import Entity

__all__ = ["flipped"]

_THINGS: Final = frozenset(
    ("id", "email", "phone", "name", "phrase", "address", "url", "date", "money", "token", "time")
)
#: Said with a negation, these deny nothing: ``don't forget``, ``not only``, ``no later than``.
_MILD: Final = (
    r"(?!\s+(?:only|just|merely|simply|sure|certain|forget|hesitate|fail|mind|exceed"
    r"|(?:later|earlier|sooner|more|less|fewer|longer|older|higher|lower)\s+than)\b)"
)
#: What leaves a thing out. Within a denial it says the opposite: ``nothing except X``.
_APART: Final = r"without|except(?:ing)?|instead of|rather than|other than|excluding"
_NEGATION: Final = re.compile(
    rf"\b(?:(?:not|never|cannot){_MILD}|no longer|no need to"
    r"|no(?= \S+$| $)|no(?= (?:circumstances|account|case|means|time)\b)"
    rf"|{_APART}|nothing|nobody|no one|avoid|neither|nor|exclude|skip|ignore|anything but"
    r"|refuse|forbid|forbidden|leave out)\b"
    rf"|n['\u2019]t\b{_MILD}",
    re.IGNORECASE,
)
#: Whatever denies has one of these in it. Looked for once in a text, they spare most values a closer
#: look.
_HINTS: Final = (
    "no", "n't", "n\u2019t", "never", "neither", "without", "except", "instead of", "rather than",
    "other than", "exclud", "avoid", "skip", "ignore", "anything but", "refuse", "forbid",
    "leave out", "off limits",
)  # fmt: skip
#: How far before and after a value a hint may matter.
_BEFORE, _AFTER = 80, 48
_LEAVES_OUT: Final = re.compile(_APART, re.IGNORECASE)
_DENIAL: Final = re.compile(
    r"\b(?:no|not|never|nothing|nobody|none|neither|cannot|impossible|unable)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
#: After these the other thing is meant, not the excluded one. A comma opens a clause unless the
#: word behind it goes on with the one before.
_TURN: Final = re.compile(
    r"[.!?;\n](?:\s|$)|,? but (?!not)|,? instead(?! of)|,? only\b"
    r"|\b(?:before|after|because|since|while|when|if|unless)\b"
    r"|, (?!(?:or|nor|and|not|neither|never|even|at|in|under|by|on|of|for|from|as|the|an?|any"
    r"|either|such|including|like)\b)(?-i:[a-z])[a-z]* ",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"[.!?;\n](?:\s|$)")
_LISTED: Final = re.compile(r"(?:^|[.;,{\n]\s?)['\"]?[A-Za-z_]+(?: [a-z]+)?['\"]?:\s?['\"]?$")
_FARTHEST: Final = 60
_WORD: Final = re.compile(r"[^\W\d_]{3,}")


class _Stances(NamedTuple):
    """Where a text speaks of a value, and whether it excludes it there."""

    text: str
    negated: list[bool]
    places: list[tuple[int, int]]


def flipped(a: TextIndex, b: TextIndex, located: Sequence[Entity]) -> Iterator[str]:
    """Yield the values that one text excludes and the other names for the same action.

    A value must be excluded everywhere on one side and nowhere on the other, and both must speak of
    it with a word in common: a list of values excludes nothing.
    """
    if not _NEGATION.search(a.text) and not _NEGATION.search(b.text):
        return
    before = _stances(a.text, a.entities)
    after = _stances(b.text, [*b.entities, *located])
    for key, olds in before.items():
        news = after.get(key)
        if news is None or any(olds.negated) == any(news.negated):
            continue
        firm = all(olds.negated) or all(news.negated)
        if firm and _words_of(a.text, olds) & _words_of(b.text, news):
            yield olds.text


def _stances(text: str, entities: Iterable[Entity]) -> dict[str, _Stances]:
    found: dict[str, _Stances] = {}
    hints = _hints(text)
    for entity in entities:
        if entity.type not in _THINGS:
            continue
        at = bisect_left(hints, entity.start - _BEFORE)
        near = at < len(hints) and hints[at] < entity.end + _AFTER
        negated = near and _is_negated(text, entity.start, entity.end)
        if not negated and _LISTED.search(text, max(0, entity.start - 32), entity.start):
            continue  # ``Email: x``: a list of values takes no stance
        stances = found.setdefault(entity.canonical, _Stances(entity.text, [], []))
        stances.negated.append(negated)
        stances.places.append((entity.start, entity.end))
    return found


def _hints(text: str) -> list[int]:
    """Return where something may deny, in order."""
    found = []
    lowered = text.lower() if text.isascii() else _lowered(text)
    for hint in _HINTS:
        at = lowered.find(hint)
        while at >= 0:
            found.append(at)
            at = lowered.find(hint, at + 1)
    found.sort()
    return found


def _lowered(text: str) -> str:
    """Return a text in lower case where that keeps its length, letter by letter elsewhere."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _words_of(text: str, stances: _Stances) -> frozenset[str]:
    return frozenset().union(*(_words_around(text, *place) for place in stances.places))


def _is_negated(text: str, start: int, end: int) -> bool:
    """Whether a negation governs what stands at a place."""
    before = text[max(0, start - _FARTHEST) : start]
    last = None
    for match in _NEGATION.finditer(before):
        last = match
    if last is not None and not _TURN.search(before, last.end()):
        at = start - len(before) + last.start()
        return not (_LEAVES_OUT.fullmatch(last[0]) and _is_denied(text, at, end))
    after = text[end : end + 40]
    return bool(
        re.match(
            r",?\s+(?:is |are )?no longer\b"
            r"|\s+(?:(?:is|are|was|were|must|should|may|shall|will|can|could|do|does|has|have)"
            r"(?:\s+(?:not|never)|n['\u2019]t)|(?:is|are)\s+(?:excluded|forbidden|off limits)"
            r"|cannot|never|not (?:to )?(?:be\b|[a-z]{4,}(?!\w)))\b",
            after,
        )
    )


def _is_denied(text: str, start: int, end: int) -> bool:
    """Whether what is left out between two places is left out of a denial: it is meant then.

    The denial comes before it, as in ``no refund without X``, or, where it opens the sentence, after
    it, as in ``without X nothing is refunded``.
    """
    before = _sentence_until(text, start)
    denials = list(_DENIAL.finditer(before))
    if denials:
        return _TURN.search(before, denials[-1].end()) is None
    return not before.strip(" -*>\"'") and _DENIAL.search(_sentence_from(text, end)) is not None


def _sentence_until(text: str, place: int) -> str:
    """Return what the sentence says before a place, up to a bounded distance."""
    before = text[max(0, place - 160) : place]
    breaks = [match.end() for match in _SENTENCE.finditer(before)]
    return before[breaks[-1] :] if breaks else before


def _sentence_from(text: str, place: int) -> str:
    """Return what the sentence says after a place, up to a bounded distance."""
    after = text[place : place + 80]
    stop = _SENTENCE.search(after)
    return after[: stop.start()] if stop else after


def _words_around(text: str, start: int, end: int) -> frozenset[str]:
    """Return the words of the sentence around a place, up to a bounded distance."""
    around = f"{_sentence_until(text, start)} {_sentence_from(text, end)}"
    said = (fold(w) for w in _WORD.findall(around))
    return frozenset(w[:5] for w in said if w not in FUNCTION_WORDS)
