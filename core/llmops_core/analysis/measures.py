"""Figures that say how sure they are: a value, its interval, and how many observations it is of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

__all__ = ["MINIMUM", "Measure", "mean", "quantile", "share", "spread_of"]

#: Fewer observations give no value: "not enough data".
MINIMUM: Final = 5
_Z: Final = 1.959964  # 95 % of a normal distribution


class Measure(NamedTuple):
    """A figure with its 95 % interval; no value where there is not enough data."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def enough(self) -> bool:
        """Whether there is a value."""
        return self.value is not None


def share(hits: float, n: int, minimum: int = MINIMUM) -> Measure:
    """Return a share with its Wilson interval, which stays between 0 and 1 also at the ends."""
    if n < max(1, minimum):
        return Measure(None, None, None, n)
    p, z2 = hits / n, _Z * _Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    spread = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the interval reaches the share itself; rounding must not leave it outside.
    return Measure(p, max(0.0, min(p, centre - spread)), min(1.0, max(p, centre + spread)), n)


def quantile(values: Sequence[float], q: float, minimum: int = MINIMUM) -> Measure:
    """Return a quantile, and the order statistics that hold it with 95 % confidence."""
    n = len(values)
    if n < max(1, minimum):
        return Measure(None, None, None, n)
    ordered = sorted(values)
    spread = _Z * math.sqrt(n * q * (1 - q))
    low = max(0, math.floor(n * q - spread) - 1)
    high = min(n - 1, math.ceil(n * q + spread) - 1)
    place = q * (n - 1)
    below = int(place)
    above = min(below + 1, n - 1)
    value = ordered[below] + (ordered[above] - ordered[below]) * (place - below)
    return Measure(value, min(value, ordered[low]), max(value, ordered[high]), n)


def spread_of(values: Sequence[float]) -> tuple[float, float]:
    """Return the median and the MAD, scaled to a normal distribution's standard deviation."""
    if not values:
        return 0.0, 0.0
    middle = median(values)
    return middle, 1.4826 * median(abs(value - middle) for value in values)


def mean(values: Sequence[float], minimum: int = MINIMUM) -> Measure:
    """Return a mean with the interval of its standard error."""
    n = len(values)
    if n < max(1, minimum):
        return Measure(None, None, None, n)
    middle = math.fsum(values) / n
    variance = math.fsum((v - middle) ** 2 for v in values) / max(1, n - 1)
    spread = _Z * math.sqrt(variance / n)
    return Measure(middle, middle - spread, middle + spread, n)
