"""Every example runs, offline, and shows what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

NEEDS = {
    "breakers": ("langgraph",),
    "fastapi_sessions": ("langgraph", "fastapi", "httpx"),
    "fastapi_tenants": ("langgraph", "fastapi", "httpx"),
    "instrumented_workers": ("langchain_core",),
    "supervisor": ("langchain", "langgraph_supervisor"),
    "swarm": ("langchain", "langgraph_swarm"),
}

SAYS = {
    "breakers": [
        "stopped by ping_pong of the run",
        "stopped by calls of the user",
        "task critic [critic] error llmops_core.BreakerTripped",
    ],
    "fastapi_sessions": ["0 3 agent 3 llm 3 workflow", "19 3 agent 3 llm 3 workflow"],
    "fastapi_tenants": [
        "acme 5 agent 5 llm 10 workflow",
        "initech 5 agent 5 llm 10 workflow",
        "joined the caller's trace: 12 spans, 3 right below its span",
    ],
    "human_in_the_loop": ["asked: a human", "◐ waits", "result: refunded", "approve"],
    "instrumented_workers": [
        "exit codes [0, 0, 0, 0], 80 spans",
        "worker 3: 10 traces, 20 spans",
    ],
    "judge_losses": [
        "100% lost ['#A-1001', 'Anna Berg']: yes",
        "not judged",
        "Bob Miller and Robert Miller",
        "2 calls to judge, 1 about",
    ],
    "monitor_a_chain": ["Answer number 0", "'kind': 'tool', 'outcome': 'error', 'count': 1"],
    "monitor_a_graph": ["Paris.", "workflow editorial desk", "agent writer", "agent reviewer"],
    "own_collector": ["Why? Why not? 3 {'questions': 2.0}"],
    "own_entities": ["triage → repairs: 2 entities, lost: ['product blue kettle']"],
    "plain_functions": ["You asked: where is my order? 2", "workflow desk ok session=user-123"],
    "read_back": ["error_rate", "tool reserve error"],
    "redis_storage": ["Redis"],  # what it says with and without one: tests/conformance
    "supervisor": [
        "supervisor → billing [supervisor] -> billing by transfer handed_off",
        "billing → supervisor (return): 'A-1042 was paid on Monday.' arrived as",
    ],
    "swarm": ["alice → bob [alice] -> bob by transfer handed_off", "It comes tomorrow."],
    "workers": ["exit codes [0, 0, 0, 0], 100 spans of 4 processes"],
}


def test_every_example_is_listed_and_tested() -> None:
    # Those of CrewAI are tested where it is installed (tests/integrations/crewai/test_page.py).
    files = {path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("crewai_")}
    page = (EXAMPLES / "README.md").read_text()
    assert files == set(SAYS)
    assert all(f"{name}.py" in page for name in files)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    if name.startswith("monitor_a"):
        pytest.importorskip("langchain_core")
    if name in ("monitor_a_graph", "human_in_the_loop"):
        pytest.importorskip("langgraph")
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k != "LLMOPS_STORAGE_URL"},
    )
    assert done.returncode == 0, done.stderr
    for text in SAYS[name]:
        assert text in done.stdout


@pytest.mark.parametrize(("name", "package"), [(n, p[-1]) for n, p in NEEDS.items()])
def test_an_example_without_its_package_says_what_to_install(
    name: str, package: str, tmp_path: Path
) -> None:
    for needed in NEEDS[name]:
        pytest.importorskip(needed)
    hide = f"import runpy, sys; sys.modules[{package!r}] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", hide, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "install it with: pip install" in done.stdout
    assert package.replace("_", "-") in done.stdout
