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

from llmops_core import KINDS, hookspecs, spans_to_arrow
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.config import Settings
from llmops_core.delivery import collecting, exporting, isolation
from llmops_core.plugins import Registry
from llmops_core.schema import COLUMNS, arrow_schema
from llmops_core.testing import StorageConformance, make_batch, make_span

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
RUNNABLE = [
    DOCS / "hooks.md",
    DOCS / "plugins.md",
    DOCS / "decorator.md",
    DOCS / "configuration.md",
    DOCS / "measuring.md",
]


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


# ---- performance ----

PERFORMANCE = DOCS / "performance.md"


def test_every_command_of_the_performance_page_exists_and_takes_its_options() -> None:
    commands = re.findall(
        r"`(?:python )?((?:benchmarks|tests)/\S+\.py)( --\w+)?", text_of(PERFORMANCE)
    )
    assert {Path(path).stem for path, _ in commands} == {
        "overhead",
        "ingest",
        "freeze",
        "memory",
        "query",
        "kill",
    }
    for path, option in commands:
        assert option.strip() in text_of(ROOT / path)
    for script in ("overhead", "ingest"):
        assert '"--rounds"' in text_of(ROOT / "benchmarks" / f"{script}.py")
    assert '"--traces"' in text_of(ROOT / "benchmarks" / "query.py")
    assert '"graph-sync"' in text_of(ROOT / "benchmarks" / "overhead.py")


def test_the_performance_page_has_a_place_for_figures_and_names_settings_that_exist() -> None:
    text = text_of(PERFORMANCE)
    assert text.index("<!-- figures -->") < text.index("<!-- /figures -->")
    bounds = re.findall(
        r"^\| [^|]+ \| ([^|]+) \|", text.partition("## What is bounded")[2], re.MULTILINE
    )
    named = {name for bound in bounds for name in re.findall(r"`(\w+)`", bound)}
    assert len(named) == 6
    assert named <= set(Settings.__struct_fields__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_gives_a_cost_without_the_command_that_prints_it(page: Path) -> None:
    assert not re.search(r"half as much again|about a minute(?! later)", prose(text_of(page)))


# ---- what is filled, and by whom ----

#: Where drafts are made and measured. A column that none of these names is not filled.
WRITERS = [
    ROOT / "core" / "llmops_core" / "materials.py",
    ROOT / "core" / "llmops_core" / "pipeline.py",
    # The guard stops runs and makes no spans.
    *(f for f in (ROOT / "core" / "llmops_core" / "intake").glob("*.py") if f.stem != "guard"),
    *(ROOT / "core" / "llmops_core" / "freeze").glob("*.py"),
    *(ROOT / "core" / "llmops_core" / "decorating").glob("*.py"),
    *(ROOT / "core" / "llmops_core" / "measuring").glob("*.py"),
    *(ROOT / "llmops_integrations" / "langchain").glob("*.py"),
    *(ROOT / "llmops_integrations" / "langgraph").glob("*.py"),
    *(ROOT / "llmops_integrations" / "crewai").glob("*.py"),
]


def named_by_writers() -> set[str]:
    """Return every text and keyword of the code that makes spans."""
    nodes = [node for file in WRITERS for node in ast.walk(ast.parse(text_of(file)))]
    texts = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return texts | {n.arg for n in nodes if isinstance(n, ast.keyword) and n.arg}


def test_the_schema_page_marks_exactly_the_columns_that_nothing_fills() -> None:
    named = named_by_writers()
    pairs = {f"{side}{end}" for side in ("input", "output") for end in named if end[:1] == "_"}
    measured = CapacityCollector().collect(make_batch([make_span(1, input="a", output="b")]))
    filled = named | pairs | set(measured) | {"measurements"}  # by the collectors of plugins
    missing = {column.name for column in COLUMNS} - filled
    marked = re.findall(r"^\| `(\w+)` .*not filled yet", text_of(DOCS / "schema.md"), re.MULTILINE)
    assert sorted(marked) == sorted(missing)


def test_the_concepts_page_marks_exactly_the_kinds_that_no_integration_records() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.+) \|$", text_of(DOCS / "concepts.md"), re.MULTILINE)
    told = {kind: by for kind, by in rows if kind in KINDS}
    assert list(told) == list(KINDS)
    named = named_by_writers()
    assert [k for k in KINDS if "nothing yet" in told[k]] == [k for k in KINDS if k not in named]


def test_the_handoff_mechanisms_of_the_concepts_page_are_those_of_the_code() -> None:
    section = text_of(DOCS / "concepts.md").partition("## Handoffs")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert told == ["command", "send", "transfer", "tool", "edge", "context", "return"]
    assert set(told) <= named_by_writers()


def test_the_example_filters_of_the_schema_page_are_keys_that_somebody_writes() -> None:
    filters = re.findall(r"`(attributes|measurements)\.([\w.]+)`", text_of(DOCS / "schema.md"))
    examples = text_of(DOCS / "plugins.md")
    assert len(filters) == 2
    for column, key in filters:
        assert key in named_by_writers() or f'{column}"])["{key}"]' in examples


# ---- plugins ----


def test_the_plugins_page_tells_the_deadlines_and_cut_offs_of_the_code() -> None:
    page = " ".join(text_of(DOCS / "plugins.md").split())
    exporter = page.partition("## An exporter")[2].partition("## A collector")[0]
    collector = page.partition("## A collector")[2]
    assert f"longer than {exporting.DEADLINE_SECONDS:g} seconds" in exporter
    assert f"longer than {isolation.DEADLINE_SECONDS:g} seconds" in collector
    assert (isolation.LATE_SECONDS, collecting.SPAN_SECONDS) == (0.5, 0.002)
    assert isolation.CUT_OFF_AFTER == 5
    for section in (exporter, collector):
        assert "five failures in a row" in section


def test_the_plugins_page_names_the_fixture_of_the_storage_suite() -> None:
    page = text_of(DOCS / "plugins.md")
    assert hasattr(StorageConformance, "storage")
    assert "class TestMyStorage(StorageConformance)" in page
    assert "def storage(self" in page
    assert "spans_to_arrow([])" in page
    assert spans_to_arrow([]).schema == arrow_schema()


def test_the_storage_of_the_plugins_page_passes_the_suite_that_it_subclasses(
    tmp_path: Path,
) -> None:
    (code,) = [p.values[0] for p in blocks() if "class TestMyStorage" in p.values[0]]
    (tmp_path / "test_my_storage.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "."],
        cwd=tmp_path, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
