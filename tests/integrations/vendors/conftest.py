"""What CrewAI's tests need, and the kits of all three frameworks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
for _folder in ("crewai", "langchain"):
    sys.path.append(str(_HERE.parent / _folder))

# As it is, with the folder and the switches that it sets before CrewAI is imported.
_spec = importlib.util.spec_from_file_location(
    "llmops_crewai_conftest", _HERE.parent / "crewai" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_crewai = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_crewai)
spans = _crewai.spans


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The same warnings of CrewAI's own are left alone."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            for warning in ("DeprecationWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{warning}"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )
