"""A median of ratios, and how sure it is."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

__all__ = ["interval"]


def interval(ratios: Sequence[float], rng: random.Random) -> tuple[float, float, float]:
    """Return the median and its bootstrap 95 % interval."""
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(1000))
    return statistics.median(ratios), medians[25], medians[974]
