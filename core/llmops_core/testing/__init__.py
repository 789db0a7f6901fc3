"""Conformance suites and pytest fixtures that authors of plugins and handlers import."""

from __future__ import annotations

from llmops_core.testing.handler import SCENARIOS, HandlerConformance, Reply, Scenario
from llmops_core.testing.tree import span_tree

__all__ = ["SCENARIOS", "HandlerConformance", "Reply", "Scenario", "span_tree"]
