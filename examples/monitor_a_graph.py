"""Monitor a LangGraph graph by callbacks, and draw the trace from what was stored."""

from typing import TypedDict

from langchain_core.language_models import FakeListChatModel
from langgraph.graph import END, START, StateGraph

from llmops_core import Monitor, span_tree, spans_from_arrow
from llmops_integrations.langchain import LLMOpsCallbackHandler


class State(TypedDict, total=False):
    """What the two agents share."""

    question: str
    draft: str
    answer: str


def main() -> None:
    """Run a writer and a reviewer, and print the span tree of the run."""
    writer_model = FakeListChatModel(responses=["Paris, I think."])
    reviewer_model = FakeListChatModel(responses=["Paris."])

    def writer(state: State) -> State:
        return {"draft": str(writer_model.invoke(state["question"]).content)}

    def reviewer(state: State) -> State:
        return {"answer": str(reviewer_model.invoke(f"Check: {state['draft']}").content)}

    builder = StateGraph(State)
    builder.add_node("writer", writer)
    builder.add_node("reviewer", reviewer)
    builder.add_edge(START, "writer")
    builder.add_edge("writer", "reviewer")
    builder.add_edge("reviewer", END)
    graph = builder.compile(name="editorial desk")

    with Monitor("parquet:./llmops_data") as monitor:
        handler = LLMOpsCallbackHandler(monitor)
        result = graph.invoke(
            {"question": "What is the capital of France?"},
            {"callbacks": [handler], "metadata": {"session_id": "desk-1"}},
        )
        print(result["answer"])
        monitor.flush()
        root = monitor.query(name="editorial desk", limit=1).to_pylist()[0]
        print(span_tree(spans_from_arrow(monitor.query(trace_id=root["trace_id"]))))


if __name__ == "__main__":
    main()
