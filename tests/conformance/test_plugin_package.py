"""A third party's package: it is installed, uses public names only, and loads when it is named."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "plugin_package"

#: Modules whose ``__all__`` is the public face of the core.
PUBLIC_MODULES = {
    "llmops_core",
    "llmops_core.query",
    "llmops_core.query.duckdb_engine",
    "llmops_core.testing",
}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package's wheel, offline, and lay it into a folder as an installer does."""
    folder = tmp_path_factory.mktemp("plugin")
    source, site = folder / "source", folder / "site"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "dist"))
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:  # pure Python: unpacking is installing
        archive.extractall(site)
    return site


def python(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(site), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_its_own_tests_pass_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "tests", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = python(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


USE = """
import sys
from llmops_core import Monitor
from llmops_core.plugins import installed_plugins

assert installed_plugins()["lines"] == "llmops-lines 0.1.0"
Monitor(storage="memory:", exporters=["console"]).close()
assert "llmops_lines" not in sys.modules, "imported without being named"
parts = {"exporters": ["lines:./spans.txt"], "collectors": ["lines"]}
Monitor(storage="lines:./spans.jsonl", **parts).close()
assert "llmops_lines" in sys.modules
"""


def test_it_is_imported_only_when_it_is_named(installed: Path, tmp_path: Path) -> None:
    done = python(installed, "-c", USE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "spans.jsonl").exists()


def core_imports(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of everything that a file imports from the core."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmops_"):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from ((name, "") for name in names if name.startswith("llmops_"))


def private_imports(folder: Path) -> list[str]:
    """Return what a package imports that is not a public name of the core, or its own."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        for module, name in core_imports(file):
            if module.partition(".")[0] == "llmops_lines":
                continue
            public = module in PUBLIC_MODULES and (
                not name or name in importlib.import_module(module).__all__
            )
            if not public:
                found.append(f"{file.name}: {module} {name}".strip())
    return found


def test_it_imports_public_names_only() -> None:
    files = list(PACKAGE.rglob("*.py"))
    assert sum(len(list(core_imports(f))) for f in files) >= 10
    assert private_imports(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "from llmops_core.delivery.storing import StoreWorker",
        "from llmops_core import _anything",
        "import llmops_core.journal.writer",
        "from llmops_integrations.langchain import LLMOpsCallbackHandler",
    ],
)
def test_a_private_import_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "planted.py").write_text(f"def later():\n    {line}\n")
    assert len(private_imports(tmp_path)) == 1
