"""The collector ``tokens``: counts the tokens of model calls whose provider told none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl
from llmops_core.measuring.request import MODES, Strategy, make_strategy
from llmops_core.measuring.spans import columns_of, token_values

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry

__all__ = ["TokensCollector"]


class TokensCollector:
    """Fills ``input_tokens``, ``output_tokens`` and ``usage_source`` of ``llm`` spans without them."""

    name = "tokens"

    def __init__(self, strategy: Strategy | None = None) -> None:
        self._strategy = strategy or Strategy(mode="token")

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[Any]]:
        """Return counts for each model call that has none. Called on a helper thread."""
        return columns_of(
            [token_values(row, self._strategy) if row.kind == "llm" else {} for row in batch.rows]
        )


def _make(argument: str) -> TokensCollector:
    if argument and argument not in MODES:
        raise ConfigError(
            f"collector 'tokens:{argument}'", "expected one of " + ", ".join(MODES), "'tokens'"
        )
    return TokensCollector(make_strategy(argument) if argument else None)  # type: ignore[arg-type]


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the collector."""
    registry.collector("tokens", _make)
