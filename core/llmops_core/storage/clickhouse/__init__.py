"""Spans in ClickHouse, by its HTTP interface."""

from llmops_core.storage.clickhouse.storage import ClickHouseStorage, llmops_register

__all__ = ["ClickHouseStorage", "llmops_register"]
