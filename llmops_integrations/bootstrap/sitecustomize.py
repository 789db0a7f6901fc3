"""What Python runs at its start under ``llmops run``, in the program and in its child processes.

The folder of this file is on ``PYTHONPATH`` there. It leaves ``sys.path`` as it would be without it,
lets the next ``sitecustomize`` run, and imports nothing but a few lines of the standard library's:
monitoring begins when a framework is imported. Whatever fails here, the program runs.
"""

import importlib
import sys
from pathlib import Path

_FRAMEWORKS = ("langchain_core", "langgraph.pregel", "crewai")


def _run_the_next_one() -> None:
    here = str(Path(__file__).parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    mine = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")  # the environment's own
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if mine is not None:
            sys.modules["sitecustomize"] = mine


def _begin(_module: object) -> None:
    """A framework is being imported: monitor what it will run. Told, not raised, if that fails."""
    from llmops_integrations.imports import forget

    for name in _FRAMEWORKS:
        forget(name, _begin)
    try:
        from llmops_integrations import instrument

        instrument()
    except Exception as error:
        sys.stderr.write(f"llmops run: not monitored: {error}\n")


def _watch() -> None:
    try:
        from llmops_integrations.imports import when_imported
    except ImportError:  # a child process of another environment
        return
    for name in _FRAMEWORKS:
        when_imported(name, _begin)


_watch()
_run_the_next_one()
