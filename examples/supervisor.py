"""A supervisor and two agents: who handed what to whom, and what came back."""

import json
import sys
import warnings

from llmops_core import Monitor, span_tree, spans_from_arrow

try:
    from langchain.agents import create_agent
    from langgraph_supervisor import create_supervisor
except ImportError as missing:
    print(f"{missing}; install it with: pip install langchain langgraph-supervisor")
    sys.exit(0)

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from llmops_integrations.langgraph import monitor_graph


class Scripted(GenericFakeChatModel):
    """A model that says what it was told to say, and calls tools by name."""

    def bind_tools(self, tools: object, **kwargs: object) -> "Scripted":
        """Take any tools: the script knows which one it calls."""
        return self


def says(*messages: AIMessage) -> Scripted:
    """Return a model with a script."""
    return Scripted(messages=iter(messages))


def main() -> None:
    """Ask the desk about an order, print the tree, and each handoff's two sides."""
    transfer = {"name": "transfer_to_billing", "args": {}, "id": "call-1"}
    lead = says(
        AIMessage("Order A-1042: is it paid?", tool_calls=[transfer]),
        AIMessage("Your order A-1042 is paid."),
    )
    # The supervisor package builds on a function that LangGraph has renamed since.
    warnings.filterwarnings("ignore", message="create_react_agent has been moved")
    desk = create_supervisor(
        [
            create_agent(says(AIMessage("A-1042 was paid on Monday.")), [], name="billing"),
            create_agent(says(AIMessage("It is on its way.")), [], name="shipping"),
        ],
        model=lead,
    ).compile(name="order desk")

    with Monitor("parquet:./llmops_data") as monitor:
        graph = monitor_graph(desk, monitor=monitor)
        result = graph.invoke({"messages": [("user", "Is my order A-1042 paid?")]})
        print(result["messages"][-1].content)
        monitor.flush()
        root = monitor.query(name="order desk", limit=1).to_pylist()[0]
        spans = spans_from_arrow(monitor.query(trace_id=root["trace_id"]))
        print(span_tree(spans))
        for handoff in sorted(spans, key=lambda span: span.start_time):
            if handoff.kind == "handoff":
                passed = json.loads(handoff.input or "{}").get("content")
                received = [m["content"] for m in json.loads(handoff.output or "[]")]
                print(
                    f"{handoff.name} ({handoff.handoff_mechanism}): {passed!r} arrived as {received}"
                )


if __name__ == "__main__":
    main()
