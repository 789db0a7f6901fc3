"""Conformance suites and pytest fixtures that authors of plugins and handlers import."""

# ruff: noqa: E402 - the suites are imported once pytest knows them

from __future__ import annotations

import pytest

for _suite in (
    "analyzer",
    "collector",
    "extractor",
    "exporter",
    "handler",
    "storage",
    "storage_groups",
):
    # Before they are imported, so that a failing suite shows both sides of its comparison.
    pytest.register_assert_rewrite(f"{__name__}.{_suite}")

from llmops_core.render.span_tree import span_tree
from llmops_core.testing.analyzer import AnalyzerConformance
from llmops_core.testing.collector import CollectorConformance
from llmops_core.testing.exporter import ExporterConformance
from llmops_core.testing.extractor import EntityExtractorConformance
from llmops_core.testing.handler import (
    AGENT_SCENARIOS,
    SCENARIOS,
    HandlerConformance,
    Reply,
    Scenario,
)
from llmops_core.testing.spans import full_span, make_batch, make_span
from llmops_core.testing.storage import StorageConformance

__all__ = [
    "AGENT_SCENARIOS",
    "SCENARIOS",
    "AnalyzerConformance",
    "CollectorConformance",
    "EntityExtractorConformance",
    "ExporterConformance",
    "HandlerConformance",
    "Reply",
    "Scenario",
    "StorageConformance",
    "full_span",
    "make_batch",
    "make_span",
    "span_tree",
]
