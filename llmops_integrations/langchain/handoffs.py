"""Who is asked to take over, read off LangGraph's commands, sends and transfer tools. Pure.

The classes are told by name, so that LangGraph stays unimported. What is found here are requests:
the tracer confirms one by the start of its target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from llmops_integrations.langchain.reading import class_name, text

__all__ = ["Asked", "asked_by_edge", "asked_by_error", "asked_by_outputs", "asked_by_tool"]

_MODULE: Final = "langgraph.types"
_END: Final = "__end__"
_PARENT: Final = "__parent__"
#: What prebuilt agents send to their own tool nodes: a tool call, and no handoff.
_TOOL_CALL: Final = "tool_call_with_context"

#: Items of a list that are looked at whatever they are: a node may return updates and commands.
_MAX_MIXED: Final = 100
#: Items of a list that are looked at: more than the tracer lets wait, so that it counts the rest.
_MAX_ITEMS: Final = 2_000


class Asked(NamedTuple):
    """One request: the node or agent that is asked, how, and what is passed along."""

    target: str
    mechanism: str
    passed: Any = None
    to_parent: bool = False


def asked_by_tool(metadata: Mapping[str, Any], inputs: Any) -> Asked | None:
    """Return the request that the start of a prebuilt transfer tool stands for."""
    target = text(metadata.get("__handoff_destination"))
    return Asked(target, "transfer", inputs or None) if target else None


def asked_by_outputs(outputs: Any) -> Iterator[Asked]:
    """Yield the requests in what a node returned: a command, or a list with commands."""
    for item in _each(outputs, "Command"):
        if _is(item, "Command") and item.graph is None:
            yield from _of_command(item)


def asked_by_error(error: BaseException) -> Iterator[Asked]:
    """Yield the requests of a command to the parent graph: it leaves the graph as an exception.

    Each graph on the way raises it again, with its own namespace instead of ``__parent__``: only
    the innermost is the request.
    """
    if class_name(type(error))[1] != "ParentCommand" or len(error.args) != 1:
        return
    command = error.args[0]
    if _is(command, "Command") and text(command.graph) == _PARENT:
        for asked in _of_command(command):
            yield asked._replace(to_parent=True)


def asked_by_edge(outputs: Any) -> Iterator[Asked]:
    """Yield the sends that a conditional edge returned. Plain names are edges, and inferred."""
    for item in _each(outputs, "Send"):
        if _is(item, "Send"):
            yield from _of_send(item)


def _of_command(command: Any) -> Iterator[Asked]:
    for item in _each(command.goto, "Send"):
        if type(item) is str:
            if item and item != _END:
                yield Asked(item, "command", command.update)
        elif _is(item, "Send"):
            yield from _of_send(item)


def _of_send(send: Any) -> Iterator[Asked]:
    node, passed = text(send.node), send.arg
    if type(passed) is dict and passed.get("__type") == _TOOL_CALL:
        return
    if node and node != _END:
        yield Asked(node, "send", passed)


def _each(value: Any, name: str) -> Iterator[Any]:
    """Yield the items of a list or a tuple that may be requests, else the value alone.

    A result may be a list of millions of numbers, and this runs on the host's thread: beyond the
    first items only a fan-out, which is requests throughout, is followed to its end.
    """
    kind = type(value)  # by identity: a metaclass may define __eq__
    if kind is not list and kind is not tuple:
        yield value
        return
    yield from value[:_MAX_MIXED]
    for item in islice(value, _MAX_MIXED, _MAX_ITEMS):
        # A node may be named instead of sent to; the texts that a node returns ask for nothing.
        is_named = type(item) is str and name == "Send"
        if not is_named and not _is(item, name):
            return
        yield item


def _is(value: Any, name: str) -> bool:
    return class_name(type(value)) == (_MODULE, name)
