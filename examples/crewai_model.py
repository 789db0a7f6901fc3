"""The model of the CrewAI examples: it answers from a script, and reports as real ones do."""

import os
import sys
from typing import Any

# CrewAI looks up its own servers and asks questions at its first run; the examples stay offline.
os.environ.setdefault("CREWAI_DISABLE_TELEMETRY", "true")
os.environ.setdefault("CREWAI_DISABLE_VERSION_CHECK", "true")
os.environ.setdefault("CREWAI_TESTING", "true")

try:
    from crewai.events.types.llm_events import LLMCallType
    from crewai.llms.base_llm import BaseLLM, llm_call_context
except ImportError:
    print("This example needs CrewAI; install it with: pip install 'llmops-integrations[crewai]'")
    sys.exit()


class Scripted(BaseLLM):
    """Says its *lines* one after the other. A class of your own must emit these events too."""

    lines: list[str] = []  # noqa: RUF012 - a field, which each model gets a copy of
    usage: dict[str, int] = {"prompt_tokens": 40, "completion_tokens": 12}  # noqa: RUF012

    def __init__(self, *lines: str, **settings: Any) -> None:
        super().__init__(**{"model": "scripted-1", "lines": list(lines), **settings})

    def supports_function_calling(self) -> bool:
        """Tools are asked for in the text: Action, and Action Input."""
        return False

    def call(self, messages: Any, *args: Any, **about: Any) -> str:
        """Answer with the next line."""
        who = {"from_task": about.get("from_task"), "from_agent": about.get("from_agent")}
        with llm_call_context():
            self._emit_call_started_event(messages=messages, **who)
            said = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
            self._emit_call_completed_event(
                response=said, call_type=LLMCallType.LLM_CALL, usage=self.usage, **who
            )
        return said

    async def acall(self, messages: Any, *args: Any, **about: Any) -> str:
        """Answer with the next line."""
        return self.call(messages, *args, **about)
