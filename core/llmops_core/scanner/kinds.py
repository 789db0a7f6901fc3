"""The type of a candidate, by its own shape and what stands around it."""

from __future__ import annotations

import re
from typing import Final

from llmops_core.scanner.closed import CODES, is_month
from llmops_core.scanner.english import FUNCTION_WORDS

__all__ = ["kind_of"]

_CONTEXT: Final = 40

_ZIP_BEFORE: Final = re.compile(
    r"(?:\b(?:zip|postal|postcode|plz)(?:[ _]?codes?)?\W{0,3}(?:is|was|to|of|in|at)?\W{0,4}"
    r"|\b[A-Z]{2},? )$"
)
_ID_BEFORE: Final = re.compile(
    r"\b(?:order|ticket|case|invoice|booking|reservation|confirmation|account|reference|ref|claim"
    r"|transaction|tracking|request|issue|id|number|no|nr|code|serial|policy|member|customer)"
    r"\W{0,3}(?:id|number|no|nr|code)?\W{0,3}(?:is|was)?\W{0,3}$",
    re.IGNORECASE,
)
_COUNTED_AFTER: Final = re.compile(r"(?: x)? (?:([a-z]{2,14}) )?([a-z]{3,14}s)\b")
#: What may be said before a number of things as well as before an id: ``order 100 lamps``.
_ORDERS: Final = re.compile(r"(?:order|request|claim|issue|number|no)\s", re.IGNORECASE)
_LIST_NUMBER: Final = re.compile(r"(?:^|\n)[ \t>*#-]{0,8}$")
_DAY: Final = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:\D.*)?|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})"
)
_POSTCODE: Final = re.compile(r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}|[A-Z]\d[A-Z] \d[A-Z]\d")
_ACCOUNT: Final = re.compile(r"[A-Z]{2}\d{2}(?: [A-Z\d]{1,4}){2,8}|\d{4}(?:[ -]\d{4}){3}")
_CURRENCY: Final = "|".join(CODES)
_COINS: Final = re.compile(
    rf"(?:{_CURRENCY}|dollars?|euros?|pounds|yen|yuan|rupees|francs|pesos|reais|rubles|zloty|zl|Kc"
    r"|kronor|kroner|bucks|\$)$",
    re.IGNORECASE,
)
_CODED: Final = re.compile(rf"(?:{_CURRENCY}) ?\d")
_PHONE: Final = re.compile(r"\+?[\d ().-]{7,24}")
_FLIGHT: Final = re.compile(r"[A-Z]{2} \d{2,4}")


def kind_of(shape: str, bones: str, start: int, end: int) -> str | None:
    """Return the type of a candidate that has digits or joints, None for what is no entity."""
    first = shape[0]
    if first == "<":
        return "token"
    if "@" in shape:
        return "email"
    if first == "/" or "://" in shape[:8] or ("/" in shape and first.isalpha()):
        return "url"
    if shape.startswith("www."):
        return "url"
    if first == "#":
        return "id"
    if "$" in shape[:3]:
        return "money"
    if shape[-1] == "%" or shape.lower().endswith(("percent", "per cent")):
        return "percent"
    if first.isdigit() or first in "+(":
        return _numeric(shape, bones, start, end)
    return _wordlike(shape, bones, start)


def _numeric(shape: str, bones: str, start: int, end: int) -> str | None:
    digits = sum(c.isdigit() for c in shape)
    if _ACCOUNT.fullmatch(shape):
        return "id"
    if _DAY.fullmatch(shape):
        return "date"
    if 7 <= digits <= 15 and _is_phone(shape):
        return "phone"
    if digits == len(shape) or re.fullmatch(r"[\d,']+(?:\.\d+)?", shape):
        return _plain_number(shape, bones, start, end)
    if ":" in shape or re.fullmatch(r"\d{1,2} ?[AaPp]\.?[Mm]\.?", shape):
        return "time"
    if _COINS.search(shape):
        return "money"
    return _spaced_number(shape) if " " in shape else _joined_number(shape, digits, bones, start)


def _spaced_number(shape: str) -> str:
    if _has_month(shape):
        return "date"
    return "measure" if re.fullmatch(r"[\d.,]+ [A-Za-z]{2,3}", shape) else "address"


