"""Processes that cost next to nothing: a parent that has imported everything forks one for each cell.

Run as a script it is the parent: it reads a cell a line, forks, and answers how the child ended. The
child runs the cell as a program of its own, to the end of its interpreter.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import faults_last  # noqa: F401 - its exit handler must be there before all others

__all__ = ["Zygote"]

CELL_SECONDS: Final = 60.0


class Zygote:
    """The parent, seen from the laboratory. Runs one cell at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, "LLMOPS_STATE_DIR": tempfile.mkdtemp(prefix="llmops-lab-")}
        self._state = environment["LLMOPS_STATE_DIR"]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def run(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Run a cell and return its exit, what it printed, and its record."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(cell) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the parent."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(60)
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._state, ignore_errors=True)


def _import_everything() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    for name in ("duckdb", "llmops_core.cli.app", "llmops_core.cli.doctor_lines", "faults_cell"):
        importlib.import_module(name)
    from faults_crewai import stay_offline
    from faults_hosts import FRAMEWORKS, installed

    from llmops_core.schema import import_arrow

    import_arrow()
    for name in installed():
        if name == "crewai":  # its first run starts threads, which no child would have
            stay_offline()
            importlib.import_module("crewai_kit")
        else:
            FRAMEWORKS[name](None)[0].invoke(1, {})
    # Else a child's first full collection touches all that was imported, a copy of each page: half a
    # second, within which a plugin's call would be late.
    gc.collect()
    gc.freeze()


def _parent() -> tuple[dict[str, Any], Path] | None:
    """Fork a child for each line; return in the child, with its cell."""
    for line in iter(sys.stdin.readline, ""):
        cell = json.loads(line)
        folder = Path(tempfile.mkdtemp(prefix="llmops-cell-"))
        child = os.fork()
        if child == 0:
            _become_a_program(folder)
            return cell, folder
        print(json.dumps(_outcome(child, folder, cell.get("seconds", CELL_SECONDS))), flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _become_a_program(folder: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, name in ((1, "out"), (2, "err")):
        target = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(target, number)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)


def _outcome(child: int, folder: Path, seconds: float) -> dict[str, Any]:
    deadline, late = time.monotonic() + seconds, False
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > deadline:
            late = True
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.005)
    _, status = os.waitpid(child, 0)
    side = folder / "side"
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "late": late,
        "stdout": (folder / "out").read_text(),
        "stderr": (folder / "err").read_text(),
        "record": json.loads(side.read_text()) if side.exists() else {},
    }


if __name__ == "__main__":
    _import_everything()
    given = _parent()
    if given is not None:
        module, _, function = given[0].get("run", "faults_cell:run_cell").partition(":")
        getattr(importlib.import_module(module), function)(given[0], given[1] / "side")
