"""Spans in a folder of Parquet files, read together with the journals' tails beside them."""

from llmops_core.storage.parquet.storage import ParquetStorage, llmops_register

__all__ = ["ParquetStorage", "llmops_register"]
