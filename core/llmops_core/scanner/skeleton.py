"""The skeleton of a text: as long as the text, ASCII throughout, only its shape.

Patterns run over the skeleton, values are cut from the text at the same places. So an accent, a
typographic quote or a Cyrillic name needs no pattern of its own, and offsets need no translation.
"""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["fold", "normal", "skeleton"]

#: Entries that the tables keep; past it characters are worked out each time, so that a hostile
#: text cannot make them large.
_MOST_ENTRIES: Final = 20_000

_PUNCTUATION: Final = {
    0x2018: "'", 0x2019: "'", 0x201A: "'", 0x02BC: "'", 0x201C: '"', 0x201D: '"', 0x201E: '"',
    0x00AB: '"', 0x00BB: '"', 0x2010: "-", 0x2011: "-", 0x2012: "-", 0x2013: "-", 0x2014: "-",
    0x2212: "-", 0x00A0: " ", 0x2007: " ", 0x202F: " ", 0x2009: " ", 0x20AC: "$", 0x00A3: "$",
    0x00A5: "$", 0x20B9: "$", 0x00D7: "x", 0x2026: ".",
}  # fmt: skip

#: Letters with a bar or joined, which no decomposition takes apart.
_BARRED: Final = {
    ord(char): plain
    for char, plain in (
        ("ø", "o"), ("Ø", "O"), ("ł", "l"), ("Ł", "L"), ("đ", "d"), ("Đ", "D"), ("ħ", "h"),
        ("Ħ", "H"), ("\u0131", "i"), ("æ", "ae"), ("Æ", "Ae"), ("œ", "oe"), ("Œ", "Oe"), ("þ", "th"),
        ("Þ", "Th"), ("ð", "d"), ("Ð", "D"),
    )
}  # fmt: skip


def _shape(code: int) -> str:
    """Return the one ASCII character that a character looks like to a pattern."""
    known = _PUNCTUATION.get(code)
    if known is not None:
        return known
    char = chr(code)
    base = _BARRED.get(code, "")[:1] or unicodedata.normalize("NFKD", char)[0]
    if unicodedata.category(char) == "Sc":
        return "$"
    if base.isascii() and base.isalnum():
        return base
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if char.isalpha():
        return "A" if char.isupper() or char.istitle() else "a"
    return " " if char.isspace() else "\x7f"


def _folded(code: int) -> str:
    """Return a character without its accent and case; what is no letter stays."""
    base = _BARRED.get(code) or unicodedata.normalize("NFKD", chr(code)).casefold()
    base = base.lower()
    return "".join(c for c in base if not unicodedata.combining(c)) or " "


class _Table(dict[int, str]):
    """A table for ``str.translate`` that is filled when a character is first met."""

    def __init__(self, of: object) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, code: int) -> str:
        found: str = chr(code) if code < 128 and self._of is _shape else self._of(code)  # type: ignore[operator]
        if len(self) < _MOST_ENTRIES:
            self[code] = found
        return found


_SHAPES: Final = _Table(_shape)
_FOLDS: Final = _Table(_folded)


def normal(text: str) -> str:
    """Return the text with its accents composed, so that each letter is one character."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def skeleton(text: str) -> str:
    """Return the ASCII shape of a :func:`normal` text, of the same length."""
    return text if text.isascii() else text.translate(_SHAPES)


def fold(text: str) -> str:
    """Return a text in lower case and without accents. It may be longer than the original."""
    return text.lower() if text.isascii() else text.translate(_FOLDS)
