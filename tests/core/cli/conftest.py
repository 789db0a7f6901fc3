"""A Parquet storage with a few traces, and the command line run in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llmops_core import Span, SpanBatch
from llmops_core.cli import main
from llmops_core.plugins import PluginHost

T0 = 1_795_000_000_000_000
IDS = {
    name: f"019ab3f2c1{i:02x}{0:020x}"
    for i, name in enumerate(("first", "second", "open", "waits"), 1)
}
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp\r"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


LLMOps = Callable[..., Ran]


def span(
    trace: str, span_id: str, parent: str | None, kind: str, name: str, at: float, **kw: Any
) -> Span:
    ms = kw.pop("ms", 10.0)
    fields: dict[str, Any] = {"outcome": "ok", "session_id": f"session-{trace}", "duration_ms": ms}
    return Span(
        trace_id=IDS[trace],
        span_id=span_id,
        parent_id=parent,
        kind=kind,
        name=name,
        start_time=T0 + int(at * 1000),
        end_time=T0 + int((at + ms) * 1000),
        **{**fields, **kw},
    )


def spans() -> list[Span]:
    used = {"input_tokens": 100, "output_tokens": 20, "model": "m-1"}
    return [
        span("first", "f1", None, "workflow", "desk", 0, ms=200.0),
        span("first", "f2", "f1", "llm", "m-1", 10, ms=150.0, input="hi", output="ho", **used),
        span("second", "s1", None, "chain", HOSTILE, 1000, outcome="error", error_type="ValueError",
             error_message=HOSTILE, session_id=HOSTILE, input=HOSTILE, agent=HOSTILE),
        span("open", "o2", "o1", "llm", "m-2", 2000, **used),
        span("waits", "w1", None, "workflow", "desk", 3000, outcome="interrupted"),
        span("waits", "w2", "w1", "task", "approve", 3001, outcome="interrupted", wait_key="k1",
             attributes={"langgraph.node": "approve"}),
    ]  # fmt: skip


def store(url: str, rows: Sequence[Span]) -> None:
    async def write() -> None:
        storage: Any = PluginHost().storage(url)
        await storage.open()
        await storage.write(SpanBatch(rows, writer_id="w0", first_seq=1, last_seq=len(rows)))
        await storage.close()

    asyncio.run(write())


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage of its own, which the environment names; no colour, and a known width."""
    for name in ("FORCE_COLOR", "NO_COLOR", "LLMOPS_CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LLMOPS_STATE_DIR", str(tmp_path / "state"))
    made = f"parquet:{tmp_path / 'data'}"
    monkeypatch.setenv("LLMOPS_STORAGE_URL", made)
    return made


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the output a terminal of so many columns, one that knows no escapes."""

    def resize(columns: int) -> None:
        for name, value in (("COLUMNS", str(columns)), ("LINES", "40"), ("FORCE_COLOR", "1")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TERM", "dumb")

    return resize


@pytest.fixture
def stored(url: str) -> str:
    store(url, spans())
    return url


@pytest.fixture
def llmops(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> LLMOps:
    def call(*args: str) -> Ran:
        if args[:1] == ("doctor",):  # its trial of the frameworks has tests of its own
            args += ("--without", "hooks")
        monkeypatch.setattr(sys, "argv", ["llmops", *args])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Ran(int(left.value.code or 0), out, err)

    return call
