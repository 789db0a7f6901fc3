"""What ``llmops run`` and ``instrument()`` would hook, tried in a process of its own.

An upgrade of a framework may move what is hooked, and nothing else would tell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, Final

from llmops_core import Finding

__all__ = ["Hooks"]

_SECONDS: Final = 110.0
_TRIAL: Final = "from llmops_integrations.checks.trial import main; main()"
#: What would store, send or ask something.
_QUIET: Final = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TESTING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "LANGSMITH_TRACING": "false",
    "LANGSMITH_TRACING_V2": "false",
    "LANGCHAIN_TRACING_V2": "false",
}


class Hooks:
    """Imports the frameworks, attaches as ``llmops run`` does, and runs one step of each."""

    def check(self) -> Iterator[Finding]:
        """Return one finding for each framework that is installed."""
        with tempfile.TemporaryDirectory(prefix="llmops-doctor-") as folder:
            told = _tried(folder)
        if told is None:
            yield Finding(
                f"not known: the frameworks' imports took longer than {_SECONDS:g} s", "note"
            )
            return
        if isinstance(told, str):
            yield Finding(told, "problem")
            return
        for name, state in told.items():
            yield _finding(name, state)
        if not told:
            yield Finding("no framework is installed: decorated functions are recorded")


def _tried(folder: str) -> dict[str, dict[str, Any]] | str | None:
    """Return what the trial says, what went wrong with it, or None where it took too long."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMOPS_")}
    environment = {**kept, **_QUIET, "HOME": folder, "CREWAI_STORAGE_DIR": folder}
    command = [sys.executable, "-P", "-c", _TRIAL]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and a text of ours
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        told: dict[str, dict[str, Any]] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return None
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return f"the trial ended with {done.returncode}: {last}"
    return told


def _finding(name: str, state: dict[str, Any]) -> Finding:
    facts = {"framework": name, **state}
    if state["error"] is not None:
        return Finding(f"{name} cannot be imported: {state['error']}", "problem", facts)
    if not state["hook"].startswith("attached"):
        return Finding(f"{name}: {state['hook']}", "problem", facts)
    if not state["recorded"]:
        text = f"{name}: {state['hook']}, and a run of it was not recorded"
        return Finding(text, "problem", facts)
    return Finding(f"{name}: {state['hook']}; a run of it is recorded", "ok", facts)
