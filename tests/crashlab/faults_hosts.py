"""The programs that are monitored: a framework is one registration, a way to call it another."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import faults_crewai

__all__ = ["ENDS", "FRAMEWORKS", "LEFT_OPEN", "NEEDS", "WAYS", "Call", "installed"]

#: Called with a turn, which may be the failing one; the monitor is None in the twin.
Call = Callable[[int], Any]
FRAMEWORKS: Final[dict[str, Callable[[Any], tuple[Any, dict[str, Any]]]]] = {}
#: What must be installed for a framework.
NEEDS: Final[dict[str, str]] = {}
WAYS: Final[dict[str, Callable[[Any, Any, dict[str, Any]], Any]]] = {}
#: How a program ends, by the way that it was called: each is another exit code.
ENDS: Final[dict[str, Callable[[], None]]] = {}
#: The way after which the monitor is left to our exit handler; after the others the program closes it.
LEFT_OPEN: Final = "thread"


def framework(name: str, needs: str) -> Callable[[Any], Any]:
    """Register a function that makes a program and the config to call it with."""

    def register(make: Any) -> Any:
        FRAMEWORKS[name] = make
        NEEDS[name] = needs
        return make

    return register


def installed() -> list[str]:
    """Return the frameworks that are here: CrewAI and the others have environments of their own."""
    return [name for name, needed in NEEDS.items() if importlib.util.find_spec(needed)]


class Unhappy(Exception):
    """What the user's own code raises at the last turn."""


def _work(number: int) -> int:
    if number < 0:
        raise Unhappy(f"not {number}")
    return 2 * number


@framework("langchain", "langchain_core")
def _langchain(monitor: Any) -> tuple[Any, dict[str, Any]]:
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnableLambda

    model = FakeListChatModel(responses=["yes"])
    prompt = ChatPromptTemplate.from_template("Is {n} even?")
    program = RunnableLambda(lambda n: {"n": _work(n)}) | prompt | model | StrOutputParser()
    if monitor is None:
        return program, {}
    from llmops_integrations.langchain import LLMOpsCallbackHandler

    return program, {"callbacks": [LLMOpsCallbackHandler(monitor)]}


@framework("langgraph", "langgraph")
def _langgraph(monitor: Any) -> tuple[Any, dict[str, Any]]:
    from langchain_core.language_models import FakeListChatModel
    from langgraph.graph import START, StateGraph

    model = FakeListChatModel(responses=["yes"])

    class Program:
        """Takes a number where a graph takes a state."""

        def __init__(self) -> None:
            builder = StateGraph(dict)
            builder.add_node("double", lambda state: {"n": _work(state["n"])})
            builder.add_node(
                "ask", lambda state: {**state, "said": model.invoke(str(state["n"])).content}
            )
            builder.add_edge(START, "double")
            builder.add_edge("double", "ask")
            self.graph = builder.compile()
            if monitor is not None:
                from llmops_integrations.langgraph import monitor_graph

                self.graph = monitor_graph(self.graph, monitor=monitor)

        def invoke(self, n: int, config: Any) -> Any:
            return self.graph.invoke({"n": n}, config)

        async def ainvoke(self, n: int, config: Any) -> Any:
            return await self.graph.ainvoke({"n": n}, config)

        def stream(self, n: int, config: Any) -> Any:
            return self.graph.stream({"n": n}, config)

    return Program(), {}


@framework("crewai", "crewai")
def _crewai(monitor: Any) -> tuple[Any, dict[str, Any]]:
    return faults_crewai.make_crew(monitor, _work)


def way(name: str, end: Callable[[], None]) -> Callable[[Any], Any]:
    """Register a way to call a program, and how the program ends that is called so."""

    def register(call: Any) -> Any:
        WAYS[name] = call
        ENDS[name] = end
        return call

    return register


def _by_exit() -> None:
    sys.exit(7)


def _by_text() -> None:
    sys.exit("enough")


def _by_error() -> None:
    raise Unhappy("at the end")


def _by_end() -> None:
    return


@way("sync", _by_exit)
def _sync(program: Any, given: Any, config: dict[str, Any]) -> Any:
    return program.invoke(given, config)


@way("async", _by_end)
def _async(program: Any, given: Any, config: dict[str, Any]) -> Any:
    async def both() -> Any:
        # Both to their end: a neighbour that is cancelled halfway does as much as it had time for.
        calls = (program.ainvoke(given, config) for _ in range(2))
        return await asyncio.gather(*calls, return_exceptions=True)

    first = asyncio.run(both())[0]
    if isinstance(first, BaseException):
        raise first
    return first


@way("thread", _by_error)
def _thread(program: Any, given: Any, config: dict[str, Any]) -> Any:
    came: list[Any] = []

    def work() -> None:
        try:
            came.append(program.invoke(given, config))
        except Unhappy as error:
            came.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(came[0], Unhappy):
        raise came[0]
    return came[0]


@way("stream", _by_text)
def _stream(program: Any, given: Any, config: dict[str, Any]) -> Any:
    return list(program.stream(given, config))
