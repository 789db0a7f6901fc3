"""Crews, flows and models that answer from a script: no network, no keys, the same each time."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any, Final

from crewai import Agent, Crew, Process, Task
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import BaseLLM, llm_call_context
from crewai.tools import BaseTool
from pydantic import BaseModel, Field, PrivateAttr

USAGE: Final = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def final(text: str) -> str:
    """What a ReAct agent's model says when it is done."""
    return f"Thought: I know.\nFinal Answer: {text}"


def act(tool: str, **arguments: Any) -> str:
    """What a ReAct agent's model says when it wants a tool."""
    return f"Thought: I need it.\nAction: {tool}\nAction Input: {json.dumps(arguments)}"


def call(name: str, call_id: str = "call-1", **arguments: Any) -> list[dict[str, Any]]:
    """What a model with native tool calls answers when it wants a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return [{"id": call_id, "type": "function", "function": function}]


class ScriptedLLM(BaseLLM):
    """Answers from *replies*, and reports as the providers' classes do."""

    replies: list[Any] = Field(default_factory=list)
    usage: Any = USAGE
    native: bool = False
    pieces: bool = False
    silent: bool = False
    seconds: float = 0.0
    _calls: int = PrivateAttr(default=0)
    _began: Any = PrivateAttr(default_factory=threading.Event)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, **data: Any) -> None:
        super().__init__(**{"model": "scripted-1", **data})

    def __deepcopy__(self, memo: Any) -> ScriptedLLM:
        return self

    def __copy__(self) -> ScriptedLLM:
        return self

    def wait_until_at_work(self) -> None:
        assert self._began.wait(30)

    def supports_function_calling(self) -> bool:
        return self.native

    def _next(self) -> Any:
        with self._lock:
            reply = self.replies[self._calls % len(self.replies)]
            self._calls += 1
        return reply

    def call(self, messages: Any, tools: Any = None, callbacks: Any = None, **more: Any) -> Any:
        who = {"from_task": more.get("from_task"), "from_agent": more.get("from_agent")}
        if self.silent:
            return self._next()
        with llm_call_context():
            self._emit_call_started_event(messages=messages, tools=tools, **who)
            self._began.set()
            if self.seconds:
                time.sleep(self.seconds)
            reply = self._next()
            if isinstance(reply, BaseException):
                self._emit_call_failed_event(error=str(reply), **who)
                raise reply
            if self.pieces:
                for piece in str(reply).split(" "):
                    self._emit_stream_chunk_event(chunk=piece + " ", **who)
            self._track_token_usage_internal(self.usage or {})
            kind = LLMCallType.TOOL_CALL if isinstance(reply, list) else LLMCallType.LLM_CALL
            self._emit_call_completed_event(
                response=reply, call_type=kind, messages=messages, usage=self.usage, **who
            )
            return reply

    async def acall(self, messages: Any, tools: Any = None, **more: Any) -> Any:
        return await asyncio.to_thread(self.call, messages, tools, **more)


class SearchArguments(BaseModel):
    query: str


class Search(BaseTool):
    name: str = "search"
    description: str = "Searches the notes."
    args_schema: type[BaseModel] = SearchArguments

    def _run(self, query: str) -> str:
        return f"notes about {query}"


class Broken(BaseTool):
    name: str = "broken"
    description: str = "Fails."
    args_schema: type[BaseModel] = SearchArguments

    def _run(self, query: str) -> str:
        raise TimeoutError(f"no answer about {query}")


def agent(role: str, *replies: Any, **more: Any) -> Agent:
    llm = more.pop("llm", None) or ScriptedLLM(
        replies=list(replies) or [final(f"{role} is done")],
        **{k: more.pop(k) for k in ("native", "pieces", "usage", "silent", "seconds") if k in more},
    )
    return Agent(role=role, goal="work", backstory="a test", llm=llm, **more)


def task(name: str, worker: Agent | None = None, **more: Any) -> Task:
    fields = {"description": f"Do {name}.", "expected_output": "a text", "agent": worker}
    return Task(name=name, **{**fields, **more})


def crew(*tasks: Task, name: str = "crew", **more: Any) -> Crew:
    agents = more.pop("agents", None) or list(
        {id(t.agent): t.agent for t in tasks if t.agent}.values()
    )
    return Crew(name=name, agents=agents, tasks=list(tasks), **more)


__all__ = [
    "Broken",
    "Process",
    "ScriptedLLM",
    "Search",
    "act",
    "agent",
    "call",
    "crew",
    "final",
    "task",
]
