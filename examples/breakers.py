"""Two agents that hand the work to each other for ever, stopped; and a user whose budget is spent."""

from __future__ import annotations

import sys
from typing import Any

from llmops_core import Breakers, BreakerTripped, Monitor, span_tree, spans_from_arrow

try:
    from langchain_core.language_models import FakeListChatModel
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.types import Command
except ImportError as missing:
    print(f"{missing}; install it with: pip install langgraph")
    sys.exit(0)

from llmops_integrations.langgraph import monitor_graph


def agent(other: str) -> Any:
    """Return a node that asks a model, and hands over to the other one whatever it says."""
    model = FakeListChatModel(responses=["I am not sure. What do you think?"])

    def work(state: MessagesState) -> Command[str]:
        return Command(goto=other, update={"messages": [model.invoke(state["messages"])]})

    return work


def build_graph() -> Any:
    """Return a graph of two agents without an end."""
    builder = StateGraph(MessagesState)
    builder.add_node("planner", agent("critic"))
    builder.add_node("critic", agent("planner"))
    builder.add_edge(START, "planner")
    return builder.compile(name="team")


def main() -> None:
    """Run it twice for one user."""
    limits = Breakers(ping_pong=2, user_calls=4)
    with Monitor("parquet:./llmops_data", breakers=limits) as monitor:
        graph = monitor_graph(build_graph(), monitor=monitor)
        for question in ("Where to?", "And now?"):
            try:
                graph.invoke({"messages": [("user", question)]}, {"metadata": {"user_id": "ann"}})
            except BreakerTripped as stopped:
                print(f"stopped by {stopped.limit} of the {stopped.scope}: {stopped.found}")
        monitor.flush()
        first = monitor.query(kind="workflow", order=["start_time"], limit=1).to_pylist()[0]
        trace = spans_from_arrow(monitor.query(trace_id=first["trace_id"]))
        print(span_tree(span for span in trace if span.kind != "handoff"), end="")
        print(monitor.stats()["breakers"]["stopped"])


if __name__ == "__main__":
    main()
