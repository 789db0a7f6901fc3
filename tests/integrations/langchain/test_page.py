"""The page on LangChain: its examples run and print what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmops_core import Monitor

pytest.importorskip("langchain_core")

PAGE = Path(__file__).parents[3] / "docs" / "langchain.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_each_example_runs_and_prints_what_it_says(code: str, tmp_path: Path):
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        env=os.environ | {"LLMOPS_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^# prints: (.*)$", code, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("config", "session"),
    [
        ({"configurable": {"thread_id": "t"}}, None),
        ({"metadata": {"thread_id": "t"}}, "t"),
        ({"metadata": {"thread_id": "t", "session_id": "s"}}, "s"),
    ],
)
def test_a_plain_chain_has_the_session_of_its_metadata_alone(
    config: dict[str, object], session: str | None
):
    from langchain_core.language_models import FakeListChatModel

    from llmops_integrations.langchain import LLMOpsCallbackHandler

    with Monitor(storage="memory:") as monitor:
        model = FakeListChatModel(responses=["Hello."])
        model.invoke("Hi", config={"callbacks": [LLMOpsCallbackHandler(monitor)], **config})
        monitor.flush()
        assert monitor.query()["session_id"].to_pylist() == [session]


def test_the_tries_of_a_node_are_numbered_as_the_page_says():
    pytest.importorskip("langgraph")
    from langgraph.graph import START, StateGraph
    from langgraph.types import RetryPolicy

    from llmops_integrations.langchain import LLMOpsCallbackHandler

    tries = []

    def node(state: dict) -> dict:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return state

    builder = StateGraph(dict)
    policy = RetryPolicy(initial_interval=0.001, jitter=False, retry_on=ConnectionError)
    builder.add_node("node", node, retry_policy=policy)
    builder.add_edge(START, "node")
    with Monitor(storage="memory:") as monitor:
        builder.compile().invoke({}, config={"callbacks": [LLMOpsCallbackHandler(monitor)]})
        monitor.flush()
        rows = monitor.query(name="node", order=["start_time"]).to_pylist()
    assert [(r["outcome"], r["attempt"]) for r in rows] == [("error", 1), ("error", 2), ("ok", 3)]
