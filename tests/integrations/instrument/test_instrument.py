"""One line records everything, once, from every thread; and can be taken back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_core.callbacks import BaseCallbackHandler, CallbackManager, dispatch_custom_event
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_core.tracers import context as langchain_hooks
from langchain_kit import CompletionModel, failures_of_ours, scripted
from langgraph.graph import START, StateGraph
from langgraph.pregel import main as langgraph_runner
from langgraph.types import Command
from langgraph_kit import WAYS, agent, config, fork, line, one, pauses, say, sub

from llmops_core import ConfigError, Monitor, initialize_monitoring_sync, monitor_llm, shutdown
from llmops_core.testing.fixtures import CapturedSpans, spans
from llmops_integrations import instrument, instrumented, uninstrument
from llmops_integrations.langchain import LLMOpsCallbackHandler
from llmops_integrations.langgraph import LangGraphHandler, monitor_graph

__all__ = ["spans"]

way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@tool
def search(query: str) -> str:
    """Searches."""
    return query


def chain() -> Any:
    """Everything that is hidden, stored and told as an event."""

    def tell(text: Any) -> Any:
        dispatch_custom_event("seen", {"text": str(text)})
        return {"text": search.invoke({"query": "x"})}

    prompt = ChatPromptTemplate.from_template("{text}")  # is not stored
    return (RunnableLambda(tell) | prompt | scripted("a")).with_config(run_name="chain")


CHAIN = """\
workflow chain ok
  chain tell ok
    event seen ok
    tool search ok
  llm scripted-1 ok 12+3 tokens
