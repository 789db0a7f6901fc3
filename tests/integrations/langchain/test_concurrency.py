"""One handler serves many runs, threads and loops at once, and what it records stays as it was."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("langchain_core")

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_kit import add, scripted

from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langchain import LLMOpsCallbackHandler

MANY = 1_000


def _program(number):
    model = scripted(f"answer {number}")

    def work(_):
        add.invoke({"a": number, "b": 0})
        return model.invoke(f"question {number}").content

    async def awork(_):
        await add.ainvoke({"a": number, "b": 0})
        return (await model.ainvoke(f"question {number}")).content

    return RunnableLambda(work, awork)


def _check(stored):
    """Every run has its own root, and that root's number."""
    assert len(stored) == 3 * MANY
    roots = {s.span_id: s for s in stored if s.parent_id is None}
    assert len(roots) == MANY
    for span in stored:
        if span.parent_id is not None:
            root = roots[span.parent_id]
            assert span.trace_id == root.trace_id
            number = root.name
            said = f"answer {number}" if span.kind == "llm" else number
            assert said in span.output


def test_a_thousand_threads_have_the_right_parents(spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor)
    together = threading.Barrier(100)

    def run(number):
        together.wait()
        _program(number).invoke(0, {"callbacks": [handler], "run_name": str(number)})

    for start in range(0, MANY, 100):
        threads = [threading.Thread(target=run, args=(start + i,)) for i in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    _check(spans())
    assert len(handler._runs) == 0


@pytest.mark.parametrize("inline", [True, False])
def test_ten_loops_at_once_have_the_right_parents(inline, spans: CapturedSpans):  # noqa: F811
    handler = LLMOpsCallbackHandler(spans.monitor, inline=inline)

    async def main(first):
        await asyncio.gather(
            *(
                _program(n).ainvoke(0, {"callbacks": [handler], "run_name": str(n)})
                for n in range(first, first + MANY // 10)
            )
        )

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda i: asyncio.run(main(i * MANY // 10)), range(10)))
    _check(spans())
    assert len(handler._runs) == 0


def test_what_changes_right_after_a_callback_is_stored_as_it_was(spans: CapturedSpans):  # noqa: F811
    """LangChain hands its own objects to callbacks: a reference would rewrite history."""
    handler = LLMOpsCallbackHandler(spans.monitor)

    def work(state):
        seen = state["nested"]["list"]
        seen[0]["value"] = "changed"
        seen.append("more")
        state["message"].content = "changed"
        return state

    for number in range(MANY):
        state = {"nested": {"list": [{"value": number}]}, "message": HumanMessage(f"m{number}")}
        result = RunnableLambda(work).invoke(state, {"callbacks": [handler]})
        result["nested"]["list"].clear()
        result["message"].content = "changed again"
    stored = sorted(spans(), key=lambda s: s.start_time)
    assert len(stored) == MANY
    for number, span in enumerate(stored):
        before, after = json.loads(span.input), json.loads(span.output)
        assert before["nested"] == {"list": [{"value": number}]}
        assert before["message"]["content"] == f"m{number}"
        assert after["nested"] == {"list": [{"value": "changed"}, "more"]}
        assert after["message"]["content"] == "changed"


def test_what_a_node_changes_is_stored_as_it_was(spans: CapturedSpans):  # noqa: F811
    graphs = pytest.importorskip("langgraph.graph")

    def work(state):
        state["nested"]["list"].append("sneaked in")
        return {"nested": state["nested"]}

    builder = graphs.StateGraph(dict)
    builder.add_node("work", work)
    builder.add_edge(graphs.START, "work")
    graph = builder.compile()
    handler = LLMOpsCallbackHandler(spans.monitor)
    for number in range(200):
        graph.invoke({"nested": {"list": [number]}}, {"callbacks": [handler]})
    stored = sorted(spans(), key=lambda s: s.start_time)
    nodes = [s for s in stored if s.kind == "task"]
    assert len(nodes) == 200
    for number, node in enumerate(nodes):
        assert json.loads(node.input) == {"nested": {"list": [number]}}
        assert json.loads(node.output) == {"nested": {"list": [number, "sneaked in"]}}
