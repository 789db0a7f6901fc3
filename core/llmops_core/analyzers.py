"""The built-in analyzers, registered as a third party's: ``monitor.analyze("agents", since="1d")``.

Each makes one table of the spans that it is given; those should be whole traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.plugins import Factory, Registry

__all__ = ["MultiAgentAnalyzer", "llmops_register"]

TABLES = ("agents", "edges", "drift")


class MultiAgentAnalyzer:
    """Makes one of the tables of agents that worked together. Pure; keeps no state."""

    def __init__(self, table: str) -> None:
        self._table = table

    def analyze(self, spans: pa.Table) -> pa.Table:
        """Return the table; one without rows where no agent worked."""
        from llmops_core.analysis.agents import agents_to_arrow
        from llmops_core.analysis.drift import drift_to_arrow
        from llmops_core.analysis.edges import edges_to_arrow
        from llmops_core.analysis.multi_agent import MultiAgent

        total = MultiAgent(drift=self._table != "agents")
        found = total.add_arrow(spans)
        if self._table == "agents":
            return agents_to_arrow(total.agents())
        return (
            edges_to_arrow(total.edges()) if self._table == "edges" else drift_to_arrow(found.drift)
        )


def _factory(table: str) -> Factory:
    def make(argument: str) -> MultiAgentAnalyzer:
        if argument:
            raise ConfigError(f"analyzer {table}:{argument}", "no argument", f"name it {table!r}")
        return MultiAgentAnalyzer(table)

    return make


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register an analyzer for each table."""
    for table in TABLES:
        registry.analyzer(table, _factory(table))
