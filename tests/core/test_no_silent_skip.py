"""The rule of ``tests/conftest.py``: in continuous integration nothing is skipped unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
MARKED = "import pytest\n\n@pytest.mark.skip(reason='no reason')\ndef test_it(): pass\n"
CALLED = "import pytest\n\ndef test_it(): pytest.skip('no reason')\n"
MODULE = "import pytest\npytest.importorskip('a_package_nobody_has')\ndef test_it(): pass\n"
FRAMEWORK = "import pytest\n\ndef test_it(): pytest.skip(\"could not import 'langchain_core'\")\n"


def run(folder: Path, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, folder)
    (folder / "test_one.py").write_text(code)
    clean = {k: v for k, v in os.environ.items() if k not in ("LLMOPS_CI", "TOX_ENV_NAME")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder), "."],
        cwd=folder,
        env=clean
        | environ
        | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(CONFTEST.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("code", [MARKED, CALLED, MODULE], ids=["marked", "called", "module"])
def test_a_skip_fails_in_ci(tmp_path: Path, code: str) -> None:
    done = run(tmp_path, code, LLMOPS_CI="1")
    assert done.returncode in (1, 2), done.stdout
    assert "a skip is a failure here" in done.stdout


@pytest.mark.parametrize("code", [MARKED, CALLED], ids=["marked", "called"])
def test_a_skip_is_a_skip_elsewhere(tmp_path: Path, code: str) -> None:
    done = run(tmp_path, code)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout


def test_a_framework_may_be_missing_in_a_bare_environment_only(tmp_path: Path) -> None:
    assert run(tmp_path, FRAMEWORK, LLMOPS_CI="1").returncode == 1
    assert run(tmp_path, FRAMEWORK, LLMOPS_CI="1", TOX_ENV_NAME="py312").returncode == 1
