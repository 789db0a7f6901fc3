"""The support desk as a LangGraph graph: a router, two specialists, a human's approval, a reviewer.

It has the faults that monitoring is for: a service that fails once and is retried, and a router
that loses the order number when it writes two cases at once.
"""

from __future__ import annotations

import json
import operator
import time
from collections import Counter
from typing import Annotated, Any, Literal, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, interrupt

from llmops_integrations.demo import script
from llmops_integrations.demo.scripted_model import Script, ScriptedModel

__all__ = ["Desk", "support_desk"]


class Desk(TypedDict, total=False):
    """The state of one conversation."""

    customer: str
    question: str
    case: str
    findings: Annotated[list[str], operator.add]
    answer: str


def support_desk(latency_s: float = 0.0) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Build the graph; each model call takes *latency_s*, each tool call half of it."""
    desk = _Desk(latency_s)
    builder = StateGraph(Desk)
    builder.add_node("router", desk.router)
    builder.add_node("billing", desk.billing)
    builder.add_node("shipping", desk.shipping)
    builder.add_node("approve_refund", desk.approve_refund)
    builder.add_node("reviewer", desk.reviewer, defer=True)  # waits for both specialists
    builder.add_edge(START, "router")
    return builder.compile(checkpointer=InMemorySaver(), name="support-desk")


class _Desk:
    """The nodes, with the models and tools that they use."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self.tools = {t.name: t for t in _tools(latency_s / 2)}
        self.reliable = self.tools["lookup_order"].with_retry(
            retry_if_exception_type=(ConnectionError,),
            wait_exponential_jitter=False,
            stop_after_attempt=3,
        )

    def _model(self, answers: Script, slower: float = 1.0) -> ScriptedModel:
        return ScriptedModel(script=answers, latency_s=self._latency_s * slower)

    def router(self, state: Desk) -> Command[Any]:
        messages = [
            SystemMessage("Write one case for each specialist that has to act, as JSON."),
            HumanMessage(state["question"]),
        ]
        cases = json.loads(str(self._model(script.router).invoke(messages).content))
        shared = {"customer": state["customer"], "question": state["question"]}
        return Command(goto=[Send(to, {**shared, "case": case}) for to, case in cases.items()])

    def billing(self, state: Desk) -> Command[Literal["approve_refund"]]:
        found = self._work(self._model(script.billing), "You settle payments.", state)
        return Command(goto="approve_refund", update={"findings": [found]})

    def shipping(self, state: Desk) -> Command[Literal["reviewer"]]:
        role = f"You track parcels. The customer is {state['customer']}"
        found = self._work(self._model(script.shipping), role, state)
        return Command(goto="reviewer", update={"findings": [found]})

    def approve_refund(self, state: Desk) -> Command[Literal["reviewer"]]:
        order = script.ORDER.search(state["question"])
        order_id = order[0] if order else ""
        decision = interrupt({"question": "Refund 42.50 USD?", "order": order_id})
        done = "The refund was declined."
        if decision == "approve":
            done = self.tools["issue_refund"].invoke({"order_id": order_id, "amount_usd": 42.5})
        return Command(goto="reviewer", update={"findings": [done]})

    def reviewer(self, state: Desk) -> Desk:
        messages = [
            SystemMessage("Compare what was asked with what was found. Answer the customer."),
            HumanMessage(state["question"]),
            HumanMessage(" ".join(state["findings"])),
        ]
        return {"answer": str(self._model(script.reviewer, 1.5).invoke(messages).content)}

    def _work(self, model: ScriptedModel, role: str, state: Desk) -> str:
        """Let a model call tools until it answers."""
        messages: list[BaseMessage] = [SystemMessage(role), HumanMessage(state["case"])]
        while True:
            reply: AIMessage = model.invoke(messages)
            messages.append(reply)
            if not reply.tool_calls:
                return str(reply.content)
            for call in reply.tool_calls:
                chosen: Runnable[Any, Any] = self.tools[call["name"]]
                chosen = self.reliable if call["name"] == "lookup_order" else chosen
                messages.append(chosen.invoke({**call, "type": "tool_call"}))


def _tools(latency_s: float) -> list[BaseTool]:
    """Make the tools over one order service, whose every other call for an order fails."""
    calls: Counter[str] = Counter()

    @tool
    def lookup_order(order_id: str) -> str:
        """Return the charges of an order."""
        time.sleep(latency_s)
        calls[order_id] += 1
        if calls[order_id] % 2:
            raise ConnectionError("order service did not answer")
        return f"Order {order_id}: charged 42.50 USD on May 4 and 42.50 USD on May 4."

    @tool
    def find_orders(customer: str) -> str:
        """Return the open orders of a customer."""
        time.sleep(latency_s)
        return f"Open orders of {customer}: A-0977, A-1042."

    @tool
    def track_parcel(order_id: str) -> str:
        """Return where the parcel of an order is."""
        time.sleep(latency_s)
        return "It is on its way and arrives on Friday."

    @tool
    def issue_refund(order_id: str, amount_usd: float) -> str:
        """Refund an amount to the customer."""
        time.sleep(latency_s)
        return f"{amount_usd:.2f} USD were refunded."

    return [lookup_order, find_orders, track_parcel, issue_refund]
