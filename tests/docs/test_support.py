"""The page on what is supported says what tox tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "make_support.py"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_support", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_names_the_oldest_versions_that_tox_pins_and_every_python() -> None:
    module = _script()
    page = module.page()
    pinned = module._pinned(module._tox())
    assert set(pinned) >= {"langchain-core", "langchain", "langgraph", "crewai"}
    assert all(f"{name} {version}" in page for name, version in pinned.items())
    assert all(f"| 3.{minor} |" in page for minor in (11, 12, 13))


def test_a_stale_page_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    module = _script()
    monkeypatch.setattr(module, "PAGE", tmp_path / "support.md")
    assert module.main(["--check"]) == 1
    assert "run python docs/make_support.py" in capsys.readouterr().err
    assert module.main([]) == 0
    assert module.main(["--check"]) == 0
