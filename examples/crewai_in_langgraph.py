"""One tree over all frameworks: a crew inside a graph, and a decorated function in the crew's tool.

One line records all of it. The graph's node carries its place along into a thread of its own, and the
crew's tool sends the header that lets another service join the trace.
"""

import sys
import threading
from typing import TypedDict

from crewai_model import Scripted  # isort: skip - it keeps CrewAI offline

from crewai import Agent, Crew, Task
from crewai.tools import tool

from llmops_core import (
    carry,
    initialize_monitoring_sync,
    monitor_llm,
    span_tree,
    spans_from_arrow,
    traceparent,
)
from llmops_integrations import instrument

try:
    from langgraph.graph import START, StateGraph
except ImportError:
    print("This example needs LangGraph; install it with: pip install langgraph")
    sys.exit()


class State(TypedDict, total=False):
    """A question, and what was found."""

    question: str
    answer: str
    notes: list[str]


@monitor_llm(operation_type="retriever")
def look_up(query: str) -> str:
    """Find an invoice, here or at another service."""
    header = traceparent()  # send it along with a request
    print("sent to the other service:", header is not None)
    return f"{query} was paid on Monday"


@tool("invoices")
def invoices(query: str) -> str:
    """Looks invoices up."""
    return look_up(query)


@monitor_llm
def note(text: str, notes: list[str]) -> None:
    """Write something down, in a thread."""
    notes.append(text)


def ask_a_crew(state: State) -> State:
    """A node that lets a crew answer."""
    clerk = Agent(
        role="billing",
        goal="know invoices",
        backstory="an accountant",
        tools=[invoices],
        llm=Scripted(
            'Thought: look.\nAction: invoices\nAction Input: {"query": "A-1042"}',
            "Thought: paid.\nFinal Answer: It was paid on Monday.",
        ),
    )
    task = Task(name="answer", description=state["question"], expected_output="a fact", agent=clerk)
    answer = str(Crew(name="billing", agents=[clerk], tasks=[task]).kickoff().raw)
    notes: list[str] = []
    thread = threading.Thread(target=carry(note), args=(answer, notes))
    thread.start()
    thread.join()
    return {"answer": answer, "notes": notes}


def main() -> None:
    """Ask the graph, and print the tree."""
    builder = StateGraph(State)
    builder.add_node("desk", ask_a_crew)
    builder.add_edge(START, "desk")
    graph = builder.compile(name="support")
    monitor = initialize_monitoring_sync(storage="parquet:./llmops_data")
    instrument()  # this is all: the graph, the crew and what they call
    answer = graph.invoke({"question": "Is A-1042 paid?"}, {"metadata": {"session_id": "chat-1"}})
    print(answer["notes"])
    monitor.flush()
    root = monitor.query(name="support", order=["-start_time"], limit=1).to_pylist()[0]
    print(span_tree(spans_from_arrow(monitor.query(trace_id=root["trace_id"]))))
    monitor.close()


if __name__ == "__main__":
    main()
