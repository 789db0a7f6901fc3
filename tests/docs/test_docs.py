"""The pages against the code: schema, hooks, links, and examples that run."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops_core import hookspecs
from llmops_core.plugins import Registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(
        part.startswith(".") or part == "changelog.d" for part in page.relative_to(ROOT).parts
    )
)
HOOKS = [name for name in vars(hookspecs) if name.startswith("llmops_")]
METHODS = [name for name, _ in inspect.getmembers(Registry, inspect.isfunction) if name[0] != "_"]
RUNNABLE = [DOCS / "hooks.md", DOCS / "plugins.md"]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Return a page without its code blocks and inline code."""
    return re.sub(
        r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def signature(function: Any) -> str:
    return str(inspect.signature(function)).replace("'", "").replace("(self, ", "(")


def headings(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+ (.+?)\s*$", text, flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as they are made on the web."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings(page))
    return {heading.replace(" ", "-") for heading in kept}


# ---- the schema ----


def test_the_schema_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "make_schema.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


# ---- hooks ----


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_documented_with_its_exact_signature(hook: str) -> None:
    assert f"`{hook}{signature(getattr(hookspecs, hook))}`" in headings(DOCS / "hooks.md")


@pytest.mark.parametrize("method", METHODS)
def test_each_registry_method_is_documented_with_its_exact_signature(method: str) -> None:
    heading = f"`registry.{method}{signature(getattr(Registry, method))}`"
    assert heading in headings(DOCS / "hooks.md")


def test_no_hook_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^## `(\w+)\(", text_of(DOCS / "hooks.md"), flags=re.MULTILINE)
    assert sorted(documented) == sorted(HOOKS)


def hooks_defined_in(file: Path) -> set[str]:
    """Return the hooks that a test file implements, whatever else it mentions."""
    nodes = ast.walk(ast.parse(text_of(file)))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)} & set(HOOKS)


def test_each_hook_is_implemented_by_a_test() -> None:
    files = [f for f in (ROOT / "tests").rglob("test_*.py") if f != Path(__file__)]
    implemented = set().union(*map(hooks_defined_in, files))
    assert sorted(HOOKS) == sorted(implemented)


# ---- links ----


def links(page: Path) -> Iterator[str]:
    yield from re.findall(r"\]\(([^)\s]+)\)", prose(text_of(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_pages_are_reached_from_somewhere() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in links(page)
    }
    lonely = [p for p in DOCS.rglob("*.md") if p.resolve() not in linked]
    assert lonely == []


def test_ci_runs_what_the_readme_says() -> None:
    command = "python3 -m venv .venv && .venv/bin/pip install -q -e '.[all,test]'"
    command += " && .venv/bin/python -m pytest"
    assert command in text_of(ROOT / ".ci" / "run")
    assert command in text_of(ROOT / "README.md")


# ---- examples ----


def blocks() -> list[Any]:
    params = []
    for page in RUNNABLE:
        found = re.finditer(r"^```python\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)
        for number, block in enumerate(found, start=1):
            params.append(pytest.param(block[1], id=f"{page.stem}-{number}"))
    return params


@pytest.mark.parametrize("code", blocks())
def test_each_example_runs_and_prints_what_it_says(code: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        env=os.environ | {"LLMOPS_STATE_DIR": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"^# prints: (.*)$", code, flags=re.MULTILINE)
