"""Each import contract of ``pyproject.toml`` is kept, and reports a violation that is planted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = [
    c["name"]
    for c in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
]

FRAMEWORK = "the core knows no framework"
LAYERS = "the core's layers"
SIBLINGS = "built-in siblings never import each other"
LANGGRAPH = "langgraph builds on langchain, crewai stands alone"
APART = "crewai and langgraph never meet"
FRONT_DOOR = "integrations use the core's front door only"
LINT = "import importlinter.cli; importlinter.cli.lint_imports_command()"

#: (contract, file, the import that breaks it)
PLANTS = [
    (FRAMEWORK, "core/llmops_core/batch.py", "import langchain_core"),
    (FRAMEWORK, "core/llmops_core/cli/app.py", "import llmops_integrations"),
    (LAYERS, "core/llmops_core/span.py", "import llmops_core.batch"),
    (LAYERS, "core/llmops_core/a_file_without_a_layer.py", ""),
    (SIBLINGS, "core/llmops_core/exporters/console.py", "import llmops_core.exporters.jsonl"),
    (LANGGRAPH, "llmops_integrations/langchain/planted.py", "import llmops_integrations.langgraph"),
    (LANGGRAPH, "llmops_integrations/crewai/__init__.py", "import llmops_integrations.langchain"),
    (APART, "llmops_integrations/langgraph/__init__.py", "import llmops_integrations.crewai"),
    (FRONT_DOOR, "llmops_integrations/langchain/planted.py", "from llmops_core.span import Span"),
    (FRONT_DOOR, "llmops_integrations/langchain/planted.py", "from llmops_core import span"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of both packages, with the two integrations that plants need."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "core", tmp_path / "core", ignore=ignore)
    shutil.copytree(ROOT / "llmops_integrations", tmp_path / "llmops_integrations", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("langgraph", "crewai"):
        (tmp_path / "llmops_integrations" / name).mkdir(exist_ok=True)
        (tmp_path / "llmops_integrations" / name / "__init__.py").touch()
    return tmp_path


def verdicts(tree: Path) -> dict[str, str]:
    """Run the linter over a tree; return KEPT or BROKEN by contract."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": f"{tree / 'core'}{os.pathsep}{tree}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = dict(re.findall(r"^(.+?) (KEPT|BROKEN)", done.stdout, re.MULTILINE))
    assert found, done.stdout + done.stderr
    assert (done.returncode == 0) == (set(found.values()) == {"KEPT"}), done.stdout
    return found


def test_every_contract_is_kept(tree: Path) -> None:
    assert verdicts(tree) == dict.fromkeys(CONTRACTS, "KEPT")


@pytest.mark.parametrize(("contract", "file", "line"), PLANTS)
def test_a_planted_violation_breaks_its_contract(
    tree: Path, contract: str, file: str, line: str
) -> None:
    with (tree / file).open("a") as planted:
        planted.write(f"\n{line}\n")
    assert verdicts(tree)[contract] == "BROKEN"


def test_every_contract_has_a_plant() -> None:
    assert {contract for contract, _, _ in PLANTS} == set(CONTRACTS)
