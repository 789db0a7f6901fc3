"""Measures one text: characters, words, bytes, lines and tokens, and how sure the tokens are."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from llmops_core.errors import ConfigError
from llmops_core.measuring.counting import counter_for
from llmops_core.measuring.encodings import encoding_of, family_of
from llmops_core.measuring.estimating import estimate_tokens
from llmops_core.measuring.request import Measurement, Strategy, make_strategy
from llmops_core.measuring.texts import text_of_value

__all__ = [
    "Reliability",
    "TextMeasurement",
    "TokenMetadata",
    "count_tokens",
    "measure_text",
    "measure_text_sync",
    "wants_tokens",
]

#: Characters that the slowest counter takes in a millisecond, roundly: what a timeout allows.
CHARS_PER_MS: Final = 500
_MAX_DEPTH: Final = 32


class Reliability(enum.Enum):
    """How sure a token count is."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    #: No tokens were counted: the mode is ``capacity``, or no estimate was wanted.
    NONE = "none"


class TokenMetadata(msgspec.Struct, frozen=True):
    """How the tokens were counted."""

    reliability: Reliability
    #: The encoding counted in, or that the estimate is like.
    encoding: str | None = None
    #: ``openai``, ``claude`` …; None for a model that is not known.
    family: str | None = None


class TextMeasurement(msgspec.Struct, frozen=True):
    """The measures of one text. ``total_tokens`` is None where none were counted."""

    char_count: int
    word_count: int
    byte_size: int
    line_count: int
    total_tokens: int | None
    metadata: TokenMetadata


async def measure_text(
    text: object, mode: Measurement = "auto", context: Mapping[str, object] | None = None
) -> TextMeasurement:
    """Measure a text without blocking the event loop. ``context={"model": ...}`` names the model.

    Messages, lists and objects are measured by the rule of :mod:`llmops_core.measuring.texts`.
    With ``async_tokenization`` off it runs on the event loop's own thread; with ``parallel_hybrid``
    the two measures of ``hybrid`` are taken at the same time.
    """
    strategy = make_strategy(mode)
    model = _model_of(context)
    plain = _text_of(text)
    if not strategy.async_tokenization:
        return _taken(plain, model, strategy)
    if strategy.mode == "hybrid" and strategy.parallel_hybrid:
        counting = asyncio.to_thread(_tokens, plain, model, strategy)
        told, sizes = await asyncio.gather(counting, asyncio.to_thread(capacities, plain))
        return _measured(told, sizes)
    return await asyncio.to_thread(_taken, plain, model, strategy)


def measure_text_sync(
    text: object, mode: Measurement = "auto", context: Mapping[str, object] | None = None
) -> TextMeasurement:
    """:func:`measure_text`, on the caller's thread. Whatever the text, it does not raise."""
    return _taken(_text_of(text), _model_of(context), make_strategy(mode))


def _model_of(context: Mapping[str, object] | None) -> str | None:
    if context is not None and not isinstance(context, Mapping):
        raise ConfigError(
            f"context={context!r}", "expected a mapping", "write context={'model': 'gpt-4o'}"
        )
    model = (context or {}).get("model")
    return model if isinstance(model, str) else None


def _text_of(given: object, depth: int = 0) -> str:
    """Return the measured text of messages, lists and objects: that of their ``content`` or ``text``."""
    if isinstance(given, str):
        return given
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(given, list | tuple):
        return "\n".join(filter(None, (_text_of(item, depth + 1) for item in given)))
    if isinstance(given, dict):
        return text_of_value(given)
    content = getattr(given, "content", None) or getattr(given, "text", None)
    return _text_of(content, depth + 1) if isinstance(content, str | list | tuple | dict) else ""


def _tokens(text: str, model: str | None, strategy: Strategy) -> tuple[int | None, TokenMetadata]:
    if wants_tokens(strategy, model):
        return count_tokens(text, model, strategy)
    return None, TokenMetadata(Reliability.NONE, None, family_of(model))


def _taken(text: str, model: str | None, strategy: Strategy) -> TextMeasurement:
    return _measured(_tokens(text, model, strategy), capacities(text))


def _measured(told: tuple[int | None, TokenMetadata], sizes: dict[str, int]) -> TextMeasurement:
    tokens, metadata = told
    return TextMeasurement(**sizes, total_tokens=tokens, metadata=metadata)


def capacities(text: str) -> dict[str, int]:
    """Return characters, words, bytes and lines by their published names."""
    return {
        "char_count": len(text),
        "word_count": len(text.split()),
        "byte_size": len(text) if text.isascii() else len(text.encode(errors="replace")),
        "line_count": text.count("\n") + 1 if text else 0,
    }


def wants_tokens(strategy: Strategy, model: str | None) -> bool:
    """Whether a mode counts tokens: ``auto`` does so for models that are known."""
    if strategy.mode == "auto":
        return strategy.prefer_tokens and family_of(model) is not None
    return strategy.mode != "capacity"


def count_tokens(
    text: str, model: str | None, strategy: Strategy
) -> tuple[int | None, TokenMetadata]:
    """Return the tokens of a text for a model, exact where that can be had in time."""
    encoding, family = encoding_of(model), family_of(model)
    limit = strategy.tokenization_timeout_ms
    in_time = limit is None or len(text) <= limit * CHARS_PER_MS
    counter = counter_for(encoding) if encoding is not None and in_time else None
    if counter is not None:
        try:
            return counter(text), TokenMetadata(Reliability.EXACT, encoding, family)
        except ValueError:  # a panic: the estimate serves
            pass
    if not strategy.fallback_enabled:
        return None, TokenMetadata(Reliability.NONE, encoding, family)
    like = encoding or "o200k_base"
    return estimate_tokens(text, like), TokenMetadata(Reliability.ESTIMATED, like, family)
