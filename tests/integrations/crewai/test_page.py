"""The page on CrewAI and its examples: they run and print what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("crewai")

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "crewai.md"
EXAMPLES = ROOT / "examples"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)

SAYS = {
    "crewai_sequential": [
        "workflow press ok session=cats-1",
        "handoff researcher → writer [researcher] -> writer by context handed_off",
        "researcher → writer: 'Cats sleep 15 hours a day.'",
    ],
    "crewai_hierarchical": [
        "by manager handed_off",
        "Crew Manager → shipping (question): received 'Order A-1042.'",
    ],
    "crewai_flow": ["workflow Desk ok", "chain billing ok", "agent billing ok"],
    "crewai_in_langgraph": [
        "sent to the other service: True",
        "workflow support ok session=chat-1\n  task desk [desk] ok\n    workflow billing",
        "          tool invoices [billing] ok\n            retriever look_up [billing] ok\n",
        "\n    chain note [desk] ok\n",
    ],
    "crewai_guardrail": [
        "guardrail short [poet] error GuardrailRejected",
        "agent poet ok attempt=2",
    ],
}


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k != "LLMOPS_STORAGE_URL"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=kept | {"LLMOPS_STATE_DIR": str(folder / "state")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_there_are_examples_on_the_page() -> None:
    assert BLOCKS


@pytest.mark.parametrize("code", BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_each_block_runs_and_prints_what_it_says(code: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(code)
    done = _run(tmp_path, "example.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^# prints: (.*)$", code, flags=re.MULTILINE)


def test_every_example_is_listed_and_tested() -> None:
    files = {path.stem for path in EXAMPLES.glob("crewai_*.py")} - {"crewai_model"}
    page = (EXAMPLES / "README.md").read_text()
    assert files == set(SAYS)
    assert all(f"{name}.py" in page for name in files)


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    done = _run(tmp_path, str(EXAMPLES / f"{name}.py"))
    assert done.returncode == 0, done.stderr
    for text in SAYS[name]:
        assert text in done.stdout


@pytest.mark.parametrize("name", SAYS)
def test_an_example_without_crewai_says_what_to_install(name: str, tmp_path: Path) -> None:
    hide = (
        "import runpy, sys; sys.modules['crewai'] = None;"
        "sys.path.insert(0, sys.argv[1].rpartition('/')[0]); runpy.run_path(sys.argv[1])"
    )
    done = _run(tmp_path, "-c", hide, str(EXAMPLES / f"{name}.py"))
    assert done.returncode == 0, done.stderr
    assert "pip install 'llmops-integrations[crewai]'" in done.stdout
