"""The collector ``capacity``: how much text each span read and wrote.

The counting rules are those of :mod:`llmops_core.capacity`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llmops_core.batch import ArrowValues
from llmops_core.capacity import SIDES, capacity_columns
from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry

__all__ = ["CapacityCollector"]


class CapacityCollector:
    """Fills the eight text columns of the ``capacity`` group. Pure; keeps no state."""

    name = "capacity"

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[int | None]]:
        """Return the counts of every span; ``None`` where there is no text.

        Called on a helper thread. Computes outside of the interpreter lock, so it takes next to
        nothing from the threads of the application.
        """
        import pyarrow as pa

        values: dict[str, Sequence[int | None]] = {}
        for side in SIDES:
            text = pa.chunked_array([batch.column(side)])
            for name, counted in capacity_columns(side, text).items():
                values[name] = ArrowValues(counted.combine_chunks())
        return values


def _make(argument: str) -> CapacityCollector:
    if argument:
        raise ConfigError(f"collector 'capacity:{argument}'", "expected no argument", "'capacity'")
    return CapacityCollector()


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the collector."""
    registry.collector("capacity", _make)
