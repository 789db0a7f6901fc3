"""Which span a LangChain or LangGraph run becomes: facts about a run, and a table of rules.

A run's facts are gathered once at its start (:func:`facts`); the first rule of :data:`RULES` whose
facts all hold decides (:func:`rule_for`). Decisions are remembered by fact set, so the table may be
read top down and costs one dictionary look-up. Only chain runs need rules: a model, tool or
retriever run always keeps its own kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

__all__ = [
    "AGENT_RUN",
    "EDGE",
    "FACTS",
    "HIDDEN",
    "IN_AGENT",
    "NAMED",
    "NODE",
    "PLUMBING",
    "ROOT",
    "RULES",
    "TASK",
    "Rule",
    "agent_name",
    "agent_of_namespace",
    "facts",
    "inherited_facts",
    "is_agent_in_namespace",
    "rule_for",
]

AgentFrom = Literal["inherited", "itself", "node"]

#: A run without a parent.
ROOT: Final = 1
#: A run of a graph that ``create_agent`` made.
AGENT_RUN: Final = 2
#: A LangGraph node.
NODE: Final = 4
#: A task of LangGraph's functional API.
TASK: Final = 8
#: A run that the framework itself hides, or ``__start__``.
HIDDEN: Final = 16
#: The function of a conditional edge, which runs below the node that it leaves.
EDGE: Final = 32
#: A runnable that only carries values to the next.
PLUMBING: Final = 64
#: A node inside a ``create_agent`` graph.
IN_AGENT: Final = 128
#: A node that the user named as an agent.
NAMED: Final = 256

FACTS: Final[Mapping[str, int]] = {
    "root": ROOT,
    "agent run": AGENT_RUN,
    "node": NODE,
    "task": TASK,
    "hidden": HIDDEN,
    "edge": EDGE,
    "plumbing": PLUMBING,
    "in agent": IN_AGENT,
    "named agent": NAMED,
}


class Rule(NamedTuple):
    """One row: where the facts in ``when`` hold, the run becomes a span of ``kind``.

    ``kind`` None means that the run is not stored: its children get its parent. A ``promotable``
    task becomes an agent when a model call starts directly below it. ``agent`` says where the
    span's agent comes from.
    """

    when: int
    kind: str | None
    promotable: bool = False
    agent: AgentFrom = "inherited"


#: First match wins. Roots come first: a root is always stored, whatever else it is.
RULES: Final[tuple[Rule, ...]] = (
    Rule(ROOT | AGENT_RUN, "agent", agent="itself"),
    Rule(ROOT, "workflow"),
    Rule(HIDDEN, None),
    Rule(NAMED, "agent", agent="itself"),
    Rule(NODE | IN_AGENT, "task", agent="node"),
    Rule(NODE, "task", promotable=True, agent="node"),
    Rule(TASK, "task", promotable=True, agent="node"),
    Rule(AGENT_RUN, "agent", agent="itself"),
    Rule(EDGE, None),
    Rule(PLUMBING, None),
    Rule(0, "chain"),
)

_START: Final = "__start__"
_HIDDEN_TAG: Final = "langsmith:hidden"
_FIRST_STEP: Final = "seq:step:1"
_CREATE_AGENT: Final = "langchain_create_agent"
#: Plumbing of LangChain, by the name that the framework itself gives.
_CARRIERS: Final = frozenset({"RunnableSequence", "Prompt"})
#: Plumbing of prebuilt agents and of LangGraph; only inside a graph. None: an async edge function.
_GRAPH_CARRIERS: Final = frozenset(
    {
        "call_model",
        "RunnableCallable",
        "should_continue",
        "call_agent",
        "LangGraphUpdateState",
        None,
    }
)
#: LangChain's own containers report no ``run_type`` either, so as a node's second or later step
#: they are told from edge functions by name (test_a_container_in_a_node_is_no_edge).
_CONTAINERS: Final = ("RunnableParallel", "RunnableWithFallbacks", "RunnableBranch", "RunnableEach")

_decided: dict[int, Rule] = {}


def rule_for(run_facts: int) -> Rule:
    """Return the first rule whose facts all hold."""
    rule = _decided.get(run_facts)
    if rule is None:
        rule = next(r for r in RULES if r.when & run_facts == r.when)
        _decided[run_facts] = rule
    return rule


def facts(
    name: str | None,
    tags: Sequence[str],
    metadata: Mapping[str, Any],
    extra: Mapping[str, Any],
    *,
    has_parent: bool,
    parent_facts: int = 0,
) -> int:
    """Gather the facts of a chain run from what its start callback was given.

    *extra* are the callback's other keyword arguments; LangChain's runnables pass ``run_type``
    (often None), LangGraph's do not. *parent_facts* are those of the parent run, 0 if unknown.
    """
    found = 0 if has_parent else ROOT
    agent_made = _own(metadata, "ls_integration") == _CREATE_AGENT
    node = _own(metadata, "langgraph_node")
    if node is None:
        # Metadata is inherited, so inside an agent everything looks agent-made: only the outermost
        # such run, or one that bears the agent's own name, is an agent run.
        if agent_made and not parent_facts & (AGENT_RUN | IN_AGENT):
            found |= AGENT_RUN
        return found | _plumbing(name, extra)
    found |= _graph_facts(name, tags, metadata, extra)
    if found & (NODE | TASK):
        in_agent = agent_made or parent_facts & AGENT_RUN  # create_react_agent leaves no mark
        return found | IN_AGENT if in_agent and found & NODE else found
    if agent_made and _is_agent_run(name, metadata, extra, parent_facts):
        return found | AGENT_RUN
    if parent_facts & NODE and _is_edge(name, tags, extra):
        return found | EDGE
    return found | _plumbing(name, extra, in_graph=True) | inherited_facts(parent_facts)


def _own(metadata: Mapping[str, Any], key: str) -> str | None:
    """Return a text that the framework put there; a comparison with anything else may be the user's."""
    value = metadata.get(key)
    return value if type(value) is str else None


