"""``llmops waiting`` and what ``llmops trace`` says of waits, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmops_core import Span, SpanBatch
from llmops_core.testing.spans import START

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[..., Any]

PAUSED, RESUMED, LONELY = (f"019ab3f2c1{i:02x}{0:020x}" for i in (0x11, 0x12, 0x13))
SECOND = 1_000_000


def _root(trace: str, number: int, start: float, end: float, **fields: Any) -> Span:
    made: dict[str, Any] = {"kind": "workflow", "name": "desk", "outcome": "ok"}
    return Span(
        trace_id=trace,
        span_id=f"{number:016x}",
        start_time=START + int(start * SECOND),
        end_time=START + int(end * SECOND),
        **{**made, **fields},
    )


def _asks(*values: Any) -> str:
    return json.dumps(
        {"__interrupt__": [{"id": f"q{n}", "value": v} for n, v in enumerate(values)]}
    )


@pytest.fixture
def waits(url: str) -> str:
    import asyncio

    from llmops_core.plugins import PluginHost

    rows = [
        _root(PAUSED, 1, 0, 1, outcome="interrupted", wait_key="k1", thread_id="t1",
              session_id="s1", output=_asks({"refund": 42})),
        _root(RESUMED, 2, 126, 127, resume_key="k1", thread_id="t1", session_id="s1",
              input=json.dumps({"resume": "approve"})),
        _root(LONELY, 3, 50, 51, outcome="interrupted", wait_key="k3", thread_id="t3",
              session_id="s3", output=_asks("really\x1b[2J?")),
        _root(f"{4:032x}", 4, 60, 61, thread_id="t3", session_id="s3"),
    ]  # fmt: skip

    async def write() -> None:
        storage: Any = PluginHost().storage(url)
        await storage.open()
        await storage.write(SpanBatch(rows, writer_id="w0", first_seq=1, last_seq=len(rows)))
        await storage.close()

    asyncio.run(write())
    return url


def test_what_waits_is_listed_with_its_question(waits: str, llmops: Call) -> None:
    ran = llmops("waiting")
    assert ran.code == 0
    assert LONELY[:12] in ran.out
    assert "really\\x1b[2J?" in ran.out
    assert "went on" in ran.out
    assert PAUSED[:12] not in ran.out


def test_all_shows_the_answers_too(waits: str, llmops: Call) -> None:
    ran = llmops("waiting", "--all")
    assert '{"refund": 42}' in ran.out
    assert "approve" in ran.out
    assert "2m 05s" in ran.out
    assert "◐ waits" in ran.out


def test_json_holds_every_field(waits: str, llmops: Call) -> None:
    told = json.loads(llmops("waiting", "--all", "--json").out)
    waits_now, answered = told["waiting"]
    assert told["more"] is False
    assert (waits_now["answered"], waits_now["thread_went_on"][:19]) == (
        False,
        "2026-01-01T00:01:00",
    )
    assert answered["asked"] == [{"id": "q0", "value": {"refund": 42}}]
    assert (answered["answer"], answered["waited_ms"]) == ("approve", 125_000.0)
    assert answered["resumed_trace_ids"] == [RESUMED]
    assert answered["since"] == "2026-01-01T00:00:01.000000+00:00"


def test_it_can_be_narrowed(waits: str, llmops: Call) -> None:
    narrowed = json.loads(llmops("waiting", "--all", "--session", "s1", "--json").out)
    assert [row["trace_id"] for row in narrowed["waiting"]] == [PAUSED]
    first = json.loads(llmops("waiting", "--all", "--limit", "1", "--json").out)
    assert (len(first["waiting"]), first["more"]) == (1, True)
    recent = json.loads(llmops("waiting", "--since", "2026-01-01T00:00:40", "--json").out)
    assert [row["trace_id"] for row in recent["waiting"]] == [LONELY]


def test_nothing_waits_is_said(url: str, waits: str, llmops: Call) -> None:
    ran = llmops("waiting", "--session", "s1")
    assert (ran.code, ran.out) == (0, "Nothing waits for a human.\n")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, llmops: Call) -> None:
    ran = llmops("waiting", "--storage", f"parquet:{tmp_path}/none")
    assert ran.code == 2
    assert "llmops demo" in ran.err


def test_a_trace_says_how_long_it_waited_and_where_it_went_on(waits: str, llmops: Call) -> None:
    paused, resumed = llmops("trace", PAUSED).out, llmops("trace", RESUMED).out
    assert "◐ waited 2m 05s for a human" in paused
    assert f"resumed in: llmops trace {RESUMED}" in paused
    assert "↳ resumed after 2m 05s" in resumed
    assert f"resumes: llmops trace {PAUSED}" in resumed
    assert "◐ waits for a human" in llmops("trace", LONELY).out


def test_a_traces_json_links_both_ways(waits: str, llmops: Call) -> None:
    assert json.loads(llmops("trace", PAUSED, "--json").out)["resumed_in"] == [RESUMED]
    assert json.loads(llmops("trace", RESUMED, "--json").out)["resumes"] == [PAUSED]
