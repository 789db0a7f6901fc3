"""``monitor_graph``: a copy of a compiled graph that carries the handler in its own config."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from typing import Any, TypeVar

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from llmops_core import ConfigError, Monitor
from llmops_integrations.langgraph.handler import shared_handler

__all__ = ["monitor_graph"]

_Graph = TypeVar("_Graph", bound=Pregel[Any, Any, Any, Any])


def monitor_graph(
    graph: _Graph, agents: Iterable[str] | None = None, monitor: Monitor | None = None
) -> _Graph:
    """Return a copy of *graph* that records each of its runs; *graph* itself stays as it was.

    The copy has the graph's type, name, nodes, checkpointer and methods, and may be a node of
    another graph. Monitoring a monitored graph, or a graph in a monitored graph, records once.

    *agents* names nodes, of the graph or of a graph in it, that are agents although they call no
    model themselves: their spans are of kind ``agent``. A call may rename a graph (``run_name``);
    give graphs that have nodes of the same names names of their own.

    Without *monitor*, the default one is opened here. Raises ``ConfigError`` for what is not a
    compiled graph, and for a name that no node has. Does no I/O, and may be called on any thread.
    """
    if not isinstance(graph, Pregel):
        raise _no_graph(graph)
    named = _checked(graph, agents)
    handler = shared_handler(monitor)
    handler.name_agents(graph.get_name(), named)
    # Not graph.copy(): it loses what is set after the constructor, as the checkpointer's types are.
    copied = copy.copy(graph)
    copied.nodes = dict(graph.nodes)
    copied.channels = dict(graph.channels)
    copied.config = {**(graph.config or {}), "callbacks": _with(handler, graph.config)}
    return copied


def _with(handler: Any, config: Any) -> Any:
    """Return the callbacks of a config and the handler, once, and before any other."""
    callbacks = (config or {}).get("callbacks")
    if callbacks is None:
        return [handler]
    if isinstance(callbacks, list):
        return [handler, *(given for given in callbacks if given is not handler)]
    callbacks = callbacks.copy()  # a manager
    callbacks.add_handler(handler, inherit=True)
    return callbacks


def _checked(graph: Pregel[Any, Any, Any, Any], agents: Iterable[str] | None) -> frozenset[str]:
    if agents is None:
        return frozenset()
    if isinstance(agents, str):
        raise ConfigError(f"agents={agents!r}", "a list of node names", f"write [{agents!r}]")
    named = list(agents)
    nodes = _node_names(graph)
    for name in named:
        if name not in nodes:
            close = difflib.get_close_matches(str(name), nodes, n=1)
            raise ConfigError(
                f"{name!r} in agents= is no node of the graph {graph.get_name()!r}",
                f"expected {', '.join(sorted(nodes)) or 'no nodes at all'}",
                f"did you mean {close[0]!r}?" if close else "name nodes as add_node() named them",
            )
    return frozenset(named)


def _node_names(graph: Pregel[Any, Any, Any, Any]) -> set[str]:
    """Return the names of a graph's nodes, and of those of the graphs in it."""
    names = {name for name in graph.nodes if name != "__start__"}
    for _, inner in graph.get_subgraphs(recurse=True):
        names.update(name for name in getattr(inner, "nodes", ()) if name != "__start__")
    return names


def _no_graph(found: object) -> ConfigError:
    kind = f"the class {found.__name__}" if isinstance(found, type) else type(found).__name__
    what = f"{kind} was given to monitor_graph()"
    expected = "expected a compiled graph"
    if isinstance(found, StateGraph):
        return ConfigError(what, expected, "compile it first: monitor_graph(builder.compile())")
    if type(found).__name__ == "RemoteGraph":
        return ConfigError(what, expected, "monitor the graph where it runs, on the server")
    if isinstance(getattr(found, "bound", None), Pregel):
        return ConfigError(what, expected, "monitor the graph first, and bind the copy")
    return ConfigError(
        what,
        expected,
        "pass what builder.compile(), create_agent() or @entrypoint gives; for other runnables"
        " pass LLMOpsCallbackHandler() in config={'callbacks': [...]}",
    )