def _graph_facts(
    name: str | None, tags: Sequence[str], metadata: Mapping[str, Any], extra: Mapping[str, Any]
) -> int:
    hidden = any(type(tag) is str and tag == _HIDDEN_TAG for tag in tags)
    found = HIDDEN if name == _START or hidden else 0
    if name != _own(metadata, "langgraph_node") or "run_type" in extra:
        return found
    # Everything below a node inherits langgraph_node; only the node itself has a graph:step tag.
    for tag in tags:
        if type(tag) is str and tag.startswith("graph:step:"):
            return found | NODE
    path = metadata.get("langgraph_path")
    # Send's path has three parts and ends in False; a functional task's has four, ending in True.
    if type(path) is tuple and path and path[-1] is True and _is_first(tags):
        return found | TASK
    return found


def _is_agent_run(
    name: str | None, metadata: Mapping[str, Any], extra: Mapping[str, Any], parent_facts: int
) -> bool:
    if "run_type" in extra:
        return False
    named = _own(metadata, "lc_agent_name")
    return (named is not None and name == named) or not parent_facts & (AGENT_RUN | IN_AGENT)


def _is_edge(name: str | None, tags: Sequence[str], extra: Mapping[str, Any]) -> bool:
    """Whether a node's child is an edge function: a later step than the node's own function."""
    if "run_type" in extra or (name is not None and name.startswith(_CONTAINERS)):
        return False
    return any(
        type(tag) is str and tag.startswith("seq:step:") and tag != _FIRST_STEP for tag in tags
    )


def _is_first(tags: Sequence[str]) -> bool:
    return any(type(tag) is str and tag == _FIRST_STEP for tag in tags)


def _plumbing(name: str | None, extra: Mapping[str, Any], *, in_graph: bool = False) -> int:
    if name in _CARRIERS or _own(extra, "run_type") == "prompt":
        return PLUMBING
    return PLUMBING if in_graph and name in _GRAPH_CARRIERS and "run_type" not in extra else 0


def inherited_facts(parent_facts: int) -> int:
    """Return the facts that hold for everything below a run as well."""
    return IN_AGENT if parent_facts & (AGENT_RUN | IN_AGENT) else 0


def agent_name(rule: Rule, name: str, metadata: Mapping[str, Any], run_facts: int) -> str | None:
    """Return the agent that a run's span names, or None where it inherits its parent's."""
    if rule.agent == "inherited":
        return None
    named = metadata.get("lc_agent_name")
    if type(named) is str:
        return named
    if rule.agent == "itself":
        return name
    if run_facts & IN_AGENT:
        return None  # a node of an agent without a name works for that agent
    return agent_of_namespace(metadata.get("langgraph_checkpoint_ns"))


def is_agent_in_namespace(rule: Rule, metadata: Mapping[str, Any], run_facts: int) -> bool:
    """Whether :func:`agent_name` reads the namespace of the run, which no two runs share."""
    return (
        rule.agent == "node"
        and not run_facts & IN_AGENT
        and type(metadata.get("lc_agent_name")) is not str
    )


def agent_of_namespace(namespace: object) -> str | None:
    """Return the node of the outermost graph that a namespace begins with."""
    if type(namespace) is not str:
        return None
    return namespace.partition("|")[0].partition(":")[0]
