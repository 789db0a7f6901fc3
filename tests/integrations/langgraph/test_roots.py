"""Where monitoring begins there is a root, whatever runs around it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langgraph")

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from llmops_core.analysis.waiting import waiting
from llmops_core.testing.fixtures import CapturedSpans, spans
from llmops_integrations.langgraph import monitor_graph

__all__ = ["spans"]


class State(TypedDict, total=False):
    n: int


def test_a_monitored_graph_in_one_that_is_not_is_a_workflow(spans: CapturedSpans) -> None:
    inner = StateGraph(State).add_node("work", lambda s: {"n": 1}).add_edge(START, "work")
    monitored = monitor_graph(inner.compile(name="inner"), monitor=spans.monitor)
    outer = StateGraph(State).add_node("inner", monitored).add_edge(START, "inner")
    outer.add_edge("inner", END).compile(name="outer").invoke({"n": 0})
    assert spans.tree().splitlines()[0].startswith("workflow inner ok")
    (root,) = [s for s in spans() if s.kind == "workflow"]
    assert root.parent_id is None


def test_one_question_of_the_functional_api_is_asked_once(spans: CapturedSpans) -> None:
    @entrypoint(checkpointer=InMemorySaver())
    def approve(order: str) -> Any:
        return interrupt(f"refund {order}?")

    graph = monitor_graph(approve, monitor=spans.monitor)
    graph.invoke("A-1042", {"configurable": {"thread_id": "t1"}})
    (pause,) = waiting(spans(), now=2_000_000_000_000_000)
    assert len(pause.asked) == 1
