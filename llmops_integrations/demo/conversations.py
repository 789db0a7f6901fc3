"""The three conversations of the demo, and how one is held with the desk, its human included."""

from __future__ import annotations

import time
import uuid
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

__all__ = ["CONVERSATIONS", "Conversation", "hold"]


class Conversation(NamedTuple):
    """What a customer asks, and what the human answers when the desk asks about a refund."""

    customer: str
    question: str
    decision: str


CONVERSATIONS = (
    Conversation(
        "Ada", "I was charged twice for order A-1042, and where is my parcel?", decision="approve"
    ),
    Conversation("Grace", "Where is my parcel? It is order B-2210.", decision=""),
    Conversation("Linus", "I was charged twice for order C-3300!", decision="decline"),
)


def hold(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    talk: Conversation,
    *,
    callbacks: list[Any],
    thinking_s: float = 0.0,
) -> tuple[str, str]:
    """Hold one conversation to its end; return its session id and the answer.

    A question that waits for a human is resumed with the conversation's decision, as an application
    would after somebody clicked; the human takes *thinking_s* seconds.
    """
    session = f"demo-{uuid.uuid4().hex[:8]}"
    config: RunnableConfig = {
        "callbacks": callbacks,
        "configurable": {"thread_id": session},
        "metadata": {"session_id": session, "user_id": talk.customer.lower()},
    }
    state = graph.invoke({"customer": talk.customer, "question": talk.question}, config)
    while "__interrupt__" in state:
        time.sleep(thinking_s)
        state = graph.invoke(Command(resume=talk.decision), config)
    return session, str(state["answer"])
