"""LangGraph's retries are attempts, and a model that routes makes nobody an agent."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.language_models import FakeListChatModel
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

from llmops_core.testing.fixtures import CapturedSpans, spans
from llmops_integrations.langchain import LLMOpsCallbackHandler

__all__ = ["spans"]


def test_each_try_of_a_node_has_its_number_and_errors_that_were_retried_count_nowhere(
    spans: CapturedSpans,
) -> None:
    model = FakeListChatModel(responses=["ok"])
    tries: list[int] = []

    def flaky(state: MessagesState) -> dict[str, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no")
        return {"messages": [model.invoke(state["messages"])]}

    policy = RetryPolicy(max_attempts=3, initial_interval=0.001, retry_on=ConnectionError)
    builder = StateGraph(MessagesState).add_node("flaky", flaky, retry_policy=policy)
    graph = builder.add_edge(START, "flaky").add_edge("flaky", END).compile()
    graph.invoke({"messages": ["hi"]}, {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]})
    found = sorted((s.attempt, s.outcome) for s in spans() if s.name == "flaky")
    assert found == [(1, "error"), (2, "error"), (3, "ok")]
    rate = spans.monitor.query(name="flaky", aggregates=["error_rate"]).to_pylist()
    assert rate == [{"error_rate": 0.0}]


def test_a_model_in_a_conditional_edge_does_not_make_its_node_an_agent(
    spans: CapturedSpans,
) -> None:
    model = FakeListChatModel(responses=["b"])

    def route(state: MessagesState) -> str:
        return str(model.invoke(state["messages"]).content)

    builder = StateGraph(MessagesState).add_node("a", lambda s: {}).add_node("b", lambda s: {})
    builder.add_edge(START, "a").add_conditional_edges("a", route, ["b"]).add_edge("b", END)
    graph = builder.compile()
    graph.invoke({"messages": ["hi"]}, {"callbacks": [LLMOpsCallbackHandler(spans.monitor)]})
    kinds = {s.name: s.kind for s in spans() if s.name in ("a", "b")}
    assert kinds == {"a": "task", "b": "task"}