"""


# ---- once ----


def twice(monitor: Monitor) -> list[Any]:
    instrument(monitor)
    instrument(monitor)
    instrument()
    return []


def with_a_handler(monitor: Monitor) -> list[Any]:
    instrument(monitor)
    return [LLMOpsCallbackHandler(monitor)]


def with_two_of_each(monitor: Monitor) -> list[Any]:
    instrument(monitor)
    return [
        LLMOpsCallbackHandler(monitor),
        LangGraphHandler(monitor),
        LLMOpsCallbackHandler(monitor),
    ]


def two_handlers(monitor: Monitor) -> list[Any]:
    return [LLMOpsCallbackHandler(monitor), LLMOpsCallbackHandler(monitor)]


def off_and_on(monitor: Monitor) -> list[Any]:
    instrument(monitor)
    uninstrument()
    uninstrument()
    instrument(monitor)
    return []


WIRINGS = [twice, with_a_handler, with_two_of_each, two_handlers, off_and_on]
wired = pytest.mark.parametrize("wire", WIRINGS)


@wired
def test_a_run_is_recorded_once_however_it_is_attached(wire: Any, spans: CapturedSpans) -> None:
    chain().invoke("x", {"callbacks": wire(spans.monitor)})
    spans.monitor.flush()
    spans.clock.advance(60_000)  # what would still come of an end without a start
    assert spans.tree() == CHAIN
    counted = spans.monitor.stats()["spans"]
    assert (counted["open"], counted["made"]) == (0, 5)


@wired
async def test_an_async_run_too(wire: Any, spans: CapturedSpans) -> None:
    await chain().ainvoke("x", {"callbacks": wire(spans.monitor)})
    assert await asyncio.to_thread(spans.tree) == CHAIN


@wired
def test_a_graph_of_an_agent_too(wire: Any, spans: CapturedSpans) -> None:
    graph = agent()
    graph.invoke({"messages": [("user", "pay")]}, config(callbacks=wire(spans.monitor)))
    assert spans.tree().count("agent teller") == 1
    assert len(spans()) == len({s.span_id for s in spans()})
    assert [s.name for s in spans() if s.kind == "tool"] == ["refund"]


def test_monitor_graph_beside_it_records_once_and_names_agents(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    graph = monitor_graph(
        line(("plan", say("a")), ("write", say("b"))), agents=["write"], monitor=spans.monitor
    )
    graph.invoke({"said": []}, config())
    assert "\n  agent write ok\n" in spans.tree()
    assert spans.tree().count("workflow LangGraph") == 1


def test_two_monitors_get_a_whole_tree_each(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    with Monitor(storage="memory:", durability="memory") as other:
        chain().invoke("x", {"callbacks": [LLMOpsCallbackHandler(other)]})
        other.flush()
        assert other.query().num_rows == 5
    assert spans.tree() == CHAIN


# ---- everywhere ----


def test_it_is_seen_in_plain_threads_pools_and_other_loops(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    thread = threading.Thread(target=search.invoke, args=({"query": "thread"},))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(search.invoke, {"query": "pool"}).result()
        pool.submit(asyncio.run, search.ainvoke({"query": "loop"})).result()
    assert spans.tree() == "tool search ok\n" * 3


def test_it_records_a_graph_whose_caller_passes_a_manager_of_its_own(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    manager = CallbackManager(handlers=[])
    one().invoke({"said": []}, config(callbacks=manager))
    assert spans.tree().startswith("workflow LangGraph interrupted")
    assert manager.handlers == []


# ---- pauses are as true as under monitor_graph ----

PAUSED = {"node": (one, {"said": []}), "subgraph": (sub, {"said": []}), "two": (fork, {"said": []}),
          "tool": (agent, {"messages": [("user", "pay me")]})}  # fmt: skip


@way
@pytest.mark.parametrize("name", PAUSED)
async def test_a_pause_is_told_as_under_monitor_graph(
    name: str, way: Any, spans: CapturedSpans
) -> None:
    make, given = PAUSED[name]

    async def told(attach: Any) -> tuple[str, list[Any]]:
        graph = attach(make())
        thread = f"{name} {attach.__name__}"
        await way(graph, given, config(thread))
        answers: Any = "yes"
        if name == "two":
            state = graph.get_state(config(thread))
            answers = {asked.id: "yes" for asked in state.interrupts}
        await way(graph, Command(resume=answers), config(thread))
        trees = await asyncio.to_thread(spans.tree)
        found = [p for p in await asyncio.to_thread(pauses, spans) if p.thread_id == thread]
        lines = trees.splitlines()
        start = next(at for at, row in enumerate(lines) if row.endswith(f"session={thread}"))
        said = {"yes"} if name == "two" else None  # of each question, by its id
        facts = [
            (
                p.answered,
                (said and set(p.answer.values())) or p.answer,
                sorted(str(q.value) for q in p.asked),
            )
            for p in found
        ]
        return "\n".join(lines[start:]).replace(thread, "thread"), facts

    def monitored(graph: Any) -> Any:
        return monitor_graph(graph, monitor=spans.monitor)

    def plain(graph: Any) -> Any:
        instrument(spans.monitor)
        return graph

    by_hand = await told(monitored)
    assert by_hand[1]
    assert await told(plain) == by_hand


# ---- taken back, and moved ----


def test_taken_back_it_records_nothing_and_leaves_nothing_behind(spans: CapturedSpans) -> None:
    originals = dict(vars(langgraph_runner))
    instrument(spans.monitor)
    assert vars(langgraph_runner) != originals
    uninstrument()
    assert dict(vars(langgraph_runner)) == originals
    hooks = len(langchain_hooks._configure_hooks)
    instrument(spans.monitor)
    uninstrument()
    assert len(langchain_hooks._configure_hooks) == hooks
    chain().invoke("x")
    one().invoke({"said": []}, config())
    assert CallbackManager.configure().handlers == []
    assert spans() == []
    assert set(instrumented().values()) <= {"off"}


def test_what_has_begun_is_recorded_to_its_end(spans: CapturedSpans) -> None:
    instrument(spans.monitor)

    def work(x: Any) -> Any:
        uninstrument()
        return search.invoke({"query": "x"})

    RunnableLambda(work).invoke("x")
    assert spans.tree() == "workflow work ok\n  tool search ok\n"


def test_switched_off_between_langchains_two_looks_nothing_is_raised(spans: CapturedSpans) -> None:
    instrument(spans.monitor)
    ((hook, _, made, _),) = [
        h for h in langchain_hooks._configure_hooks if type(h[0]).__name__ == "LangChainHook"
    ]
    assert hook.get() is not None
    uninstrument()
    assert hook.get() is None
    nothing = made()  # what LangChain does then
    assert isinstance(nothing, BaseCallbackHandler)
    scripted("a").invoke("x", {"callbacks": [nothing]})
    assert spans() == []


def test_another_monitor_gets_what_begins_from_then_on(spans: CapturedSpans) -> None:
    with Monitor(storage="memory:", durability="memory") as first:
        assert instrument(first) is first
        search.invoke({"query": "1"})
        instrument(spans.monitor)
        search.invoke({"query": "2"})
        first.flush()
        assert first.query().num_rows == 1
    assert spans.tree() == "tool search ok\n"


def test_the_default_monitor_is_followed() -> None:
    first = initialize_monitoring_sync(storage="memory:", durability="memory")
    assert instrument() is first
    search.invoke({"query": "1"})
    second = initialize_monitoring_sync(storage="memory:", durability="memory")
    try:
        search.invoke({"query": "2"})
        second.flush()
        assert [row["input"] for row in second.query().to_pylist()] == ['{"query":"2"}']
    finally:
        shutdown()


def test_what_is_no_monitor_is_refused() -> None:
    with pytest.raises(ConfigError, match="Expected a Monitor"):
        instrument("parquet:./data")  # type: ignore[arg-type]


def test_it_says_what_is_hooked_and_how(spans: CapturedSpans) -> None:
    search.invoke({"query": "x"})
    instrument(spans.monitor)
    states = instrumented()
    assert states["langchain"] == "attached: register_configure_hook"
    assert states["langgraph"] == "attached: wrapped functions of langgraph.pregel.main"
    assert states["crewai"] in (
        "not installed",
        "waits for its import",
        "attached: crewai_event_bus",
    )


def test_a_release_that_cannot_be_hooked_is_told_and_the_rest_goes_on(
    spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(langgraph_runner, "get_sync_graph_callback_manager_for_config")
    instrument(spans.monitor)
    assert instrumented()["langgraph"].startswith("failed: LookupError")
    assert failures_of_ours(spans.monitor) == {"handler.instrument langgraph: LookupError": 1}
    search.invoke({"query": "x"})
    assert spans.tree() == "tool search ok\n"


# ---- nothing changes for the program ----


def test_results_errors_and_streamed_chunks_are_the_same(spans: CapturedSpans) -> None:
    def fails(x: Any) -> Any:
        raise KeyError(x)

    def outcomes() -> list[Any]:
        stream = [chunk.content for chunk in scripted("one two three").stream("x")]
        with pytest.raises(KeyError) as raised:
            RunnableLambda(fails).invoke("x")
        return [stream, str(raised.value), chain().invoke("x").content]

    before = outcomes()
    instrument(spans.monitor)
    assert outcomes() == before


async def test_handlers_that_are_not_inline_see_async_completions_too(
    spans: CapturedSpans,
) -> None:
    """LangChain hides their starts where any handler is inline: issue 39633."""
    seen: list[str] = []
    threads: set[str] = set()

    class Other(BaseCallbackHandler):
        def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
            seen.append("start")

        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append("end")

    handler = LLMOpsCallbackHandler.on_llm_start

    def on_llm_start(self: Any, *args: Any, **kwargs: Any) -> None:
        threads.add(threading.current_thread().name)
        handler(self, *args, **kwargs)

    instrument(spans.monitor)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LLMOpsCallbackHandler, "on_llm_start", on_llm_start)
        await CompletionModel().ainvoke("x", {"callbacks": [Other()]})
    assert seen == ["start", "end"]
    assert threads == {"MainThread"}, "and ours is inline"
    (span,) = await asyncio.to_thread(spans)
    assert span.duration_ms is not None


def test_a_decorated_function_nests_with_it(spans: CapturedSpans) -> None:
    instrument(spans.monitor)

    @monitor_llm(monitor=spans.monitor)
    def inner(text: str) -> str:
        return str(search.invoke({"query": text}))

    builder = StateGraph(dict)
    builder.add_node("node", lambda state: {"text": inner("x")})
    builder.add_edge(START, "node")

    @monitor_llm(monitor=spans.monitor)
    def outer() -> Any:
        return builder.compile().invoke({"text": ""})

    outer()
    assert spans.tree() == (
        "workflow outer ok\n"
        "  workflow LangGraph ok\n"
        "    task node [node] ok\n"
        "      chain inner [node] ok\n"
        "        tool search [node] ok\n"
    )


# ---- before and after the import ----

PROGRAM = """
import sys, threading
{first}
assert not any(name in sys.modules for name in {absent!r}), "imported by itself"
{second}
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import interrupt
@tool
def search(query: str) -> str:
    "Searches."
    return query
