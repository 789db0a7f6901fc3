"""The query description, and its compilers (one module for each dialect)."""

from llmops_core.query.description import (
    AGGREGATES,
    OPERATORS,
    Aggregate,
    Filter,
    Order,
    SpanQuery,
    check_selection,
    micros,
)
from llmops_core.query.duckdb_engine import run_query

__all__ = [
    "AGGREGATES",
    "OPERATORS",
    "Aggregate",
    "Filter",
    "Order",
    "SpanQuery",
    "check_selection",
    "micros",
    "run_query",
]
