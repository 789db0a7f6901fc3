"""The collector ``latency``: where the time of a model call goes, and how fast it speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = ["LatencyCollector"]


class LatencyCollector:
    """Measures ``generation_ms``, ``tokens_per_second`` and ``ttft_share`` of streamed calls.

    Generation is what comes after the first token; without a stream it is the whole call, and there
    is no share.
    """

    name = "latency"

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[float | None]]:
        """Return the three measures of each span, None where a time or a count is missing."""
        rows = [_pattern(row) for row in batch.rows]
        names = ("generation_ms", "tokens_per_second", "ttft_share")
        return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _pattern(row: Span) -> tuple[float | None, float | None, float | None]:
    total, first = row.duration_ms, row.ttft_ms
    if total is None or total <= 0 or (row.kind != "llm" and first is None):
        return None, None, None
    generation = total - (first or 0.0)
    tokens = row.output_tokens
    speed = None
    if tokens and generation > 0:
        # The first token came with the first item: the rest took the generation's time.
        speed = (tokens - 1 if first is not None else tokens) * 1000 / generation
    return generation, speed, None if first is None else first / total


def _make(argument: str) -> LatencyCollector:
    if argument:
        raise ConfigError(f"collector 'latency:{argument}'", "expected no argument", "'latency'")
    return LatencyCollector()


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the collector."""
    registry.collector("latency", _make)
