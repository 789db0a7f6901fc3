"""A graph gives its caller the same values, chunks, interrupts and exceptions with us and without."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest

pytest.importorskip("langgraph")

from langchain_kit import failures_of_ours, scripted
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.func import entrypoint, task
from langgraph.types import Command
from langgraph_kit import config, fork, line, one, say, sub

from llmops_core.testing import Reply
from llmops_core.testing.fixtures import CapturedSpans, spans  # noqa: F401 - a fixture
from llmops_integrations.langgraph import LangGraphHandler, monitor_graph

#: What is random in a run: ids of tasks, checkpoints, messages and interrupts, and times.
_RANDOM = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\b[0-9a-f]{32}\b|\d{4}-\d\d-\d\dT[\d:.]+\+00:00|0x[0-9a-f]+|\b0\.\d{10,}\b"
)


def _talk(state: Any) -> Any:
    get_stream_writer()({"progress": 1})
    said = scripted(Reply("one two three", streamed=True)).invoke("x", {})
    return {"said": [said.content]}


async def _atalk(state: Any) -> Any:
    get_stream_writer()({"progress": 1})
    said = await scripted(Reply("one two three", streamed=True)).ainvoke("x", {})
    return {"said": [said.content]}


def _fails(state: Any) -> Any:
    raise ValueError("broken")


def _functional() -> Any:
    @task
    def double(n: int) -> int:
        return 2 * n

    @entrypoint(checkpointer=InMemorySaver())
    def workflow(n: int) -> int:
        return double(n).result() + 1

    return workflow


def _loop() -> Any:
    return line(("a", lambda state: Command(goto="a", update={"said": [1]})))


START: dict[str, Any] = {"said": []}
#: name -> (make the graph anew, what it is given in turn)
GRAPHS: dict[str, Any] = {
    "line": (lambda: line(("a", say("a")), ("b", say("b"))), [START, START]),
    "model": (lambda: line(("talk", _talk)), [START]),
    "inner graph": (lambda: line(("outer", line(("a", say("a")), saver=None))), [START]),
    "pause": (one, [START, Command(resume="yes")]),
    "pause in a subgraph": (sub, [START, Command(resume="yes")]),
    "two questions": (fork, [START, Command(resume="one of two")]),
    "breakpoint": (
        lambda: line(("a", say("a")), ("b", say("b")), interrupt_before=["b"]),
        [START, None],
    ),
    "error": (lambda: line(("a", say("a")), ("b", _fails)), [START]),
    "endless": (_loop, [START]),
    "functional": (_functional, [3, 4]),
    "wrong input": (lambda: line(("a", say("a"))), [None]),
}
MODES: list[Any] = [
    "values",
    "updates",
    "messages",
    "custom",
    "debug",
    "checkpoints",
    "tasks",
    ["values", "updates", "messages", "custom", "debug", "checkpoints", "tasks"],
]


def _plain(value: Any) -> str:
    """A value as text, without what is random, and without the callbacks that a config holds."""
    return _RANDOM.sub("<random>", repr(_without_callbacks(value)))


def _without_callbacks(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_callbacks(v) for k, v in value.items() if k != "callbacks"}
    if isinstance(value, list | tuple):
        return [_without_callbacks(item) for item in value]
    return value


async def _observe(graph: Any, turns: list[Any], run: Any) -> list[Any]:
    seen: list[Any] = []
    for given in turns:
        try:
            async for chunk in run(graph, given, {**config(), "recursion_limit": 5}):
                seen.append(_plain(chunk))  # noqa: PERF401 - what came before an error counts
        except Exception as error:
            seen.append((type(error), _RANDOM.sub("<random>", str(error))))
    seen.append(_plain(graph.get_state(config())))
    return seen


def _stream(mode: Any, subgraphs: bool) -> Any:
    async def run(graph: Any, given: Any, config: Any) -> Any:
        for chunk in graph.stream(given, config, stream_mode=mode, subgraphs=subgraphs):
            yield chunk

    return run


def _astream(mode: Any, subgraphs: bool) -> Any:
    async def run(graph: Any, given: Any, config: Any) -> Any:
        async for chunk in graph.astream(given, config, stream_mode=mode, subgraphs=subgraphs):
            yield chunk

    return run


async def _invoke(graph: Any, given: Any, config: Any) -> Any:
    yield graph.invoke(given, config)


async def _ainvoke(graph: Any, given: Any, config: Any) -> Any:
    yield await graph.ainvoke(given, config)


async def _batch(graph: Any, given: Any, config: Any) -> Any:
    yield graph.batch([given], config, return_exceptions=True)


async def _events(graph: Any, given: Any, config: Any) -> Any:
    async for event in graph.astream_events(given, config, version="v2"):
        yield event


def _sorted_where_parallel(name: str, seen: list[Any]) -> list[Any]:
    # Two nodes at once may finish in either order, and a task's events may come before or after
    # those of the workflow around it: with us and without.
    return sorted(seen, key=str) if name in ("two questions", "functional") else seen


async def _compare(name: str, run: Any, monitor: Any) -> None:
    make, turns = GRAPHS[name]
    ours = await _observe(monitor_graph(make(), monitor=monitor), turns, run)
    theirs = await _observe(make(), turns, run)
    assert _sorted_where_parallel(name, ours) == _sorted_where_parallel(name, theirs)
    assert failures_of_ours(monitor) == {}


@pytest.mark.parametrize("subgraphs", [False, True], ids=["own", "subgraphs"])
@pytest.mark.parametrize("mode", MODES, ids=lambda m: m if isinstance(m, str) else "all")
@pytest.mark.parametrize("make", [_stream, _astream], ids=["stream", "astream"])
@pytest.mark.parametrize("name", GRAPHS)
async def test_a_stream_is_the_same_with_us(
    name: str,
    make: Any,
    mode: Any,
    subgraphs: bool,
    spans: CapturedSpans,  # noqa: F811
):
    await _compare(name, make(mode, subgraphs), spans.monitor)


@pytest.mark.parametrize(
    "run", [_invoke, _ainvoke, _batch, _events], ids=lambda run: run.__name__.strip("_")
)
@pytest.mark.parametrize("name", GRAPHS)
async def test_a_call_is_the_same_with_us(name: str, run: Any, spans: CapturedSpans):  # noqa: F811
    await _compare(name, run, spans.monitor)


async def test_an_async_node_streams_the_same(spans: CapturedSpans):  # noqa: F811
    for mode in MODES:
        make = lambda: line(("talk", _atalk))  # noqa: E731
        run = _astream(mode, True)
        ours = await _observe(monitor_graph(make(), monitor=spans.monitor), [START], run)
        assert ours == await _observe(make(), [START], run)


def test_the_recursion_limit_raises_the_same(spans: CapturedSpans):  # noqa: F811
    with pytest.raises(GraphRecursionError):
        monitor_graph(_loop(), monitor=spans.monitor).invoke(
            START, {**config(), "recursion_limit": 3}
        )
    root = next(s for s in spans() if s.parent_id is None)
    assert (root.outcome, root.error_type) == ("error", "langgraph.errors.GraphRecursionError")


@pytest.mark.parametrize("name", ["model", "pause", "inner graph"])
def test_version_3_events_are_the_same(name: str, spans: CapturedSpans):  # noqa: F811
    make, turns = GRAPHS[name]

    def events(graph: Any) -> list[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # version 3 is marked as experimental
            run = graph.stream_events(turns[0], config(), version="v3")
        return [_plain(run.output), _plain(run.interrupts)]

    assert events(monitor_graph(make(), monitor=spans.monitor)) == events(make())


def test_a_hostile_event_never_reaches_the_program(spans: CapturedSpans):  # noqa: F811
    handler = LangGraphHandler(spans.monitor)
    handler.on_interrupt(object())  # type: ignore[arg-type]
    handler.on_resume(None)  # type: ignore[arg-type]
    assert sum(failures_of_ours(spans.monitor).values()) == 2
