"""``llmops analyze`` as a user types it: agents, handoffs and drift, as tables and as JSON."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmops_core import Registry, Span, SpanBatch, hookimpl, open_storage
from llmops_core.cli import analyze
from llmops_core.plugins import PluginHost
from llmops_core.storage import memory

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[..., Any]


def _load_desk():
    path = Path(__file__).parents[1] / "analysis" / "desk.py"
    spec = importlib.util.spec_from_file_location("desk", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Trace = _load_desk().Trace
TRACES = 8


def store(url: str, spans: list[Span]) -> None:
    storage: Any = PluginHost().storage(url)

    async def write() -> None:
        await storage.open()
        await storage.write(SpanBatch(spans, writer_id="w", first_seq=1, last_seq=len(spans)))
        await storage.close()

    asyncio.run(write())


@pytest.fixture(params=["parquet", "memory"])
def desk(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Eight traces: each loses the order number, the first drops a handoff, the last is a loop."""
    url = "memory:"
    if request.param == "parquet":
        url = f"parquet:{tmp_path / 'desk'}"
    else:  # of another process it is always empty: here each command opens this one
        held = memory.MemoryStorage()
        monkeypatch.setattr(memory, "_make", lambda url: held)
    spans = []
    for number in range(1, TRACES + 1):
        trace = Trace(number)
        trace.agent("router", f"order #A-1000{number} of Anna Berg", "x")
        trace.handoff("router", "billing")
        trace.agent("billing", "a case of Anna Berg\x1b[2J", "x")
        if number == 1:
            trace.handoff("billing", "shipping", confirmed=False)
        for _ in range(2 if number == TRACES else 0):
            trace.handoff("billing", "router")
            trace.agent("router", "again", "x")
            trace.handoff("router", "billing")
            trace.agent("billing", "again", "x")
        spans += trace.spans
    store(url, spans)
    return url


def test_agents_are_listed_with_what_they_did(llmops: Call, desk: str) -> None:
    ran = llmops("analyze", "agents", "--storage", desk)
    assert ran.code == 0
    lines = {line.split()[0]: line for line in ran.out.splitlines()}
    assert "router" in lines["router"]
    assert "100%" in lines["billing"]
    rows = json.loads(llmops("analyze", "agents", "--json", "--storage", desk).out)
    assert {row["agent"]: row["invocations"] for row in rows["agents"]} == {
        "router": TRACES + 2, "billing": TRACES + 2,
    }  # fmt: skip
    assert rows["data_quality"]["score"] == 1.0


def test_handoffs_are_listed_by_pair_and_each(llmops: Call, desk: str) -> None:
    ran = llmops("analyze", "handoffs", "--storage", desk)
    assert "router → billing" in ran.out
    assert "billing ⇄ router went back and forth 5 times" in ran.out
    each = llmops("analyze", "handoffs", "--each", "--storage", desk).out
    assert "✗ dropped" in each
    rows = json.loads(llmops("analyze", "handoffs", "--json", "--each", "--storage", desk).out)
    assert len(rows["handoffs"]) == TRACES + 1 + 4
    assert [e["dropped"] for e in rows["edges"] if e["target"] == "shipping"] == [1]
    assert rows["loops"][0]["turns"] == 5


def test_drift_shows_the_worst_first_and_nothing_acts_on_the_terminal(
    llmops: Call, desk: str
) -> None:
    ran = llmops("analyze", "drift", "--texts", "--storage", desk)
    assert ran.code == 0
    assert "✗ #A-10001  (id)" in ran.out
    assert "order ✗#A-10001 of Anna Berg" in ran.out
    assert "\x1b[2J" not in ran.out
    rows = json.loads(llmops("analyze", "drift", "--json", "--limit", "3", "--storage", desk).out)
    assert len(rows["drift"]) == 3
    drifts = [row["drift"] for row in rows["drift"]]
    assert drifts == sorted(drifts, reverse=True)
    assert any(lost["value"].startswith("#A-1000") for lost in rows["drift"][-1]["lost"])
    assert rows["handoffs"] == TRACES + 4


def test_a_session_is_analysed_alone(llmops: Call, desk: str) -> None:
    out = llmops("analyze", "agents", "--json", "--session", "session-2", "--storage", desk).out
    assert {row["invocations"] for row in json.loads(out)["agents"]} == {1}


def test_nothing_to_analyse_is_said(llmops: Call, desk: str) -> None:
    for command, says in (
        ("agents", "No agents here."),
        ("handoffs", "No handoffs here."),
        ("drift", "No handoffs here."),
    ):
        ran = llmops("analyze", command, "--session", "none", "--storage", desk)
        assert (ran.code, ran.out.strip()) == (0, says)


def test_an_extractor_that_nobody_registers_is_an_error(llmops: Call, desk: str) -> None:
    ran = llmops("analyze", "drift", "--extractor", "spacy", "--storage", desk)
    assert ran.code == 2
    assert "unknown entity_extractor 'spacy'" in ran.err


class Nicknames:
    """An equivalence that knows one pair, and fails for amounts."""

    name = "nicknames"

    def same(self, kind: str, first: str, second: str) -> bool:
        if kind == "money":
            raise ValueError(first)
        return (first, second) == ("Bob Miller", "Robert Miller")

    @hookimpl
    def llmops_register(self, registry: Registry) -> None:
        registry.equivalence("nicknames", lambda argument: self)


@pytest.mark.parametrize(("calls", "same"), [("10", True), ("0", False)])
def test_a_plugin_says_what_means_the_same_within_a_budget(
    llmops: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: str, same: bool
) -> None:
    trace = Trace(1)
    trace.agent("router", "asked by Bob Miller for $40", "x")
    trace.handoff("router", "billing")
    trace.agent("billing", "asked by Robert Miller for $90", "x")
    url = f"parquet:{tmp_path / 'names'}"
    store(url, trace.spans)
    host = PluginHost([Nicknames()])
    monkeypatch.setattr("llmops_core.plugins.PluginHost", lambda: host)
    options = ("--equivalence", "nicknames", "--equivalence-calls", calls, "--storage", url)
    found = json.loads(llmops("analyze", "drift", "--json", *options).out)
    renamed = [(c["value"], c["becomes"]) for c in found["drift"][0]["reformatted"]]
    assert renamed == ([("Bob Miller", "Robert Miller")] if same else [])
    counted = {"calls": 2, "same": 1, "failed:ValueError": 1} if same else {"over_budget": 2}
    assert found["equivalences"] == counted
    said = llmops("analyze", "drift", *options).err
    assert "equivalences: calls 2" in said if same else "over_budget 2" in said


def test_traces_are_read_whole_in_bounded_batches(
    desk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyze, "_BATCH_SPANS", 20)
    monkeypatch.setattr(analyze, "_BATCH_TRACES", 3)
    with open_storage(desk) as reader:
        read = list(analyze.trace_tables(reader, session=None, since=None, content=True))
    seen: list[str] = []
    for table, _, _ in read:
        ids = set(table["trace_id"].to_pylist())
        assert table.num_rows <= 20 or len(ids) == 1
        assert not ids & set(seen)
        seen += ids
    assert len(seen) == TRACES
    assert read[-1][1] == read[-1][2] == sum(table.num_rows for table, _, _ in read)
