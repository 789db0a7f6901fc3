"""Spans in a table of PostgreSQL."""

from llmops_core.storage.postgres.storage import PostgresStorage, llmops_register

__all__ = ["PostgresStorage", "llmops_register"]
