"""Beside other tools in one process: they record what they record without us, and we without them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import pytest

pytest.importorskip("openinference.instrumentation.crewai")
pytest.importorskip("openinference.instrumentation.langchain")
pytest.importorskip("langfuse.langchain")
pytest.importorskip("crewai")
pytest.importorskip("langgraph")

from crewai.tools import tool
from crewai_kit import act, agent, crew, final, task
from langchain_core.prompts import ChatPromptTemplate
from langchain_kit import CompletionModel, scripted
from langfuse import Langfuse
from langfuse.langchain import CallbackHandler
from langgraph.graph import START, StateGraph
from openinference.instrumentation.crewai import CrewAIInstrumentor
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typing_extensions import TypedDict

from llmops_core import Monitor, monitor_llm, span_tree, spans_from_arrow
from llmops_integrations import instrument, uninstrument

Attach = Callable[[ExitStack, InMemorySpanExporter], list[Any]]


class State(TypedDict, total=False):
    text: str


@pytest.fixture(autouse=True)
def _taken_back() -> Iterator[None]:
    yield
    uninstrument()


# ---- the others ----

_clients = count()


def _provider(stack: ExitStack, exporter: InMemorySpanExporter) -> TracerProvider:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stack.callback(provider.shutdown)
    return provider


def openinference(stack: ExitStack, exporter: InMemorySpanExporter) -> list[Any]:
    provider = _provider(stack, exporter)
    for made in (LangChainInstrumentor(), CrewAIInstrumentor()):
        made.instrument(tracer_provider=provider, skip_dep_check=True)
        stack.callback(made.uninstrument)
    return []


def langfuse(stack: ExitStack, exporter: InMemorySpanExporter) -> list[Any]:
    key = f"pk-test-{next(_clients)}"  # one client for each key and process
    client = Langfuse(
        public_key=key,
        secret_key="sk-test",
        base_url="http://127.0.0.1:9",
        tracer_provider=TracerProvider(),
        span_exporter=exporter,
    )
    stack.callback(client.flush)
    return [CallbackHandler(public_key=key)]


def opentelemetry(stack: ExitStack, exporter: InMemorySpanExporter) -> list[Any]:
    """The program's own span around everything, and nothing that knows of the frameworks."""
    tracer = _provider(stack, exporter).get_tracer("program")
    stack.enter_context(tracer.start_as_current_span("request"))
    return []


VENDORS: dict[str, Attach] = {f.__name__: f for f in (openinference, langfuse, opentelemetry)}


# ---- the programs ----


def chain() -> Any:
    return (ChatPromptTemplate.from_template("{text}") | scripted("a fact")).with_config(
        run_name="inner"
    )


def mixed(monitor: Monitor) -> Any:
    @monitor_llm("look up", monitor=monitor)
    def look_up(query: str) -> str:
        return str(chain().invoke({"text": query}).content)

    @tool("search")
    def search(query: str) -> str:
        """Searches."""
        return look_up(query)

    def node(state: State) -> State:
        worker = agent("a", act("search", query=state["text"]), final("found"), tools=[search])
        return {"text": str(crew(task("t", worker)).kickoff().raw)}

    builder = StateGraph(State)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    return builder.compile(name="desk")


async def a_mixed_graph(monitor: Monitor, callbacks: list[Any]) -> Any:
    # Not on the loop's own thread, where CrewAI refuses to run.
    done = await asyncio.to_thread(mixed(monitor).invoke, {"text": "x"}, {"callbacks": callbacks})
    return done["text"]


async def a_batch(monitor: Monitor, callbacks: list[Any]) -> Any:
    items = [{"text": "1"}, {"text": "2"}]
    return [a.content for a in chain().batch(items, {"callbacks": callbacks})]


async def an_async_stream(monitor: Monitor, callbacks: list[Any]) -> Any:
    stream = scripted("one two three").astream("x", {"callbacks": callbacks})
    return [chunk.content async for chunk in stream]


async def an_async_completion(monitor: Monitor, callbacks: list[Any]) -> Any:
    return await CompletionModel().ainvoke("x", {"callbacks": callbacks or None})


async def an_error(monitor: Monitor, callbacks: list[Any]) -> Any:
    with pytest.raises(KeyError) as raised:
        chain().invoke({"other": "x"}, {"callbacks": callbacks})
    return str(raised.value)[:40]


PROGRAMS = {f.__name__: f for f in (a_mixed_graph, a_batch, an_async_stream, an_error)}


def drawn(exporter: InMemorySpanExporter) -> list[str]:
    """The other's spans as text: each with its parents, and its status."""
    found = {span.context.span_id: span for span in exporter.get_finished_spans()}

    def path(span: Any) -> str:
        above = found.get(span.parent.span_id) if span.parent is not None else None
        name = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", span.name)
        return f"{path(above)} > {name}" if above is not None else name

    return sorted(f"{path(span)} {span.status.status_code.name}" for span in found.values())


@contextmanager
def opened() -> Iterator[Monitor]:
    with Monitor(storage="memory:", durability="memory") as monitor:
        yield monitor
        assert not [f for f in monitor.stats()["failures"] if f.startswith("handler")]


async def run(program: Any, attach: Attach | None, *, ours: bool) -> tuple[Any, list[str], str]:
    """Return the program's result, the other's spans and ours."""
    exporter = InMemorySpanExporter()
    with opened() as monitor:
        if ours:
            instrument(monitor)
        with ExitStack() as stack:
            callbacks = attach(stack, exporter) if attach is not None else []
            result = await program(monitor, callbacks)
        uninstrument()
        monitor.flush()
        tree = span_tree(spans_from_arrow(monitor.query()))
    return result, drawn(exporter), tree


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("program", PROGRAMS)
async def test_both_get_complete_trees_and_neither_changes(
    program: str, vendor: str, caplog: pytest.LogCaptureFixture
) -> None:
    act_, attach = PROGRAMS[program], VENDORS[vendor]
    alone, _, our_tree = await run(act_, None, ours=True)
    theirs_alone, their_spans, _ = await run(act_, attach, ours=False)
    caplog.clear()
    result, spans_beside, tree_beside = await run(act_, attach, ours=True)
    assert result == alone == theirs_alone
    assert their_spans
    assert spans_beside == their_spans
    assert tree_beside == our_tree
    assert our_tree.count("\n") >= {"a_mixed_graph": 10, "an_async_stream": 1, "an_error": 1}.get(
        program, 2
    )
    if vendor == "opentelemetry":
        assert not [r for r in caplog.records if "detach" in r.getMessage().lower()]


@pytest.mark.parametrize("vendor", ["openinference", "langfuse"])
async def test_async_completions_are_theirs_too(vendor: str) -> None:
    """LangChain hides their starts from handlers that are not inline: issue 39633."""
    alone = (await run(an_async_completion, VENDORS[vendor], ours=False))[1]
    beside = (await run(an_async_completion, VENDORS[vendor], ours=True))[1]
    assert beside == alone != []


async def test_opentelemetrys_request_is_joined_where_asked() -> None:
    exporter = InMemorySpanExporter()
    with Monitor(storage="memory:", durability="memory", join_opentelemetry=True) as monitor:
        instrument(monitor)
        with ExitStack() as stack:
            opentelemetry(stack, exporter)
            await a_mixed_graph(monitor, [])
        monitor.flush()
        spans = spans_from_arrow(monitor.query())
    (request,) = exporter.get_finished_spans()
    assert {span.trace_id for span in spans} == {f"{request.context.trace_id:032x}"}
    (top,) = [span for span in spans if span.name == "desk"]
    assert top.parent_id == f"{request.context.span_id:016x}"
