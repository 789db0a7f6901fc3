"""Closed classes that values are written with: months and currencies. They take no new members."""

from __future__ import annotations

from typing import Final

__all__ = ["CODES", "CURRENCIES", "FOREIGN_MONTHS", "SIGNS", "is_month", "month_of"]

#: Months by their first letters, without accents: English, German, French, Spanish, Italian,
#: Portuguese and Dutch. French June and July need a letter more.
_MONTHS: Final = {
    "jan": 1, "ene": 1, "gen": 1, "feb": 2, "fev": 2, "mar": 3, "maa": 3, "apr": 4, "avr": 4,
    "abr": 4, "may": 5, "mai": 5, "mag": 5, "mei": 5, "jun": 6, "giu": 6, "jul": 7, "lug": 7,
    "aug": 8, "aou": 8, "ago": 8, "sep": 9, "set": 9, "oct": 10, "okt": 10, "ott": 10, "out": 10,
    "nov": 11, "dec": 12, "dez": 12, "dic": 12,
}  # fmt: skip

#: Written out, of the other languages; only beside a day, and in either case.
FOREIGN_MONTHS: Final = (
    "januar", "februar", "marz", "mai", "juni", "juli", "oktober", "dezember", "janvier", "fevrier",
    "mars", "avril", "juin", "juillet", "aout", "septembre", "octobre", "novembre", "decembre",
    "enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre",
    "octubre", "noviembre", "diciembre", "gennaio", "febbraio", "aprile", "maggio", "giugno",
    "luglio", "settembre", "ottobre", "dicembre", "janeiro", "fevereiro", "maio", "junho",
    "julho", "setembro", "outubro", "novembro", "dezembro", "januari", "februari", "maart", "mei",
    "augustus",
)  # fmt: skip

_ENGLISH_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep",
    "sept", "oct", "nov", "dec",
)  # fmt: skip
_ALL_MONTHS: Final = frozenset((*_ENGLISH_MONTHS, *FOREIGN_MONTHS))

#: Codes of ISO 4217 that are no English words.
CODES: Final = (
    "USD", "EUR", "GBP", "JPY", "CNY", "INR", "CAD", "AUD", "NZD", "CHF", "SEK", "NOK", "DKK",
    "ISK", "PLN", "CZK", "HUF", "RON", "BGN", "UAH", "RUB", "TRY", "ILS", "AED", "SAR", "QAR", "KWD",
    "BHD", "EGP", "ZAR", "NGN", "KES", "GHS", "MAD", "BRL", "MXN", "ARS", "CLP", "COP", "UYU", "KRW",
    "TWD", "HKD", "SGD", "MYR", "THB", "IDR", "PHP", "VND", "PKR", "BDT", "LKR", "KZT",
)  # fmt: skip

#: Signs and words, as their codes. Dollars of other countries have their letters in front.
SIGNS: Final = {
    "$": "usd", "€": "eur", "£": "gbp", "¥": "jpy", "₹": "inr", "₩": "krw", "₽": "rub", "₺": "try",
    "₪": "ils", "₫": "vnd", "₴": "uah", "₦": "ngn", "₱": "php", "฿": "thb",
}  # fmt: skip
_WORDS: Final = {
    "dollar": "usd", "dollars": "usd", "bucks": "usd", "us$": "usd", "euro": "eur", "euros": "eur",
    "pounds": "gbp", "yen": "jpy", "yuan": "cny", "rupees": "inr", "francs": "chf", "pesos": "mxn",
    "reais": "brl", "rubles": "rub", "zloty": "pln", "zl": "pln", "kc": "czk", "kronor": "sek",
    "kroner": "nok", "r$": "brl", "c$": "cad", "ca$": "cad", "a$": "aud", "au$": "aud",
    "hk$": "hkd", "nz$": "nzd", "s$": "sgd", "mx$": "mxn",
}  # fmt: skip
CURRENCIES: Final = {code.lower(): code.lower() for code in CODES} | SIGNS | _WORDS


def is_month(word: str) -> bool:
    """Whether a word is a month: ``Jun`` and ``Juni``, not ``Juniper``."""
    return word.lower() in _ALL_MONTHS


def month_of(word: str) -> int | None:
    """Return the number of a month, by its first letters, without accents."""
    lowered = word[:4].lower()
    if lowered in ("juin", "juil"):
        return 6 if lowered == "juin" else 7
    return _MONTHS.get(lowered[:3])
