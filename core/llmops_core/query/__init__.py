"""The query description, and its compilers (one module for each dialect)."""

from llmops_core.query.description import (
    AGGREGATES,
    OPERATORS,
    Aggregate,
    Filter,
    Order,
    SpanQuery,
    micros,
)

__all__ = ["AGGREGATES", "OPERATORS", "Aggregate", "Filter", "Order", "SpanQuery", "micros"]
