"""The handler suite's scenarios, as someone would write them in plain Python.

Each function of the program is made anew for each scenario, since a decorator is told its monitor;
without a monitor it is left out, and the program is the same.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final

from llmops_core import Interrupted, monitor_llm, monitoring_session
from llmops_core.testing import Reply, Scenario

__all__ = ["PLAYS", "Program"]


class Program:
    """What a scenario's program has at hand: decorated functions that answer from its script."""

    def __init__(self, scenario: Scenario, monitor: Any) -> None:
        self.scenario = scenario
        self.monitor = monitor
        self.add = self.of("add", "tool")(add)
        self.divide = self.of("divide", "tool")(divide)

    def of(self, name: str, kind: str, **more: Any) -> Callable[[Any], Any]:
        """A decorator that reports to the monitor, if there is one."""
        enabled = self.monitor is not None
        return monitor_llm(name, kind, monitor=self.monitor, enabled=enabled, **more)

    def model(self, *replies: Reply) -> Any:
        """A model that answers as a provider's client does: a dict with its text and its usage."""
        script = list(replies or self.scenario.replies)

        @self.of(script[0].model, "llm_call")
        def ask(question: str) -> dict[str, Any]:
            return answer(script.pop(0))

        return ask


def answer(reply: Reply) -> dict[str, Any]:
    if reply.error is not None:
        raise RuntimeError(reply.error)
    return {"text": reply.text, "usage": usage(reply)}


def usage(reply: Reply) -> dict[str, int]:
    return {"prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens}


def pieces(reply: Reply) -> Iterator[Any]:
    """A provider's stream: text, and last of all the usage."""
    yield from reply.text.split(" ")
    yield {"usage": usage(reply)}


def add(a: int, b: int) -> int:
    return a + b


def divide(a: int, b: int) -> float:
    return a / b


# ---- a model alone ----


def model_call(program: Program) -> Any:
    return program.model()(program.scenario.question)


def model_stream(program: Program) -> Any:
    (reply,) = program.scenario.replies

    @program.of(reply.model, "llm_call")
    def ask(question: str) -> Iterator[Any]:
        yield from pieces(reply)

    return list(ask(program.scenario.question))


def model_error(program: Program) -> Any:
    try:
        return program.model()(program.scenario.question)
    except RuntimeError as error:
        return str(error)


def completion(program: Program) -> Any:
    (reply,) = program.scenario.replies

    @program.of(reply.model, "llm_call")
    def complete(text: str) -> str:
        return reply.text

    return complete(program.scenario.question)


def session(program: Program) -> Any:
    with monitoring_session(program.scenario.session):
        return model_call(program)


# ---- tools and retrievers ----


def tool_call(program: Program) -> Any:
    return program.add(2, 2)


def tool_error(program: Program) -> Any:
    try:
        return program.divide(1, 0)
    except ZeroDivisionError as error:
        return str(error)


def retrieval(program: Program) -> Any:
    @program.of("notes", "retriever")
    def notes(question: str) -> list[str]:
        return ["2 + 2 is 4"]

    return notes(program.scenario.question)


def pipeline(program: Program) -> Any:
    model = program.model()

    @program.of("pipeline", "workflow")
    def work(question: str) -> Any:
        program.add(2, 2)
        return model(question)["text"]

    return work(program.scenario.question)


def parallel_tools(program: Program) -> Any:
    """Two threads, each in a copy of the caller's context, as ``asyncio.to_thread`` makes one."""
    both = threading.Barrier(2)

    @program.of("add", "tool")
    def add_slowly(a: int, b: int) -> int:
        both.wait(60)
        return a + b

    @program.of("parallel", "workflow")
    def work(pairs: Sequence[tuple[int, int]]) -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(copy_context().run, add_slowly, *pair) for pair in pairs]
            return [call.result() for call in calls]

    return work([(1, 2), (3, 4)])


# ---- tries ----


def retry(program: Program) -> Any:
    model = program.model()

    @program.of("retry", "workflow")
    def work(question: str) -> Any:
        for _ in range(2):
            try:
                return model(question)["text"]
            except RuntimeError:
                continue
        return None

    return work(program.scenario.question)


