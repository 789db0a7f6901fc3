"""Monitors LangGraph: ``monitor_graph(graph)`` returns a copy of a graph that records its runs."""

from __future__ import annotations

from llmops_integrations.langgraph.handler import LangGraphHandler
from llmops_integrations.langgraph.monitor_graph import monitor_graph

__all__ = ["LangGraphHandler", "monitor_graph"]
