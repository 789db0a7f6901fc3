"""A support desk of several agents, with a scripted model: what ``llmops demo`` runs.

Needs langgraph (the ``demo`` extra), no key and no network.
"""

from __future__ import annotations

from llmops_core import Monitor
from llmops_integrations.demo.conversations import CONVERSATIONS, Conversation, hold
from llmops_integrations.demo.measure import Cost, measure
from llmops_integrations.demo.support_graph import support_desk
from llmops_integrations.langgraph import LangGraphHandler

__all__ = ["CONVERSATIONS", "Conversation", "Cost", "handler", "hold", "measure", "support_desk"]


def handler(monitor: Monitor) -> LangGraphHandler:
    """Return the callback handler that the demo's conversations are held with."""
    return LangGraphHandler(monitor=monitor)
