"""The handler that LangChain is given for every run of the process."""

from __future__ import annotations

from llmops_integrations.instrumenting.attached import Attached
from llmops_integrations.langchain import LLMOpsCallbackHandler

__all__ = ["EverywhereHandler"]


class EverywhereHandler(LLMOpsCallbackHandler, Attached):
    """Records as a handler that is passed to a call. LangGraph's pauses reach it another way."""
