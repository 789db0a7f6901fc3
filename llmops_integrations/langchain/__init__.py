"""Monitors LangChain: pass an :class:`LLMOpsCallbackHandler` where a call takes callbacks."""

from __future__ import annotations

from llmops_integrations.langchain import decorated, known_types
from llmops_integrations.langchain.handler import LLMOpsCallbackHandler

__all__ = ["LLMOpsCallbackHandler"]

known_types.register()
decorated.register()