def fallback(program: Program) -> Any:
    first, second = (program.model(reply) for reply in program.scenario.replies)

    @program.of("fallback", "workflow")
    def work(question: str) -> Any:
        try:
            return first(question)
        except RuntimeError:
            return second(question)

    return work(program.scenario.question)


# ---- left early ----


def cancelled(program: Program) -> Any:
    (reply,) = program.scenario.replies
    asked = asyncio.Event()

    @program.of(reply.model, "llm_call")
    async def ask(question: str) -> None:
        asked.set()
        await asyncio.Event().wait()

    @program.of("slow", "workflow")
    async def work(question: str) -> None:
        await ask(question)

    async def main() -> str:
        call = asyncio.create_task(work(program.scenario.question))
        await asked.wait()
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    return asyncio.run(main())


def abandoned(program: Program) -> Any:
    (reply,) = program.scenario.replies

    @program.of(reply.model, "llm_call")
    async def ask(question: str) -> AsyncIterator[Any]:
        for piece in pieces(reply):
            yield piece

    @program.of("stream", "workflow")
    async def work(question: str) -> AsyncIterator[Any]:
        async for piece in ask(question):
            yield piece

    async def main() -> Any:
        stream = work(program.scenario.question)
        first = await anext(stream)
        await stream.aclose()
        return first

    return asyncio.run(main())


# ---- agents and pauses ----


def nested_agents(program: Program) -> Any:
    inner, outer = program.scenario.replies
    models = program.model(inner), program.model(outer)

    @program.of("worker", "agent")
    def worker(question: str) -> Any:
        return models[0](question)["text"]

    @program.of("ask_worker", "tool")
    def ask_worker(question: str) -> Any:
        return worker(question)

    plan = program.model(Reply("Ask the worker."))

    @program.of("boss", "agent")
    def boss(question: str) -> Any:
        plan(question)
        return models[1](ask_worker(question))["text"]

    @program.of("team", "workflow")
    def team(question: str) -> Any:
        return boss(question)

    return team(program.scenario.question)


def handoff(program: Program) -> Any:
    """The editor is called with what the writer returned."""
    first, second = (program.model(reply) for reply in program.scenario.replies)

    @program.of("writer", "agent")
    def writer(question: str) -> Any:
        return first(question)["text"]

    @program.of("editor", "agent")
    def editor(draft: str) -> Any:
        return second(draft)["text"]

    @program.of("press", "workflow")
    def press(question: str) -> Any:
        return editor(writer(question))

    return press(program.scenario.question)


def failed_handoff(program: Program) -> Any:
    """The writer asks for an editor, and nobody runs one."""
    model = program.model()

    @program.of("to_editor", "handoff", custom_attributes={"target_agent": "editor"})
    def to_editor(draft: str) -> str:
        return "editor"

    @program.of("writer", "agent")
    def writer(question: str) -> Any:
        return to_editor(model(question)["text"])

    @program.of("press", "workflow")
    def press(question: str) -> Any:
        following = writer(question)
        agents: dict[str, Any] = {}  # where an editor should be
        return agents.get(following)

    return press(program.scenario.question)


def interrupt(program: Program) -> Any:
    question = program.scenario.question

    @program.of("draft", "task")
    def draft(decision: str | None) -> str:
        if decision is None:
            raise Interrupted(question)
        return f"a draft that is {decision}"

    @program.of("publish", "task")
    def publish(text: str) -> str:
        return f"published: {text}"

    @program.of("review", "workflow")
    def review(decision: str | None = None) -> str:
        return publish(draft(decision))

    with monitoring_session(program.scenario.session):
        try:
            review()
        except Interrupted as asked:
            return [str(asked), review("very fine")]
    return None


PLAYS: Final[dict[str, Callable[[Program], Any]]] = {
    play.__name__: play
    for play in (
        model_call,
        model_stream,
        model_error,
        completion,
        tool_call,
        tool_error,
        retrieval,
        pipeline,
        parallel_tools,
        retry,
        fallback,
        cancelled,
        abandoned,
        session,
        nested_agents,
        handoff,
        failed_handoff,
        interrupt,
    )
}
