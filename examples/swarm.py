"""A swarm over two turns: the second starts with the agent that the first ended with."""

import sys

from llmops_core import Monitor, span_tree, spans_from_arrow

try:
    from langchain.agents import create_agent
    from langgraph_swarm import create_handoff_tool, create_swarm
except ImportError as missing:
    print(f"{missing}; install it with: pip install langchain langgraph-swarm")
    sys.exit(0)

import uuid

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from llmops_integrations.langgraph import monitor_graph


class Scripted(GenericFakeChatModel):
    """A model that says what it was told to say, and calls tools by name."""

    def bind_tools(self, tools: object, **kwargs: object) -> "Scripted":
        """Take any tools: the script knows which one it calls."""
        return self


def main() -> None:
    """Talk to the swarm twice in one thread, and print the tree of each turn."""
    transfer = {"name": "transfer_to_bob", "args": {}, "id": "call-1"}
    alice = create_agent(
        Scripted(messages=iter([AIMessage("Bob knows about A-1042.", tool_calls=[transfer])])),
        [create_handoff_tool(agent_name="bob")],
        name="alice",
    )
    bob = create_agent(
        Scripted(messages=iter([AIMessage("A-1042 is out."), AIMessage("It comes tomorrow.")])),
        [create_handoff_tool(agent_name="alice")],
        name="bob",
    )
    swarm = create_swarm([alice, bob], default_active_agent="alice")

    with Monitor("parquet:./llmops_data") as monitor:
        graph = monitor_graph(
            swarm.compile(checkpointer=InMemorySaver(), name="swarm"), monitor=monitor
        )
        thread = f"chat-{uuid.uuid4().hex[:8]}"
        for question in ("Where is order A-1042?", "And when does it come?"):
            given = {"messages": [("user", question)]}
            result = graph.invoke(given, {"configurable": {"thread_id": thread}})
            print(f"{question} {result['messages'][-1].content}")
        monitor.flush()
        # The thread is the session, so both turns are found by it.
        print(span_tree(spans_from_arrow(monitor.query(session_id=thread))))


if __name__ == "__main__":
    main()
