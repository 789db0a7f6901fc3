"""The measures of a stored span: its measured text, and its tokens where no provider told them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmops_core.measuring.measure import Reliability, capacities, count_tokens, wants_tokens
from llmops_core.measuring.request import Strategy
from llmops_core.measuring.texts import text_of
from llmops_core.span import Span

__all__ = ["columns_of", "part_cut", "text_values", "token_values"]


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return what each span got as columns, as a collector returns them."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def text_values(row: Span, measures: Sequence[str]) -> dict[str, Any]:
    """Return the capacities of the measured output, by their published names."""
    text = text_of(row.output)
    if text is None:
        return {}
    found = capacities(text)
    return {name: found[name] for name in measures}


def token_values(row: Span, strategy: Strategy) -> dict[str, Any]:
    """Return tokens of input and output, and where they come from. What was told or counted stays."""
    if row.usage_source in ("provider", "counted") or not wants_tokens(strategy, row.model):
        return {}
    counts: dict[str, Any] = {}
    exact = True
    for side in ("input", "output"):
        text = text_of(getattr(row, side))
        if text is None:
            continue
        tokens, metadata = count_tokens(text, row.model, strategy)
        if tokens is None:
            return {"usage_source": "missing"}
        missing = part_cut(row, side)
        exact = exact and metadata.reliability is Reliability.EXACT and missing is None
        counts[f"{side}_tokens"] = tokens if missing is None else round(tokens * missing)
    if not counts:
        return {}
    return {**counts, "usage_source": "counted" if exact else "estimated"}


def part_cut(row: Span, side: str) -> float | None:
    """Return how much larger the original was than what is stored; None if nothing was cut."""
    if not getattr(row, f"{side}_truncated"):
        return None
    stored = len((getattr(row, side) or "").encode())
    size = getattr(row, f"{side}_size") or 0
    return size / stored if stored and size > stored else 1.0
