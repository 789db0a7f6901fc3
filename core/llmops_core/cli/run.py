"""``llmops run``: run a program as Python would, with everything monitored."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from llmops_core.cli.options import StorageOption

__all__ = ["SETTINGS", "run"]

#: What comes after the program is the program's, whatever it looks like.
SETTINGS: Final[dict[str, Any]] = {"allow_interspersed_args": False}


def run(
    program: Annotated[str, typer.Argument(help="The file, or with -m the module.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="The program's own.")] = None,
    module: Annotated[bool, typer.Option("-m", help="Run a module, as python -m does.")] = False,
    storage: StorageOption = None,
) -> None:
    """Run a program with LangChain, LangGraph and CrewAI monitored, without changing its code.

    As `python app.py` or `python -m module` runs it: the same process, arguments, exit code, signals
    and tracebacks. Its child processes that run Python are monitored as well.
    """
    environment = _environment(storage)
    _check(environment)
    command = [sys.executable, *(["-m"] if module else []), program, *(arguments or [])]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 - this process becomes the program


def _environment(storage: str | None) -> dict[str, str]:
    path = [str(_bootstrap()), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    if storage is not None:
        environment["LLMOPS_STORAGE_URL"] = storage
    return environment


def _bootstrap() -> Path:
    """Return the folder of what Python runs at its start. The core imports no integration."""
    from importlib.util import find_spec

    from llmops_core.errors import MissingDependency

    spec = find_spec("llmops_integrations")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(
            "llmops_integrations is not installed", "", "pip install llmops-integrations"
        )
    return Path(spec.submodule_search_locations[0]) / "bootstrap"


def _check(environment: dict[str, str]) -> None:
    """Raise for a set-up that cannot work, before the program runs: it would run unmonitored."""
    from llmops_core.config import make_settings, storage_url
    from llmops_core.parts import make_storage
    from llmops_core.plugins import PluginHost

    os.environ["LLMOPS_STORAGE_URL"] = environment.get("LLMOPS_STORAGE_URL", "")
    make_settings({})
    make_storage(PluginHost(), storage_url())
