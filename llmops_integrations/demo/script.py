"""What the desk's model says: one function for each role, from the messages so far to the next."""

from __future__ import annotations

import json
import re
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

__all__ = ["ORDER", "billing", "reviewer", "router", "shipping"]

ORDER = re.compile(r"\b[A-Z]-\d{4}\b")


def router(messages: list[BaseMessage]) -> AIMessage:
    """Write one case for each specialist. With two cases, the second one loses the order number."""
    question = _text(messages[-1])
    order = _order(question)
    cases = {}
    if "charged" in question:
        cases["billing"] = f"Order {order} was charged twice. Check it and refund one charge."
    if "parcel" in question:
        told = "The customer's parcel has not arrived. Find out where it is."
        cases["shipping"] = told if cases else f"Order {order}: {told}"
    return AIMessage(json.dumps(cases))


def billing(messages: list[BaseMessage]) -> AIMessage:
    """Look the order up, then ask for a refund."""
    if not _results(messages):
        return _call("lookup_order", order_id=_order(_text(messages[-1])))
    return AIMessage("Two charges of 42.50 USD. One of them has to be refunded.")


def shipping(messages: list[BaseMessage]) -> AIMessage:
    """Track the parcel; without an order number, search by customer and take the first order."""
    results = _results(messages)
    order = _order(" ".join([_text(messages[1]), *results]))
    if not order:
        return _call("find_orders", customer=_text(messages[0]).rpartition(" ")[2])
    if not results or "on its way" not in results[-1]:
        return _call("track_parcel", order_id=order)
    return AIMessage(f"The parcel of order {order} is on its way and arrives on Friday.")


def reviewer(messages: list[BaseMessage]) -> AIMessage:
    """Compare what was asked with what was found, and answer the customer."""
    question, found = _text(messages[-2]), _text(messages[-1])
    order = _order(question)
    others = sorted(set(ORDER.findall(found)) - {order})
    answer = f"About order {order}: {found}"
    if others:
        answer += f" Sorry: {', '.join(others)} is another order of yours; we check {order} again."
    return AIMessage(answer)


def _call(name: str, **args: Any) -> AIMessage:
    call_id = "call_" + "_".join([name, *map(str, args.values())]).lower().replace("-", "")
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": call_id}])


def _results(messages: list[BaseMessage]) -> list[str]:
    return [_text(m) for m in messages if isinstance(m, ToolMessage)]


def _order(text: str) -> str:
    found = ORDER.search(text)
    return found[0] if found else ""


def _text(message: BaseMessage) -> str:
    return str(message.content)
