"""Small graphs that pause, and ways to run them: sync and async, by invoke and by stream."""

from __future__ import annotations

import operator
import time
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_kit import scripted
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from llmops_core import Span
from llmops_core.analysis.waiting import Pause, waiting
from llmops_core.testing.fixtures import CapturedSpans

THREAD = "thread-1"


class State(TypedDict, total=False):
    said: Annotated[list[Any], operator.add]


def say(word: str) -> Any:
    return lambda state: {"said": [word]}


def ask(question: Any) -> Any:
    return lambda state: {"said": [interrupt(question)]}


def ask_twice(state: State) -> State:
    return {"said": [interrupt("first?"), interrupt("second?")]}


def line(*nodes: tuple[str, Any], saver: Any = True, **kwargs: Any) -> Any:
    """A graph of nodes in a row. With ``saver`` True it has a checkpointer in memory."""
    builder = StateGraph(State)
    before = START
    for name, run in nodes:
        builder.add_node(name, run)
        builder.add_edge(before, name)
        before = name
    return builder.compile(checkpointer=InMemorySaver() if saver is True else saver, **kwargs)


def one(**kwargs: Any) -> Any:
    return line(("plan", say("planned")), ("approve", ask({"refund": 42})), **kwargs)


def sub(**kwargs: Any) -> Any:
    inner = line(("inner", ask("inner?")), saver=None, name="desk")
    return line(("outer", inner), **kwargs)


def fork(**kwargs: Any) -> Any:
    builder = StateGraph(State)
    for name in ("left", "right"):
        builder.add_node(name, ask(f"{name}?"))
        builder.add_edge(START, name)
    return builder.compile(checkpointer=InMemorySaver(), **kwargs)


@tool
def refund(amount: int) -> str:
    """Pay back."""
    return f"refund {interrupt(f'pay {amount}?')}"


def agent() -> Any:
    call = AIMessage("", tool_calls=[{"name": "refund", "args": {"amount": 7}, "id": "c1"}])
    model = scripted(call, "done", by_history=True)
    return create_agent(model, [refund], name="teller", checkpointer=InMemorySaver())


def config(thread: str = THREAD, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}, **more}


async def _invoke(graph: Any, given: Any, config: Any, **kwargs: Any) -> Any:
    return graph.invoke(given, config, **kwargs)


async def _ainvoke(graph: Any, given: Any, config: Any, **kwargs: Any) -> Any:
    return await graph.ainvoke(given, config, **kwargs)


async def _stream(graph: Any, given: Any, config: Any, **kwargs: Any) -> Any:
    return list(graph.stream(given, config, **kwargs))


async def _astream(graph: Any, given: Any, config: Any, **kwargs: Any) -> Any:
    return [chunk async for chunk in graph.astream(given, config, **kwargs)]


WAYS = {"invoke": _invoke, "ainvoke": _ainvoke, "stream": _stream, "astream": _astream}


def pauses(spans: CapturedSpans) -> list[Pause]:
    return waiting(spans(), now=spans.clock.wall_ns() // 1000)


def roots(spans: CapturedSpans) -> list[Span]:
    return sorted((s for s in spans() if s.parent_id is None), key=lambda s: s.start_time)


def wait_until(true: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()