def _joined_number(shape: str, digits: int, bones: str, start: int) -> str:
    if re.fullmatch(r"\d{1,5}[xX]", shape):
        return "quantity"
    if re.fullmatch(r"\d[\d,.]*-?[A-Za-z]{1,6}", shape):
        return "measure"
    if _mixed(shape):
        return "id" if len(shape) >= 5 else "measure"
    # 978-3-16 and 10.0.0.12 are ids; 2019-2023 is a range, unless it is said to be one
    long = digits >= 6 and len(re.findall(r"\d+", shape)) > 2
    return "id" if long or _ID_BEFORE.search(bones[max(0, start - _CONTEXT) : start]) else "measure"


def _is_phone(shape: str) -> bool:
    if shape[0] == "0" and sum(c.isdigit() for c in shape) < 9:
        return False
    grouped = shape[0] in "+(0" or " " in shape or shape.count("-") == 2 or shape.count(".") == 2
    return bool(grouped and _PHONE.fullmatch(shape))


def _plain_number(shape: str, bones: str, start: int, end: int) -> str | None:
    before = bones[max(0, start - _CONTEXT) : start]
    plain = shape.isdigit()
    if plain and len(shape) == 10 and shape[0] in "023456789":
        return "phone"
    if plain and len(shape) == 5 and _ZIP_BEFORE.search(before):
        return "zip"
    if bones[end : end + 1] in (".", ")") and len(shape) <= 2 and _LIST_NUMBER.search(before):
        return None  # 1. of a list
    numbered = _ID_BEFORE.search(before) if plain and len(shape) >= 3 else None
    if numbered and not _ORDERS.match(numbered[0]):
        return "id"
    if _is_counted(bones, end):
        return "quantity"
    if numbered:
        return "id"
    if plain and len(shape) >= 7:
        return "id"
    return "number"


def _is_counted(bones: str, end: int) -> bool:
    """Whether the plural of something follows a number: ``3 boxes``, ``3 small boxes``."""
    match = _COUNTED_AFTER.match(bones, end)
    return match is not None and not FUNCTION_WORDS & {match[1] or "", match[2]}


def _wordlike(shape: str, bones: str, start: int) -> str | None:
    """Return the type of a candidate that begins with a letter and has a digit or a joint."""
    digits = sum(c.isdigit() for c in shape)
    if " " in shape:
        return _spaced_word(shape)
    if _CODED.match(shape):
        return "money"
    if re.fullmatch(r"[xX]\d{1,5}", shape):
        return "quantity"
    if digits == 0:
        return "phrase" if shape[0].isupper() and "_" not in shape else None
    if digits >= 2 and (len(shape) >= 5 or shape.isupper()) and not _is_label(bones, start, shape):
        return "id"
    if len(shape) >= 6 and shape.isupper() and shape.isalnum() and not shape[-1].isdigit():
        return "id"  # XKQ7PL, but not WINDOWS7
    return "phrase" if "-" in shape and shape[0].isupper() else None


def _spaced_word(shape: str) -> str:
    if _CODED.match(shape):
        return "money"
    if _POSTCODE.fullmatch(shape):
        return "zip"
    if _FLIGHT.fullmatch(shape):
        return "id"
    if _ACCOUNT.fullmatch(shape):
        return "id"
    if not _has_digit(shape):
        return "phrase"
    if _has_month(shape):
        return "date"
    head = shape.split(" ", 1)[0].rstrip(".").lower()
    if head in ("suite", "ste", "apt", "apartment", "unit", "room"):
        return "suite"
    return "phrase"


def _is_label(bones: str, start: int, shape: str) -> bool:
    """Whether a joined word with a digit names a field: address1, item_2."""
    stripped = shape.rstrip("0123456789")
    plain = stripped.islower() and stripped.replace("_", "").isalpha()
    return plain and len(shape) - len(stripped) <= 2


def _has_digit(shape: str) -> bool:
    return any(c.isdigit() for c in shape)


def _mixed(shape: str) -> bool:
    return _has_digit(shape) and any(c.isalpha() for c in shape)


def _has_month(shape: str) -> bool:
    return any(is_month(word) for word in re.findall(r"[A-Za-z]{3,10}", shape))
