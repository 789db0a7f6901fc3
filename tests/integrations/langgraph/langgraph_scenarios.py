"""What LangGraph adds to the handler suite: small programs, and the span tree of each as text.

A program is a function that makes a fresh graph; nothing in it knows of a monitor. Where a tree
depends on the way of the call, or on chance, the scenario says so.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_kit import add, scripted
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import NodeTimeoutError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import CachePolicy, Command, RetryPolicy, Send, interrupt
from typing_extensions import TypedDict

__all__ = ["SCENARIOS", "GraphScenario", "call_of", "supervisor", "swarm"]

ALL_WAYS = ("invoke", "ainvoke", "stream", "astream")
ASK = {"messages": [("user", "add 1 and 2")]}


class State(TypedDict, total=False):
    said: Annotated[list[Any], operator.add]


@dataclass(frozen=True)
class GraphScenario:
    """One graph, what it is called with, turn by turn, and the trees that may come of it."""

    name: str
    make: Callable[[], Any]
    turns: Sequence[Any] = ({"said": []},)
    config: dict[str, Any] = field(default_factory=dict)
    ways: Sequence[str] = ALL_WAYS
    raises: type[BaseException] | None = None
    agents: tuple[str, ...] | None = None


def say(word: str) -> Any:
    return lambda state: {"said": [word]}


def talk(word: str) -> Any:
    """A node that calls a model, and so is an agent."""
    model = scripted(word)

    def node(state: Any) -> Any:
        model.invoke("go on")
        return {"said": [word]}

    async def anode(state: Any) -> Any:
        await model.ainvoke("go on")
        return {"said": [word]}

    return RunnableLambda(node, anode)


def graph(
    nodes: dict[str, Any],
    edges: Sequence[tuple[str, str]],
    *,
    state: Any = State,
    routes: Sequence[tuple[str, Any]] = (),
    **kwargs: Any,
) -> Any:
    builder = StateGraph(state)
    for name, node in nodes.items():
        node, options = node if isinstance(node, tuple) else (node, {})
        builder.add_node(name, node, **options)
    for edge in edges:
        builder.add_edge(*edge)
    for where, route in routes:
        builder.add_conditional_edges(where, route)
    return builder.compile(**{"name": "desk", **kwargs})


def call_of(name: str, call_id: str = "c1", **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": call_id}


def calling(*calls: dict[str, Any], text: str = "") -> AIMessage:
    return AIMessage(text, tool_calls=list(calls))


# ---- nodes and edges ----


def static_edges() -> Any:
    return graph(
        {"a": say("a"), "b": say("b"), "c": say("c")}, [(START, "a"), ("a", "b"), ("b", "c")]
    )


def conditional_edges() -> Any:
    return graph(
        {"a": say("a"), "b": say("b"), "c": say("c")},
        [],
        routes=[
            (START, lambda state: "a"),
            ("a", lambda state: "c" if state["said"] else "b"),
            ("c", lambda state: END),
        ],
    )


def edges_between_agents() -> Any:
    return graph({"a": talk("a"), "b": talk("b")}, [(START, "a"), ("a", "b")])


def loop_of_agents() -> Any:
    return graph(
        {"writer": talk("w"), "reviewer": talk("r")},
        [(START, "writer"), ("writer", "reviewer")],
        routes=[("reviewer", lambda s: "writer" if len(s["said"]) < 3 else END)],
    )


def subgraph() -> Any:
    inner = graph(
        {"fetch": say("f"), "read": talk("r")},
        [(START, "fetch"), ("fetch", "read")],
        name="library",
    )
    return graph({"research": inner, "b": say("b")}, [(START, "research"), ("research", "b")])


def fan_out() -> Any:
    return graph(
        {
            "plan": say("plan"),
            "work": lambda s: {"said": [s]},
            "slow": say("slow"),
            "join": (say("join"), {"defer": True}),
        },
        [(START, "plan"), ("work", "slow"), ("slow", "join"), ("work", "join")],
        routes=[("plan", lambda state: [Send("work", i) for i in range(3)])],
    )


def fan_out_of_the_input() -> Any:
    return graph(
        {"work": lambda s: {"said": [s]}},
        [],
        routes=[(START, lambda state: [Send("work", i) for i in range(2)])],
    )


def command_to_a_node() -> Any:
    def triage(state: Any) -> Command[Any]:
        return Command(goto="billing", update={"said": ["triaged"]})

    return graph({"triage": triage, "billing": talk("paid")}, [(START, "triage")])


def command_to_the_parent() -> Any:
    def leave(state: Any) -> Command[Any]:
        return Command(goto="billing", update={"said": ["left"]}, graph=Command.PARENT)

    inner = graph(
        {"think": talk("hm"), "leave": leave},
        [(START, "think"), ("think", "leave")],
        name="library",
    )
    return graph({"research": inner, "billing": talk("paid")}, [(START, "research")])


def command_in_a_subgraph() -> Any:
    def triage(state: Any) -> Command[Any]:
        return Command(goto="billing")

    inner = graph({"triage": triage, "billing": talk("paid")}, [(START, "triage")], name="library")
    return graph({"research": inner}, [(START, "research")])


def command_to_the_end() -> Any:
    return graph({"a": lambda s: Command(goto=END), "b": say("b")}, [(START, "a")])


def retries() -> Any:
    tries: list[int] = []

    def flaky(state: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no")
        return {"said": ["at last"]}

    policy = RetryPolicy(max_attempts=3, initial_interval=0.001, retry_on=ConnectionError)
    return graph({"flaky": (flaky, {"retry_policy": policy})}, [(START, "flaky")])


def node_timeout() -> Any:
    async def slow(state: Any) -> Any:
        await asyncio.sleep(30)

    return graph(
        {"a": say("a"), "slow": (slow, {"timeout": timedelta(milliseconds=50)})},
        [(START, "a"), ("a", "slow")],
    )


def cache_hit() -> Any:
    return graph(
        {"a": (say("a"), {"cache_policy": CachePolicy()}), "b": say("b")},
        [(START, "a"), ("a", "b")],
        cache=InMemoryCache(),
    )


def recursion_limit() -> Any:
    return graph({"a": say("a"), "b": say("b")}, [(START, "a"), ("a", "b"), ("b", "a")])


def functional() -> Any:
    @task
    def double(number: int) -> int:
        return 2 * number

    @entrypoint()
    def flow(numbers: Any) -> Any:
        return [double(n).result() for n in numbers["said"]]

    return flow


def functional_agent() -> Any:
    model = scripted("four")

    @task
    def ask(question: str) -> str:
        return str(model.invoke(question).content)

    @entrypoint()
    def flow(questions: Any) -> Any:
        return [ask(q).result() for q in questions["said"]]

    return flow


def run_names() -> Any:
    inner = graph({"fetch": say("f")}, [(START, "fetch")], name="library")
    return graph(
        {"research": inner.with_config(run_name="archive"), "b": say("b")},
        [(START, "research"), ("research", "b")],
    )


# ---- agents ----


def lone_agent() -> Any:
    model = scripted(calling(call_of("add", a=1, b=2)), "3", by_history=True)
    return create_agent(model, [add], name="boss")


def nameless_agent() -> Any:
    return create_agent(scripted("3"), [add])


def agent_in_a_graph() -> Any:
    return graph(
        {"sums": lone_agent(), "b": talk("b")}, [(START, "sums"), ("sums", "b")], state=_Both
    )


class _Both(MessagesState):
    said: Annotated[list[Any], operator.add]


def agent_that_leaves() -> Any:
    """An agent, in a node of another name, whose own tool sends its work to the parent."""

    @tool
    def pass_on(order: str) -> Command[Any]:
        """Pass on."""
        told = ToolMessage("passed on", tool_call_id="c1")
        return Command(goto="billing", graph=Command.PARENT, update={"messages": [told]})

    call = calling(call_of("pass_on", order="A-1042"), text="over to billing")
    agent = create_agent(scripted(call), [pass_on], name="researcher")
    return graph({"r": agent, "billing": talk("paid")}, [(START, "r")], state=_Both)


def team_of_agents() -> Any:
    team = graph(
        {"x": _worker("x", "x"), "y": _worker("y", "y")},
        [(START, "x"), ("x", "y")],
        state=_Both,
        name="team",
    )
    return graph({"team": team, "z": talk("z")}, [(START, "team"), ("team", "z")], state=_Both)


def named_node() -> Any:
    return graph({"planner": say("p"), "b": say("b")}, [(START, "planner"), ("planner", "b")])


def react_agent() -> Any:
    from langgraph.prebuilt import create_react_agent

    model = scripted(calling(call_of("add", a=1, b=2)), "3", by_history=True)
    return create_react_agent(model, [add], name="boss")


def react_agent_in_a_graph() -> Any:
    return graph(
        {"sums": react_agent(), "b": say("b")}, [(START, "sums"), ("sums", "b")], state=_Both
    )


def agent_as_a_tool() -> Any:
    inner = create_agent(scripted("it is order A-1042"), [], name="researcher")

    @tool
    def research(topic: str) -> str:
        """Ask the researcher."""
        return str(inner.invoke({"messages": [("user", topic)]})["messages"][-1].content)

    model = scripted(calling(call_of("research", topic="A-1042")), "done", by_history=True)
    return create_agent(model, [research], name="boss")


def summarising_agent() -> Any:
    middleware = SummarizationMiddleware(
        model=scripted("so far: sums"), trigger=("messages", 3), keep=("messages", 1)
    )
    return create_agent(scripted("fine"), [], name="boss", middleware=[middleware])


def _worker(name: str, text: str) -> Any:
    return create_agent(scripted(text), [], name=name)


def supervisor(*calls: dict[str, Any]) -> Any:
    """A supervisor of two agents, which it asks by these calls at once, and then it is done."""
    from langgraph_supervisor import create_supervisor

    lead = scripted(calling(*calls, text="order A-1042 please"), "all done", by_history=False)
    workers = [_worker("billing", "A-1042 is paid"), _worker("shipping", "A-1042 is out")]
    return create_supervisor(workers, model=lead).compile(name="desk")


def nested_supervisors() -> Any:
    from langgraph_supervisor import create_supervisor

    team = supervisor(call_of("transfer_to_billing"))
    team.name = "team"
    lead = scripted(calling(call_of("transfer_to_team")), "all done")
    return create_supervisor([team], model=lead, supervisor_name="top").compile(name="company")


def swarm() -> Any:
    from langgraph_swarm import create_handoff_tool, create_swarm

    to_bob = create_handoff_tool(agent_name="bob")
    ask_bob = calling(call_of("transfer_to_bob"), text="bob knows A-1042")
    alice = create_agent(scripted(ask_bob), [to_bob], name="alice")
    bob = create_agent(scripted("A-1042 is out"), [add], name="bob")
    builder = create_swarm([alice, bob], default_active_agent="alice")
    return builder.compile(checkpointer=InMemorySaver(), name="desk")


# ---- pauses ----


def pausing() -> Any:
    return graph(
        {"a": say("a"), "ask": lambda s: {"said": [interrupt("sure?")]}, "b": say("b")},
        [(START, "a"), ("a", "ask"), ("ask", "b")],
        checkpointer=InMemorySaver(),
    )


def pausing_tool() -> Any:
    @tool
    def refund(amount: int) -> str:
        """Pay back."""
        return f"refund {interrupt(f'pay {amount}?')}"

    model = scripted(calling(call_of("refund", amount=7)), "done", by_history=True)
    return create_agent(model, [refund], name="teller", checkpointer=InMemorySaver())


THREAD = {"configurable": {"thread_id": "chat-7"}}
LONG = {
    "messages": [
        HumanMessage("one"),
        AIMessage("1"),
        HumanMessage("two"),
        AIMessage("2"),
        HumanMessage("three"),
    ]
}
BOTH = {**ASK, "said": []}

S = GraphScenario
SCENARIOS: tuple[GraphScenario, ...] = (
    S("static edges", static_edges),
    S("conditional edges", conditional_edges),
    S("edges between agents", edges_between_agents),
    S("loop of agents", loop_of_agents),
    S("subgraph", subgraph),
    S("fan-out", fan_out),
    S("fan-out of the input", fan_out_of_the_input),
    S("command to a node", command_to_a_node),
    S("command to the parent", command_to_the_parent),
    S("command in a subgraph", command_in_a_subgraph),
    S("command to the end", command_to_the_end),
    S("retries", retries),
    S("node timeout", node_timeout, ways=("ainvoke", "astream"), raises=NodeTimeoutError),
    S("cache hit", cache_hit, turns=({"said": []}, {"said": []})),
    S("recursion limit", recursion_limit, config={"recursion_limit": 3}, raises=RecursionError),
    S("functional", functional, turns=({"said": [1, 2]},)),
    S("functional agent", functional_agent, turns=({"said": ["2 + 2?"]},)),
    S("runtime names", run_names, config={"run_name": "friday"}),
    S("lone agent", lone_agent, turns=(ASK,)),
    S("nameless agent", nameless_agent, turns=(ASK,)),
    S("agent in a graph", agent_in_a_graph, turns=(BOTH,)),
    S("agent that leaves", agent_that_leaves, turns=(BOTH,)),
    S("team of agents", team_of_agents, turns=(BOTH,)),
    S("named node", named_node, agents=("planner",)),
    S("react agent", react_agent, turns=(ASK,)),
    S("react agent in a graph", react_agent_in_a_graph, turns=(BOTH,)),
    S("agent as a tool", agent_as_a_tool, turns=(ASK,)),
    S("summarising agent", summarising_agent, turns=(LONG,)),
    S("supervisor", lambda: supervisor(call_of("transfer_to_billing")), turns=(ASK,)),
    S("nested supervisors", nested_supervisors, turns=(ASK,)),
    S("swarm", swarm, turns=(ASK, ASK), config=THREAD),
    S("pause", pausing, turns=({"said": []}, Command(resume="yes")), config=THREAD),
    S("pause in a tool", pausing_tool, turns=(ASK, Command(resume="yes")), config=THREAD),
)
