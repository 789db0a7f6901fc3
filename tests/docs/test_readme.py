"""The README is true: its Python runs, its commands run, its output looks so, its links resolve."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: These two install the project, so a test cannot run them: continuous integration does.
RUN_DEMO = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[demo]' && .venv/bin/llmops demo"
RUN_TESTS = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[all,test]' && .venv/bin/python -m pytest"


class Block(NamedTuple):
    language: str
    code: str


BLOCKS = [
    Block(*found)
    for found in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]


#: What makes the output a terminal, one of 90 columns that knows no escapes.
TERMINAL = {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "90", "LINES": "40"}


def run(folder: Path, *command: str, **env: str) -> str:
    """Run a command in a folder, as a user would who has set nothing."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMOPS_", "FORCE_COLOR"))}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False,
        env={**kept, "COLUMNS": "90", "LLMOPS_STATE_DIR": str(folder / ".state"), **env},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def after_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every Python block of the README was run, in order, each by itself."""
    pytest.importorskip("langgraph")
    folder = tmp_path_factory.mktemp("readme")
    for number, block in enumerate(b for b in BLOCKS if b.language == "python"):
        script = folder / f"block{number}.py"
        script.write_text(block.code, encoding="utf-8")
        run(folder, sys.executable, "-W", "error", script.name)
        # On a loaded machine the exit's two seconds may not suffice; the page says what to do.
        run(folder, sys.executable, "-m", "llmops_core.cli", "recover")
    return folder


def shape(table: str) -> list[list[str]]:
    """A printed table without what differs from run to run: ids, moments, and durations."""
    text = re.sub(r"\b[0-9a-f]{12,32}\b|\d\d-\d\d \d\d:\d\d:\d\d|[\d.]+ m?s\b", "#", table)
    return [line.split() for line in text.strip().splitlines()]


def test_every_python_block_runs_in_the_order_of_the_page(after_python: Path) -> None:
    assert list((after_python / "llmops_data").glob("*/events_*.parquet"))


def test_the_output_shown_is_the_output_printed(after_python: Path) -> None:
    shown = next(b.code for b in BLOCKS if b.language == "text")
    printed = run(after_python, sys.executable, "-m", "llmops_core.cli", "traces", **TERMINAL)
    assert shape(printed) == shape(shown)


def test_every_shell_block_is_one_command_that_a_test_or_ci_runs() -> None:
    commands = [b.code.strip() for b in BLOCKS if b.language in ("sh", "bash")]
    assert commands == ["llmops traces", RUN_DEMO, RUN_TESTS]
    for command in commands:
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
    assert RUN_TESTS in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_commands_within_sentences_run(after_python: Path) -> None:
    import shlex

    inline = re.findall(r"`(llmops (?!demo)[a-z]+[^`]*)`", README)
    assert inline
    for command in inline:
        run(after_python, sys.executable, "-m", "llmops_core.cli", *shlex.split(command)[1:])


def test_every_block_has_a_language_that_is_checked_here() -> None:
    assert {b.language for b in BLOCKS} == {"python", "sh", "text"}


def test_the_first_example_is_at_most_twelve_lines() -> None:
    code = next(b.code for b in BLOCKS if b.language == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_the_readme_the_demo_and_the_page_read_the_same_files_in_the_same_way() -> None:
    from llmops_core.cli.demo import _one_liners

    page = (ROOT / "docs" / "parquet.md").read_text(encoding="utf-8")
    for text in (README, page, "\n".join(_one_liners("llmops_data"))):
        globs = re.findall(r"llmops_data/[^'\"`$ <]*\.parquet", text)
        assert {g for g in globs if "*" in g} == {"llmops_data/*/events_*.parquet"}
        assert re.search(r"read_parquet\(\S+, union_by_name ?= ?true\)", text)


def test_the_package_advertises_the_frameworks_that_it_has_handlers_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for framework in ("langchain", "langgraph", "crewai"):
        exists = (ROOT / "llmops_integrations" / framework).is_dir()
        assert (framework in project["keywords"]) == exists
        for text in (project["description"], citation):
            assert (framework in text.lower()) == exists


def test_links_and_pictures_resolve() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_picture_fetches_nothing() -> None:
    picture = (ROOT / "docs" / "images" / "demo-trace.svg").read_text(encoding="utf-8")
    assert "@font-face" not in picture
    assert not re.findall(r"(?:href|src)=|url\((?!#)", picture)
