"""A chat model that answers from a script, as fast or slow as it is told, and reports its usage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

__all__ = ["Script", "ScriptedModel"]

#: From the messages so far to the next one.
Script = Callable[[list[BaseMessage]], AIMessage]


class ScriptedModel(BaseChatModel):
    """Answers from ``script`` after ``latency_s`` seconds, and counts words as tokens."""

    model: str = "scripted-1"
    script: Script
    latency_s: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.latency_s:
            time.sleep(self.latency_s)
        reply = self.script(messages)
        used = sum(_words(m) for m in messages)
        made = _words(reply)
        usage = UsageMetadata(input_tokens=used, output_tokens=made, total_tokens=used + made)
        reply = reply.model_copy(
            update={"usage_metadata": usage, "response_metadata": {"model_name": self.model}}
        )
        return ChatResult(generations=[ChatGeneration(message=reply)])


def _words(message: BaseMessage) -> int:
    calls = getattr(message, "tool_calls", [])
    return len(str(message.content).split()) + sum(2 + 2 * len(c["args"]) for c in calls) + 1