graph = StateGraph(dict).add_node("node", lambda s: interrupt(search.invoke("x")))
graph = graph.add_edge(START, "node").compile(name="desk", checkpointer=InMemorySaver())
call = threading.Thread(target=graph.invoke, args=({{}}, {{"configurable": {{"thread_id": "t"}}}}))
call.start(); call.join()
from llmops_core import span_tree, spans_from_arrow
monitor.flush()
spans = spans_from_arrow(monitor.query())
print(span_tree(spans), [s.wait_key is not None for s in spans if s.parent_id is None])
monitor.close()
"""
INSTRUMENT = """
from llmops_core import Monitor
from llmops_integrations import instrument
monitor = instrument(Monitor(storage="memory:", durability="memory"))
"""
IMPORTS = "import langchain_core.tools, langgraph.graph"
FRAMEWORKS = ("langchain_core", "langgraph", "crewai", "langsmith")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (INSTRUMENT, IMPORTS),
        (IMPORTS, INSTRUMENT),
        (INSTRUMENT, f"{IMPORTS}; instrument()"),
    ],
    ids=["before", "after", "both"],
)
def test_it_works_before_and_after_the_frameworks_import(first: str, second: str) -> None:
    absent = FRAMEWORKS if first is INSTRUMENT else ()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first, second=second, absent=absent)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "workflow desk interrupted session=t\n"
        "  task node [node] interrupted\n"
        "    tool search [node] ok\n"
        " [True]\n"
    )
