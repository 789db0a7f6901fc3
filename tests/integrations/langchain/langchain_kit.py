"""Scripted models, tools and a recorder that only remembers: no network, no monitor."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
from collections import defaultdict
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    LLMResult,
)
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from pydantic import Field, PrivateAttr

from llmops_core.testing import Reply
from llmops_integrations.langchain import LLMOpsCallbackHandler


class ScriptedModel(BaseChatModel):
    """Answers from a script, the last reply for ever; tells usage, streams, fails and hangs."""

    model: str = "scripted-1"
    replies: list[Any] = Field(default_factory=list)
    #: Take the reply by the answers in the history, so that concurrent calls do not share a script.
    by_history: bool = False
    _turns: Any = PrivateAttr(default_factory=itertools.count)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _next(self, messages: list[Any]) -> Any:
        said = sum(isinstance(m, AIMessage) for m in messages)
        turn = said if self.by_history else next(self._turns)
        reply = self.replies[min(turn, len(self.replies) - 1)]
        if isinstance(reply, Reply) and reply.error:
            raise RuntimeError(reply.error)
        return reply

    @staticmethod
    def _usage(reply: Reply) -> dict[str, int]:
        total = reply.input_tokens + reply.output_tokens
        return {
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "total_tokens": total,
        }

    def _answer(self, reply: Any) -> ChatResult:
        message = reply
        if isinstance(reply, Reply):
            message = AIMessage(reply.text, usage_metadata=self._usage(reply))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, reply: Any) -> list[ChatGenerationChunk]:
        words = [w + " " for w in reply.text.split(" ")]
        chunks = [AIMessageChunk(content=w) for w in words]
        chunks.append(AIMessageChunk(content="", usage_metadata=self._usage(reply)))
        return [ChatGenerationChunk(message=c) for c in chunks]

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return self._answer(self._next(messages))

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        reply = self._next(messages)
        if isinstance(reply, Reply) and reply.hangs:
            await asyncio.sleep(3600)
        await asyncio.sleep(0)
        return self._answer(reply)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self._chunks(self._next(messages)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for chunk in self._chunks(self._next(messages)):
            await asyncio.sleep(0)
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=[{"name": t.name} for t in tools], **kwargs)


def scripted(*replies: Any, **kwargs: Any) -> ScriptedModel:
    """A chat model that answers with these replies, texts or messages."""
    made = [Reply(r) if isinstance(r, str) else r for r in replies] or [Reply("fine")]
    return ScriptedModel(replies=made, **kwargs)


class CompletionModel(BaseLLM):
    """Text in, text out."""

    model_name: str = "scripted-1"
    text: str = "It is 4."

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, prompts, stop=None, run_manager=None, **kwargs):
        return LLMResult(generations=[[Generation(text=self.text)] for _ in prompts])


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def divide(a: int, b: int) -> float:
    """Divide a number by another."""
    return a / b


class Notes(BaseRetriever):
    """Finds one note."""

    fails: bool = False

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        if self.fails:
            raise RuntimeError("no index")
        return [Document("note on " + query)]


class FakeRecorder:
    """Has the methods of the monitor's recorder and keeps what it is told."""

    stops = False

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int | None, dict[str, Any]]] = []
        self.failures: list[tuple[str, BaseException]] = []
        self.skipped = 0
        self.promotable: set[int] = set()
        self.frozen = 0
        self._lock = threading.Lock()

    def start(self, run_id, parent_run_id, fields, promotable=False):
        if promotable:
            self.promotable.add(run_id)
        self.events.append(("start", run_id, parent_run_id, fields))

    def end(self, run_id, parent_run_id, fields):
        self.events.append(("end", run_id, parent_run_id, fields))

    def mark(self, run_id):
        self.events.append(("mark", run_id, None, {}))

    def point(self, run_id, parent_run_id, fields):
        self.events.append(("point", run_id, parent_run_id, fields))

    def handoff(self, run_id, fields):
        self.events.append(("handoff", run_id, None, fields))

    def promote(self, run_id):
        self.events.append(("promote", run_id, None, {}))

    def skip(self):
        with self._lock:
            self.skipped += 1

    def freeze(self, value):
        self.frozen += 1
        try:
            return copy.deepcopy(value)
        except Exception:
            return value

    def report(self, where, error):
        self.failures.append((where, error))

    # ---- reading ----

    def of(self, what: str) -> list[dict[str, Any]]:
        return [fields for event, _, _, fields in self.events if event == what]

    def tree(self) -> str:
        """The runs as an indented tree, in order of their starts."""
        ends = {run: f for e, run, _, f in self.events if e == "end"}
        children = defaultdict(list)
        for event, run, parent, fields in self.events:
            if event in ("start", "point"):
                children[parent].append((run, fields))
        lines: list[str] = []

        def draw(parent: int | None, depth: int) -> None:
            for run, fields in children[parent]:
                outcome = ends.get(run, fields).get("outcome", "open")
                agent = f" [{fields['agent']}]" if "agent" in fields else ""
                lines.append(f"{'  ' * depth}{fields['kind']} {fields['name']}{agent} {outcome}")
                draw(run, depth + 1)

        draw(None, 0)
        return "\n".join(lines)


class FakeMonitor:
    """A monitor that is only a recorder."""

    def __init__(self) -> None:
        self.recorder = FakeRecorder()


def recording(**kwargs: Any) -> tuple[LLMOpsCallbackHandler, FakeRecorder, dict[str, Any]]:
    """A handler, what it records, and a config that attaches it."""
    monitor = FakeMonitor()
    handler = LLMOpsCallbackHandler(monitor, **kwargs)
    return handler, monitor.recorder, {"callbacks": [handler]}


def failures_of_ours(monitor: Any) -> dict[str, int]:
    """What a monitor counted of handlers. A loaded machine may let a collector miss a deadline."""
    failures = monitor.stats()["failures"]
    return {what: count for what, count in failures.items() if what.startswith("handler")}
