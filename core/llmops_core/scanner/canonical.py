"""Canonical forms: two ways to write a value have the same one, and other values another.

A redactor replaces a personal value by a token of its canonical form, so that drift still sees that
a phone number is the same one, however it was written.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from llmops_core.scanner.closed import CURRENCIES, month_of
from llmops_core.scanner.patterns import STREETS, UNITS
from llmops_core.scanner.skeleton import fold

__all__ = ["NUMBER_WORDS", "canonical", "number", "stem", "words"]

NUMBER_WORDS: Final = {
    word: str(value)
    for value, word in enumerate(
        (
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
            "eighteen", "nineteen", "twenty",
        )
    )
} | {
    word: str(10 * tens)
    for tens, word in enumerate(
        ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 3
    )
}  # fmt: skip

_WORD: Final = re.compile(r"[^\W_]+")
_NOT_DIGIT: Final = re.compile(r"\D+")
_SQUEEZED: Final = re.compile(r"[\W_]+")
#: As in most of Europe, as in Switzerland, and as in English. Spaces group beside a currency only.
_NUMBER: Final = re.compile(
    r"(?P<comma>\d{1,3}(?:\.\d{3})+,\d{1,2}\b|\d{1,3}(?:[ \u00a0\u202f]\d{3})+,\d{1,2}\b|\d+,\d{2}\b(?!,))"
    r"|(?P<grouped>\d{1,3}(?:['\u2019 \u00a0\u202f]\d{3})+(?:\.\d{1,2})?\b)"
    r"|\d[\d,]*(?:\.\d+)?"
)
_GROUPING: Final = re.compile(r"['\u2019 \u00a0\u202f]")
_FACTORS: Final = {
    "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9,
}  # fmt: skip


def words(text: str) -> list[str]:
    """Return the words of a text, folded, in order. Underscores and punctuation separate."""
    return _WORD.findall(fold(text))


@functools.lru_cache(maxsize=16_384)
def stem(word: str) -> str:
    """Return the form that a word shares with its plural, and a street with its abbreviation."""
    known = STREETS.get(word) or UNITS.get(word)
    if known:
        return known
    if len(word) > 3 and word[-1] == "s" and word[-2] not in "su":
        return word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]
    return word


def number(text: str) -> str | None:
    """Return a number in its shortest form, or None. Commas group digits; a word may multiply."""
    match = _NUMBER.search(text)
    if match is None or len(match[0]) > 40:
        return None
    digits = _GROUPING.sub("", match[0])
    if match["comma"]:
        digits = digits.replace(".", "").replace(",", ".")
    value = float(digits.replace(",", ""))
    factor = re.match(r" ?(k|m|bn|thousand|million|billion)\b", text[match.end() :].lower())
    if factor:
        value *= _FACTORS[factor[1]]
    return f"{value:.6f}".rstrip("0").rstrip(".")


def canonical(kind: str, text: str) -> str:
    """Return the canonical form of a value of a type. Any text has one; it never raises."""
    made = _FORMS.get(kind)
    found = made(text) if made is not None else None
    return found or " ".join(stem(word) for word in words(text))


def _email(text: str) -> str:
    return text.lower().removeprefix("mailto:")


def _url(text: str) -> str:
    plain = re.sub(r"^[a-z]+://(?:www\.)?", "", text.lower())
    return plain.rstrip("/")


def _phone(text: str) -> str:
    return _NOT_DIGIT.sub("", text)[-10:]


def _identifier(text: str) -> str:
    return _SQUEEZED.sub("", text).upper()


def _money(text: str) -> str | None:
    value = number(text)
    if value is None:
        return None
    for part in re.findall(r"[a-z]{1,2}\$|[^\w\s.,'-]|[a-z]+", fold(text)):
        if part in CURRENCIES:
            return f"{value} {CURRENCIES[part]}"
    return value


def _time(text: str) -> str | None:
    match = re.match(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))? ?([ap])?", text.lower())
    if match is None:
        return None
    hour, minute = int(match[1]), match[2] or "00"
    if match[4]:
        hour = hour % 12 + (12 if match[4] == "p" else 0)
    seconds = f":{match[3]}" if match[3] and match[3] != "00" else ""
    return f"{hour:02d}:{minute}{seconds}"


def _date(text: str) -> str | None:
    parts = re.findall(r"\d+|[a-z]{3,}", fold(text))
    named = next((p for p in parts if p[0].isalpha() and month_of(p)), None)
    numbers = [p for p in parts if p.isdigit()]
    if named is not None:
        year = next((p for p in numbers if len(p) == 4), None)
        day = next((p for p in numbers if len(p) <= 2), "1")
        return f"{year or '?'}-{month_of(named)}-{int(day)}"
    if len(numbers) < 3:
        return None
    if len(numbers[0]) == 4:
        year, month, day = numbers[:3]
        clock = ""
        if len(numbers) > 4:
            seconds = numbers[5] if len(numbers) > 5 else "00"
            clock = f" {numbers[3]}:{numbers[4]}" + (f":{seconds}" if seconds != "00" else "")
        return f"{year}-{int(month)}-{int(day)}{clock}"
    first, second, year = numbers[:3]
    if int(first) > 12 or (int(second) <= 12 and "." in text):  # 14/01/2024, and 01.02.2024
        first, second = second, first
    year = f"20{year}" if len(year) == 2 else year
    return f"{year}-{int(first)}-{int(second)}"


def _token(text: str) -> str:
    return text.lower()


_FORMS: Final = {
    "email": _email,
    "url": _url,
    "phone": _phone,
    "id": _identifier,
    "money": _money,
    "percent": number,
    "time": _time,
    "date": _date,
    "quantity": number,
    "number": number,
    "zip": _identifier,
    "measure": lambda text: re.sub(r"[\s-]+", "", text.lower()),
    "token": _token,
}
