"""An estimate of tokens where no exact count can be had, and how wrong it is.

Each character counts by its sort; the weights were fitted to ``cl100k_base`` and ``o200k_base``.
``python benchmarks/tokens.py`` prints the errors; docs/measuring.md tells what they mean for models
whose vocabulary nobody publishes.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["SAMPLE_CHARS", "estimate_tokens", "features"]

#: Longer texts are sampled at their start, middle and end.
SAMPLE_CHARS: Final = 60_000

_WORD: Final = re.compile(r"[A-Za-z]+")
_DIGITS: Final = re.compile(r"[0-9]{1,3}")
_MARKS: Final = re.compile(r"[!-/:-@\[-`{-~]+")
_BREAKS: Final = re.compile(r"\s*\n\s*|  +|\t+")
_IDEOGRAMS: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_LATIN: Final = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
_CYRILLIC: Final = re.compile("[\u0370-\u052f]")
_SYMBOLS: Final = re.compile("[\u2010-\u2bff\U0001f000-\U0001faff]")
_OTHER: Final = re.compile(r"[^\x00-\x7f\s]")

#: Tokens for one of each: fitted, see benchmarks/tokens.py.
_WEIGHTS: Final[dict[str, dict[str, float]]] = {
    "cl100k_base": {"short": 1.1, "long": 0.38, "digits": 1.4, "marks": 0.68, "breaks": 1.05,
                    "ideograms": 1.15, "latin": 0.9, "cyrillic": 0.7, "symbols": 1.9, "other": 1.0},
    "o200k_base": {"short": 1.0, "long": 0.45, "digits": 1.4, "marks": 0.78, "breaks": 1.2,
                   "ideograms": 0.85, "latin": 0.4, "cyrillic": 0.37, "symbols": 1.9, "other": 0.4},
}  # fmt: skip
#: Letters of an English word that mostly are one token.
_ONE_TOKEN_LETTERS: Final = 8

#: Marks in a row, and blanks in a row, that at most are one token.
_MARKS_OF_A_TOKEN: Final = 12
_BLANKS_OF_A_TOKEN: Final = 80


def estimate_tokens(text: str, like: str = "o200k_base") -> int:
    """Return about how many tokens a text has for a model like those of an encoding.

    Takes a few milliseconds at most, whatever the text.
    """
    if not text:
        return 0
    if len(text) > SAMPLE_CHARS:
        part = SAMPLE_CHARS // 3
        middle = len(text) // 2 - part // 2
        sample = text[:part] + text[middle : middle + part] + text[-part:]
        return round(_estimate(sample, like) * len(text) / len(sample))
    return max(1, round(_estimate(text, like)))


def _estimate(text: str, like: str) -> float:
    weights = _WEIGHTS.get(like) or _WEIGHTS["o200k_base"]
    found = features(text)
    return sum(weights[name] * count for name, count in found.items())


def _runs(found: list[str], longest: int) -> int:
    """Return how many runs there are; one that no vocabulary has as a whole counts as several."""
    return sum(1 + len(run) // longest for run in found)


def features(text: str) -> dict[str, float]:
    """Return how many of each sort of characters there are."""
    words = _WORD.findall(text)
    found: dict[str, float] = {
        "short": len(words),
        "long": sum(max(0, len(word) - _ONE_TOKEN_LETTERS) for word in words),
        "digits": len(_DIGITS.findall(text)),
        "marks": _runs(_MARKS.findall(text), _MARKS_OF_A_TOKEN),
        "breaks": _runs(_BREAKS.findall(text), _BLANKS_OF_A_TOKEN),
    }
    if not text.isascii():
        sorts = {
            "ideograms": _IDEOGRAMS,
            "latin": _LATIN,
            "cyrillic": _CYRILLIC,
            "symbols": _SYMBOLS,
        }
        counts = {name: len(pattern.findall(text)) for name, pattern in sorts.items()}
        found |= {**counts, "other": len(_OTHER.findall(text)) - sum(counts.values())}
    return found
