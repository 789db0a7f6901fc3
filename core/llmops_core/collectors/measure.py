"""The collector ``measure``: what decorated functions ask to be measured. It is on by default.

It looks only at spans that carry a request (``@monitor_llm(measure_text=True, ...)``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl
from llmops_core.measuring.images import image_values
from llmops_core.measuring.request import MEASURE_KEY, Request, read_request
from llmops_core.measuring.spans import columns_of, text_values, token_values

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = ["MeasureCollector"]

_request_of = lru_cache(maxsize=1024)(read_request)


class MeasureCollector:
    """Measures text, tokens and images of spans that ask for it. Keeps no state."""

    name = "measure"

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[Any]]:
        """Return the measures of every span that carries a request. Called on a helper thread."""
        if not any(values and MEASURE_KEY in values for values in batch.values("attributes")):
            return {}  # as for most: then nobody needs rows
        return columns_of([_measured(row) for row in batch.rows])


def _measured(row: Span) -> dict[str, Any]:
    asked = (row.attributes or {}).get(MEASURE_KEY)
    request = _readable(asked) if asked is not None else None
    if request is None:
        return {}
    values: dict[str, Any] = {}
    strategy = request.strategy
    if request.text and (strategy is None or strategy.mode != "token"):
        values |= text_values(row, request.text)
    if strategy is not None:
        values |= token_values(row, strategy)
    if request.images:
        values |= image_values(row, request.images)
    return values


def _readable(asked: str) -> Request | None:
    try:
        return _request_of(asked)
    except ValueError:  # an attribute of this name that is not ours
        return None


def _make(argument: str) -> MeasureCollector:
    if argument:
        raise ConfigError(f"collector 'measure:{argument}'", "expected no argument", "'measure'")
    return MeasureCollector()


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the collector."""
    registry.collector("measure", _make)
