"""``llmops demo``: the support desk's story, what is recorded of it, and what the command prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")

from llmops_core import Monitor, Span, open_storage
from llmops_core.render.tree import More, tree
from llmops_integrations import demo


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[Span]]]:
    """The spans of the demo's three conversations, by conversation."""
    url = f"parquet:{tmp_path_factory.mktemp('demo') / 'data'}"
    graph = demo.support_desk()
    with Monitor(storage=url) as monitor:
        handler = demo.handler(monitor)
        sessions = [demo.hold(graph, t, callbacks=[handler])[0] for t in demo.CONVERSATIONS]
        monitor.flush(60)
    with open_storage(url) as storage:
        yield [_spans(storage, session) for session in sessions]


def _spans(storage: Any, session: str) -> list[Span]:
    traces = storage.query(session_id=session, columns=["trace_id"], order=["start_time"])
    return [s for t in dict.fromkeys(traces["trace_id"].to_pylist()) for s in storage.trace(t)]


def outline(spans: list[Span]) -> list[str]:
    """Kind, name and outcome of each span below its parent; concurrent siblings by name."""
    by_trace: dict[str, list[Span]] = {}
    for span in spans:
        by_trace.setdefault(span.trace_id, []).append(span)
    lines = []
    for trace in by_trace.values():
        for row in tree(trace):
            assert not isinstance(row, More)
            depth = len(row.guide) // 3
            attempt = f" #{row.span.attempt}" if (row.span.attempt or 1) > 1 else ""
            lines.append(
                f"{'  ' * depth}{row.span.kind} {row.span.name} {row.span.outcome}{attempt}"
            )
    return lines


def test_one_customer_of_one_specialist_is_one_trace(talks: list[list[Span]]) -> None:
    assert outline(talks[1]) == [
        "workflow support-desk ok",
        "  agent router ok",
        "    llm scripted-1 ok",
        "  handoff router → shipping handed_off",
        "  agent shipping ok",
        "    llm scripted-1 ok",
        "    tool track_parcel ok",
        "    llm scripted-1 ok",
        "  handoff shipping → reviewer handed_off",
        "  agent reviewer ok",
        "    llm scripted-1 ok",
    ]


def test_a_refund_waits_for_a_human_and_is_resumed_in_a_second_trace(
    talks: list[list[Span]],
) -> None:
    assert outline(talks[2]) == [
        "workflow support-desk interrupted",
        "  agent router ok",
        "    llm scripted-1 ok",
        "  handoff router → billing handed_off",
        "  agent billing ok",
        "    llm scripted-1 ok",
        "    chain lookup_order ok",
        "      tool lookup_order error",
        "      tool lookup_order ok #2",
        "    llm scripted-1 ok",
        "  handoff billing → approve_refund handed_off",
        "  task approve_refund interrupted",
        "workflow support-desk ok",
        "  task approve_refund ok",
        "  handoff approve_refund → reviewer handed_off",
        "  agent reviewer ok",
        "    llm scripted-1 ok",
    ]


def test_the_order_number_is_lost_on_the_way_to_shipping_alone(talks: list[list[Span]]) -> None:
    def first_prompt(agent: str) -> str:
        calls = [s for s in talks[0] if s.kind == "llm" and s.agent == agent]
        return min(calls, key=lambda s: s.start_time).input or ""

    assert "A-1042" in first_prompt("router")
    assert "A-1042" in first_prompt("billing")
    assert "A-1042" not in first_prompt("shipping")
    assert any(s.name == "find_orders" for s in talks[0])


def test_the_handoff_to_shipping_says_what_went_over_and_what_did_not(
    talks: list[list[Span]],
) -> None:
    (handoff,) = [s for s in talks[0] if s.name == "router → shipping"]
    assert handoff.handoff_mechanism == "send"
    assert handoff.handoff_confirmed
    assert "A-1042" in next(s.output for s in talks[0] if s.name == "router" and s.output)
    assert "A-1042" not in (handoff.output or "nothing")


def test_a_handoff_that_waits_for_the_human_is_not_confirmed_before(
    talks: list[list[Span]],
) -> None:
    dropped = [s for s in talks[0] if s.kind == "handoff" and not s.handoff_confirmed]
    assert [s.name for s in dropped] == ["shipping → reviewer"]


def test_specialists_work_in_the_same_step(talks: list[list[Span]]) -> None:
    first, second = (s for s in talks[0] if s.kind == "agent" and s.name in ("billing", "shipping"))
    assert first.step == second.step is not None, "side by side, as far as the machine allows"


def test_tokens_are_the_models_own(talks: list[list[Span]]) -> None:
    calls = [s for talk in talks for s in talk if s.kind == "llm"]
    assert all(s.input_tokens and s.output_tokens and s.usage_source == "provider" for s in calls)


def test_the_cost_is_measured_over_both_kinds_of_runs() -> None:
    cost = demo.measure(blocks=1, conversations=1)
    assert cost.alone_ms > 0
    assert cost.monitored_ms > 0
    assert cost.spans == 26  # the first conversation's two traces


def llmops(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMOPS_", "FORCE_COLOR"))}
    return subprocess.run(
        [sys.executable, "-m", "llmops_core.cli", *args],
        cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False,
        env={**kept, "COLUMNS": "110", "LLMOPS_STATE_DIR": str(folder / ".state")},
    )  # fmt: skip


def test_the_command_shows_the_traces_the_faults_the_cost_and_what_to_type_next(
    tmp_path: Path,
) -> None:
    ran = llmops(tmp_path, "demo", "--no-measure")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "✗ order A-1042 did not reach shipping: not in its first prompt" in ran.stdout
    assert "54 spans stored, 0 dropped" in ran.stdout
    for command in re.findall(r"^  (llmops .*)$", ran.stdout, re.MULTILINE):
        assert llmops(tmp_path, *shlex.split(command)[1:]).returncode == 0, command
    programs = [
        shlex.split(c)[2] for c in re.findall(r"^  (python -c .*)$", ran.stdout, re.MULTILINE)
    ]
    assert [p.split(";")[0] for p in programs] == [
        "import duckdb",
        "import pandas",
        "import polars",
    ]
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), program
        assert not re.search(r" 0\b(?!\.)", done.stdout), "a pair that never occurs is not printed"


def test_running_it_again_adds(tmp_path: Path) -> None:
    for expected in (5, 10):
        assert llmops(tmp_path, "demo", "--no-measure").returncode == 0
        with open_storage(f"parquet:{tmp_path / 'llmops_data'}") as storage:
            roots = storage.query(where=[("parent_id", "is null")], columns=["trace_id"])
        assert roots.num_rows == expected


def test_without_langgraph_the_command_to_install_it_is_named(tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['langgraph'] = None; sys.argv = ['llmops', 'demo']\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + "from llmops_core.cli import main; main()"],
        cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'llmops-integrations[demo]'" in done.stderr
    assert "Traceback" not in done.stderr
