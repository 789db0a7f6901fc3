"""The handler suite's scenarios, as someone would write them with CrewAI."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable
from typing import Any, Final

from crewai.events.event_bus import crewai_event_bus
from crewai.flow.async_feedback.types import HumanFeedbackPending
from crewai.flow.flow import Flow, listen, start
from crewai.flow.human_feedback import human_feedback
from crewai.flow.persistence import SQLiteFlowPersistence
from crewai.llms.base_llm import llm_call_context
from crewai.tools import tool
from crewai_kit import ScriptedLLM, agent, call, crew, final, task
from crewai_scenarios import embed
from pydantic import PrivateAttr

__all__ = ["PLAYS", "cancel", "leave_a_stream"]


@tool("add")
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@tool("divide")
def divide(a: int, b: int) -> float:
    """Divides one number by another."""
    return a / b


def model_of(scenario: Any, *replies: Any, **more: Any) -> ScriptedLLM:
    """A model that answers as the scenario says, or with *replies*."""
    reply = scenario.replies[0] if scenario.replies else None
    told = {"prompt_tokens": 12, "completion_tokens": 3}
    if reply is not None:
        told = {"prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens}
    said = replies or [RuntimeError(r.error) if r.error else r.text for r in scenario.replies]
    fields = {"model": reply.model if reply else "scripted-1", "usage": told, "replies": list(said)}
    return ScriptedLLM(**{**fields, **more})


def error_of(run: Callable[[], Any]) -> str:
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


class HangingLLM(ScriptedLLM):
    """Tells its start, with ``pieces`` one piece too, and never an end: its caller goes first.

    From 1.14 on an agent calls it on a thread, which :meth:`release` lets go.
    """

    _released: Any = PrivateAttr(default_factory=threading.Event)

    def release(self) -> None:
        self._released.set()

    def _begin(self, messages: Any, more: dict[str, Any]) -> None:
        who = {"from_task": more.get("from_task"), "from_agent": more.get("from_agent")}
        self._emit_call_started_event(messages=messages, **who)
        if self.pieces:
            self._emit_stream_chunk_event(chunk="It ", **who)
        self._began.set()

    def call(self, messages: Any, tools: Any = None, callbacks: Any = None, **more: Any) -> Any:
        with llm_call_context():
            self._begin(messages, more)
            assert self._released.wait(60)
        return "nobody waits for it"

    async def acall(self, messages: Any, tools: Any = None, **more: Any) -> Any:
        with llm_call_context():
            self._begin(messages, more)
            await asyncio.Event().wait()


# ---- a model alone ----


def model_call(scenario: Any) -> Any:
    return model_of(scenario).call(scenario.question)


session = model_call


def model_stream(scenario: Any) -> Any:
    return model_of(scenario, pieces=True).call(scenario.question)


def completion(scenario: Any) -> Any:
    return model_of(scenario, usage=None).call(scenario.question)


def model_error(scenario: Any) -> Any:
    """In a flow: the model's own event has no type of the error, the method's has the error."""
    return error_of(desk_with(model_of(scenario), scenario).kickoff)


def desk_with(model: ScriptedLLM, scenario: Any) -> Any:
    """A flow of one method, which asks a model."""

    class Desk(Flow):  # type: ignore[type-arg]
        @start()
        def ask(self) -> Any:
            return model.call(scenario.question)

    return Desk()


# ---- tools and retrievers: an agent asks for them ----


def tool_call(scenario: Any) -> Any:
    model = model_of(scenario, call("add", a=2, b=2), "4", native=True)
    return agent("clerk", llm=model, tools=[add]).kickoff(scenario.question).raw


def tool_error(scenario: Any) -> Any:
    model = model_of(scenario, call("divide", a=1, b=0), "no", native=True)
    return agent("clerk", llm=model, tools=[divide]).kickoff(scenario.question).raw


def retrieval(scenario: Any) -> Any:
    from crewai.memory.unified_memory import Memory

    with tempfile.TemporaryDirectory() as folder:
        notes = Memory(llm=model_of(scenario, "{}"), embedder=embed, storage=folder)  # type: ignore[arg-type]
        with crewai_event_bus.scoped_handlers():  # what is written before is no part of it
            notes.remember("2 + 2 is 4", scope="/", categories=["sums"], importance=0.5)
            crewai_event_bus.flush()
        return [found.record.content for found in notes.recall(scenario.question, depth="shallow")]


def pipeline(scenario: Any) -> Any:
    answer = scenario.replies[0].text
    model = model_of(scenario, call("add", a=2, b=2), answer, native=True)
    work = task("ask", agent("clerk", llm=model, tools=[add]))
    return crew(work, name="pipeline").kickoff().raw


def parallel_tools(scenario: Any) -> Any:
    both = [*call("add", "call-1", a=1, b=2), *call("add", "call-2", a=3, b=4)]
    model = model_of(scenario, both, "3 and 7", native=True)
    work = task("ask", agent("clerk", llm=model, tools=[add]))
    return crew(work, name="parallel").kickoff().raw


# ---- tries ----


def retry(scenario: Any) -> Any:
    """CrewAI tries the agent again, not the model alone."""
    failed, answer = scenario.replies
    model = model_of(scenario, RuntimeError(failed.error), final(answer.text))
    return crew(task("ask", agent("clerk", llm=model)), name="retry").kickoff().raw


def fallback(scenario: Any) -> Any:
    """A flow whose method asks a second flow when the first fails."""
    failed, answer = scenario.replies
    first = model_of(scenario, RuntimeError(failed.error), model=failed.model)
    second = model_of(scenario, answer.text, model=answer.model)

    class fallback(Flow):  # type: ignore[type-arg]
        @start()
        def choose(self) -> Any:
            try:
                return desk_with(first, scenario).kickoff()
            except RuntimeError:
                return desk_with(second, scenario).kickoff()

    return fallback().kickoff()


# ---- left early ----


async def cancel(scenario: Any) -> None:
    """Start a crew, and cancel it while its model is at work."""
    model = HangingLLM(model=scenario.replies[0].model)
    slow = crew(task("ask", agent("clerk", llm=model)), name="slow")
    run = asyncio.create_task(slow.akickoff())
    await asyncio.to_thread(model.wait_until_at_work)
    run.cancel()
    try:
        await run
    finally:
        model.release()


def cancelled(scenario: Any) -> None:
    asyncio.run(cancel(scenario))


# ---- agents and pauses ----


def nested_agents(scenario: Any) -> Any:
    """Delegation: CrewAI makes the tool of the coworker."""
    inner, outer = (reply.text for reply in scenario.replies)
    ask = call("delegate_work_to_coworker", task="add", context="2 + 2", coworker="worker")
    model = model_of(scenario, ask, outer, native=True)
    boss = agent("boss", llm=model, allow_delegation=True)
    worker = agent("worker", llm=model_of(scenario, final(inner)))
    return crew(task("ask", boss), agents=[boss, worker], name="team").kickoff().raw


def handoff(scenario: Any) -> Any:
    """A task's output is the next one's context."""
    first, second = (model_of(scenario, final(reply.text)) for reply in scenario.replies)
    tasks = task("draft", agent("writer", llm=first)), task("edit", agent("editor", llm=second))
    return crew(*tasks, name="press").kickoff().raw


def failed_handoff(scenario: Any) -> Any:
    """The writer delegates to an editor, whom the crew has not."""
    ask = call("delegate_work_to_coworker", task="edit", context="A draft.", coworker="editor")
    model = model_of(scenario, ask, scenario.replies[0].text, native=True)
    writer = agent("writer", llm=model, allow_delegation=True)
    clerk = agent("clerk", llm=model_of(scenario, final("nobody asks")))
    return crew(task("draft", writer), agents=[writer, clerk], name="press").kickoff().raw


def interrupt(scenario: Any) -> Any:
    """A flow waits for a person, and another object of its class goes on."""

    class Later:
        def request_feedback(self, context: Any, flow: Any) -> str:
            raise HumanFeedbackPending(context=context)

    class review(Flow):  # type: ignore[type-arg]
        @start()
        @human_feedback(message=scenario.question, provider=Later())
        def draft(self) -> str:
            return "a draft"

        @listen(draft)
        def publish(self, result: Any) -> str:
            return f"published: {result.feedback}"

    with tempfile.TemporaryDirectory() as folder:
        kept = SQLiteFlowPersistence(f"{folder}/flows.db")
        paused = review(persistence=kept).kickoff()
        return review.from_pending(paused.context.flow_id, kept).resume("very fine")


async def leave_a_stream() -> str:
    """Stream a crew, and leave after one piece. No scenario of the suite: see test_conformance."""
    model = HangingLLM(pieces=True)
    work = task("ask", agent("clerk", llm=model))
    stream = await crew(work, name="stream", stream=True).akickoff()
    pieces = aiter(stream)
    piece = await anext(pieces)
    await getattr(stream, "aclose", pieces.aclose)()  # releases before 1.14 lack the first
    model.release()
    return str(piece.content)


PLAYS: Final[dict[str, Callable[[Any], Any]]] = {
    "model_call": model_call,
    "model_stream": model_stream,
    "model_error": model_error,
    "completion": completion,
    "tool_call": tool_call,
    "tool_error": tool_error,
    "retrieval": retrieval,
    "pipeline": pipeline,
    "parallel_tools": parallel_tools,
    "retry": retry,
    "fallback": fallback,
    "cancelled": cancelled,
    "session": session,
    "nested_agents": nested_agents,
    "handoff": handoff,
    "failed_handoff": failed_handoff,
    "interrupt": interrupt,
}
