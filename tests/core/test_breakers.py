"""Breakers: where the user set limits, a run is stopped; where not, nothing of ours ever raises."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops_core import (
    Breakers,
    BreakerTripped,
    ConfigError,
    Monitor,
    monitor_llm,
    monitoring_session,
    span_tree,
    spans_from_arrow,
)
from llmops_core.breakers import resolve_breakers
from llmops_core.intake import guard as guards
from llmops_core.testing.fixtures import FakeClock

Open = Callable[..., Monitor]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def opened(clock: FakeClock) -> Iterator[Open]:
    with contextlib.ExitStack() as stack:

        def make(**limits: Any) -> Monitor:
            monitor = Monitor(
                storage="memory:", clock=clock, durability="memory", breakers=Breakers(**limits)
            )
            return stack.enter_context(monitor)

        yield make


def tree(monitor: Monitor) -> str:
    monitor.flush()
    return span_tree(spans_from_arrow(monitor.query()))


def answers(monitor: Monitor, tokens: int = 10, **more: Any) -> Any:
    @monitor_llm("ask", "llm", monitor=monitor, **more)
    def ask(question: str = "") -> Any:
        return {"usage": {"prompt_tokens": tokens - 1, "completion_tokens": 1}}

    return ask


def agents(monitor: Monitor, *names: str) -> list[Any]:
    return [monitor_llm(name, "agent", monitor=monitor)(lambda name=name: name) for name in names]


def root(monitor: Monitor) -> Any:
    return monitor_llm("run", "workflow", monitor=monitor)


# ---- budgets ----


def test_a_budget_of_calls_stops_the_next_call(opened: Open) -> None:
    monitor = opened(calls=2)
    ask, made = answers(monitor), []

    @root(monitor)
    def run() -> None:
        for _ in range(5):
            ask()
            made.append(1)

    with pytest.raises(BreakerTripped) as caught:
        run()
    error = caught.value
    assert len(made) == 2
    assert (error.scope, error.limit, error.allowed, error.used) == ("run", "calls", 2, 2)
    assert "The run used 2 model calls and was to make another call." in str(error)
    assert "breakers: calls=2" in str(error)
    assert tree(monitor) == (
        "workflow run error llmops_core.BreakerTripped\n"
        "  llm ask ok 9+1 tokens\n"
        "  llm ask ok 9+1 tokens\n"
        "  llm ask error llmops_core.BreakerTripped\n"
    )
    (row,) = monitor.query(kind="workflow").to_pylist()
    assert f"llmops trace {row['trace_id']}" in str(error)
    stats = monitor.stats()["breakers"]
    assert (stats["stopped"], stats["refused"], stats["open"]) == ({"calls": 1}, 1, 0)


def test_a_budget_of_tokens_stops_within_one_call_and_delivers_what_was_paid_for(
    opened: Open,
) -> None:
    monitor = opened(tokens=15)
    ask = answers(monitor, tokens=10)

    @root(monitor)
    def run(times: int) -> int:
        return sum(bool(ask()) for _ in range(times))

    assert run(2) == 2  # the second call went over, and its answer is there
    with pytest.raises(BreakerTripped, match="used 20 tokens") as caught:
        run(3)
    assert caught.value.used == 20


def test_seconds_are_counted_from_the_root(opened: Open, clock: FakeClock) -> None:
    monitor = opened(seconds=1.5)
    ask = answers(monitor)

    @root(monitor)
    def run() -> None:
        for _ in range(3):
            ask()
            clock.advance(1000)

    with pytest.raises(BreakerTripped, match="The run took 2"):
        run()
    assert tree(monitor).count("llm ask ok") == 2


def test_each_run_has_its_own_budget(opened: Open) -> None:
    ask = answers(opened(calls=1))
    for _ in range(3):
        ask()


def test_catching_it_does_not_set_the_run_going_again(opened: Open) -> None:
    monitor = opened(calls=1)
    ask, tool = answers(monitor), monitor_llm("tool", "tool", monitor=monitor)(lambda: 1)

    @root(monitor)
    def run() -> int:
        refused = 0
        for step in (ask, ask, tool, ask):
            try:
                step()
            except BreakerTripped:
                refused += 1
        return refused

    assert run() == 3
    assert monitor.stats()["breakers"]["stopped"] == {"calls": 1}


@pytest.mark.parametrize("scope", ["session", "user"])
def test_sessions_and_users_have_budgets_over_runs(scope: str, opened: Open) -> None:
    ask = answers(opened(**{f"{scope}_tokens": 15}))
    names = ("ann", "ann", "bob", "ann", "bob")
    told = []
    for name in names:
        ids = (name, {}) if scope == "session" else ("s", {"user_id": name})
        with monitoring_session(ids[0], **ids[1]):
            try:
                ask()
                told.append((name, "ok"))
            except BreakerTripped as error:
                told.append((name, error.scope))
    assert told == [("ann", "ok"), ("ann", "ok"), ("bob", "ok"), ("ann", scope), ("bob", "ok")]


def test_a_project_has_a_budget_that_begins_anew_with_each_window(
    opened: Open, clock: FakeClock
) -> None:
    ask = answers(opened(project_calls=2, window_seconds=60))
    ask()
    ask()
    with pytest.raises(BreakerTripped, match="The project used 2 model calls"):
        ask()
    clock.advance(60_000)
    ask()


# ---- ping-pong and fan-out ----


def test_two_agents_that_go_to_and_fro_are_stopped_within_two_turns(opened: Open) -> None:
    monitor = opened(ping_pong=2)
    a, b, c = agents(monitor, "a", "b", "c")
    ran: list[str] = []

    def turns(*order: Any) -> None:
        ran.clear()

        @root(monitor)
        def run() -> None:
            for agent in order:
                ran.append(agent())  # noqa: PERF401 - what ran before it was stopped counts

        run()

    turns(a, b, c, a, b, a)
    turns(a, a, a, a, b, b)
    with pytest.raises(BreakerTripped, match="to and fro 2 times") as caught:
        turns(a, b, a, b, a, b)
    assert ran == ["a", "b", "a"]
    assert caught.value.limit == "ping_pong"


def test_agents_that_call_each_other_are_stopped_too_but_not_one_that_asks_twice(
    opened: Open,
) -> None:
    monitor = opened(ping_pong=2)
    depth: list[str] = []
    made: dict[str, Any] = {}

    def ask(name: str, other: str, times: int) -> Any:
        depth.append(name)
        for _ in range(times):
            made[other]()

    made["a"] = monitor_llm("a", "agent", monitor=monitor)(lambda: ask("a", "b", 1))
    made["b"] = monitor_llm("b", "agent", monitor=monitor)(lambda: ask("b", "a", 1))
    with pytest.raises(BreakerTripped):
        made["a"]()
    assert depth == ["a", "b", "a"]

    tool = monitor_llm("tool", "tool", monitor=monitor)(lambda: made["worker"]())
    made["worker"] = monitor_llm("worker", "agent", monitor=monitor)(lambda: None)
    made["tool"] = tool
    monitor_llm("boss", "agent", monitor=monitor)(lambda: ask("boss", "tool", 9))()


def test_a_fan_out_is_stopped_and_a_loop_is_none(opened: Open) -> None:
    monitor = opened(fan_out=3)
    at_work = asyncio.Event

    async def main(together: int, times: int) -> int:
        go = at_work()

        @monitor_llm("tool", "tool", monitor=monitor)
        async def tool() -> int:
            await go.wait()
            return 1

        async def run() -> int:
            done = 0
            for _ in range(times):
                tasks = [asyncio.ensure_future(tool()) for _ in range(together)]
                await asyncio.sleep(0)
                go.set()
                done += sum(await asyncio.gather(*tasks))
            return done

        return int(await root(monitor)(run)())

    assert asyncio.run(main(3, 1)) == 3
    assert asyncio.run(main(1, 20)) == 20
    with pytest.raises(BreakerTripped, match="4 runs at once"):
        asyncio.run(main(4, 1))


# ---- how it reaches a program ----


def test_coroutines_and_streams_are_stopped(opened: Open, clock: FakeClock) -> None:
    monitor = opened(calls=1, seconds=5)

    @monitor_llm("ask", "llm", monitor=monitor)
    async def ask() -> int:
        return 1

    async def twice() -> None:
        await ask()
        await ask()

    with pytest.raises(BreakerTripped):
        asyncio.run(root(monitor)(twice)())

    @monitor_llm("stream", "llm", monitor=monitor)
    def stream() -> Iterator[str]:
        for text in "abcdef":
            clock.advance(2000)
            yield text

    read: list[str] = []

    def read_stream() -> None:
        for piece in stream():
            read.append(piece)  # noqa: PERF402 - what came before it was stopped counts

    with pytest.raises(BreakerTripped, match="took 6"):
        read_stream()
    assert read == ["a", "b"]

    @monitor_llm("stream", "llm", monitor=monitor)
    async def astream() -> Any:
        for text in "abcdef":
            clock.advance(2000)
            yield text

    async def read_all() -> list[str]:
        return [piece async for piece in astream()]

    with pytest.raises(BreakerTripped):
        asyncio.run(read_all())
    assert "stream error llmops_core.BreakerTripped" in tree(monitor)


def test_a_stream_that_is_stopped_is_closed_at_once(opened: Open, clock: FakeClock) -> None:
    monitor = opened(seconds=5)
    log: list[str] = []

    @monitor_llm(monitor=monitor)
    def stream() -> Iterator[str]:
        try:
            while True:
                clock.advance(6000)
                yield "a"
        finally:
            log.append("closed")

    @monitor_llm(monitor=monitor)
    async def astream() -> Any:
        try:
            while True:
                clock.advance(6000)
                yield "a"
        finally:
            await asyncio.sleep(0)
            log.append("async closed")

    async def read() -> None:
        await anext(astream())

    kept = []
    for reads in (lambda: next(stream()), lambda: asyncio.run(read())):
        with pytest.raises(BreakerTripped) as stopped:
            reads()
        kept.append(stopped)  # with its traceback, and so the frames that it left
        log.append("caught")
    assert log == ["closed", "caught", "async closed", "caught"]


def test_without_breakers_nothing_is_counted_and_nothing_raises() -> None:
    with Monitor(storage="memory:", durability="memory") as monitor:
        assert type(monitor.recorder).__name__ == "Recorder"
        assert "breakers" not in monitor.stats()
        a, b = agents(monitor, "a", "b")
        root(monitor)(lambda: [agent() for _ in range(50) for agent in (a, b)])()


def test_the_error_survives_a_pickle(opened: Open) -> None:
    ask = answers(opened(project_calls=1))
    ask()
    with pytest.raises(BreakerTripped) as caught:
        ask()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.limit) == (str(caught.value), "calls")


def test_what_is_kept_is_bounded(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "MAX_OPEN", 10)
    monkeypatch.setattr(guards, "MAX_COUNTED", 10)
    monitor = opened(session_calls=100, calls=5)
    ask = answers(monitor)
    for number in range(30):
        with monitoring_session(f"s{number}"):
            ask()
    for number in range(30):  # a start whose end never comes
        monitor.recorder.start(number + 1, None, {"kind": "llm", "name": "open"})
    stats = monitor.stats()["breakers"]
    assert (stats["open"], stats["counted"]) == (10, 10)


# ---- where limits are read from ----


def test_limits_come_from_code_else_environment_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_breakers() == (None, {})
    Path("pyproject.toml").write_text("[tool.llmops.breakers]\ncalls = 5\ntokens = 100\n")
    monkeypatch.setenv("LLMOPS_BREAKERS_CALLS", "7")
    limits, sources = resolve_breakers()
    assert limits == Breakers(calls=7, tokens=100)
    assert sources == {
        "calls": "LLMOPS_BREAKERS_CALLS",
        "tokens": "pyproject.toml [breakers] tokens",
    }
    assert resolve_breakers({"seconds": 3})[0] == Breakers(seconds=3)
    assert resolve_breakers(Breakers())[0] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"calls": 0}, "calls=0"),
        ({"calls": 1.5}, "calls=1.5"),
        ({"ping_pong": 1}, "a whole number from 2"),
        ({"token": 5}, "did you mean 'tokens'"),
        (5, "write breakers=Breakers(calls=100)"),
    ],
)
def test_a_bad_limit_is_told_at_set_up(given: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Monitor(storage="memory:", breakers=given)
    assert said.lower() in str(caught.value).lower()


def test_a_bad_limit_in_a_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_BREAKERS_CALLS", "many")
    with pytest.raises(ConfigError, match="LLMOPS_BREAKERS_CALLS='many'"):
        resolve_breakers()
    monkeypatch.setenv("LLMOPS_BREAKERS_CALLS", "-1")
    with pytest.raises(ConfigError, match="from LLMOPS_BREAKERS_CALLS"):
        resolve_breakers()


def test_the_oldest_open_run_is_forgotten_first_and_without_a_search(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first key of a plain dict is searched for among all that were forgotten."""
    monkeypatch.setattr(guards, "MAX_OPEN", 2)
    guard = guards.Guard(Breakers(calls=1), clock.monotonic_ns)
    for run_id in range(1, 6):
        guard.started(run_id, None, {"kind": "chain"}, promotable=False)
    assert isinstance(guard._open, OrderedDict)
    assert list(guard._open) == [4, 5]
