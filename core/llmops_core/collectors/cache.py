"""The collector ``cache``: which part of a model call's input came from the provider's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = ["CacheCollector"]


class CacheCollector:
    """Measures ``cache_hit_rate``, from 0 to 1, of calls whose provider tells cached tokens."""

    name = "cache"

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[float | None]]:
        """Return the share of each span's input tokens that was read from a cache."""
        return {"cache_hit_rate": [_hit_rate(row) for row in batch.rows]}


def _hit_rate(row: Span) -> float | None:
    read, total = row.cache_read_tokens, row.input_tokens
    if read is None or not total or read < 0:
        return None
    return min(1.0, read / total)


def _make(argument: str) -> CacheCollector:
    if argument:
        raise ConfigError(f"collector 'cache:{argument}'", "expected no argument", "'cache'")
    return CacheCollector()


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the collector."""
    registry.collector("cache", _make)
