"""Makes the kits importable, and takes ``instrument()`` back after each test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for _folder in ("langchain", "langgraph"):
    sys.path.append(str(Path(__file__).parents[1] / _folder))


@pytest.fixture(autouse=True)
def _taken_back() -> Iterator[None]:
    from llmops_integrations import uninstrument

    yield
    uninstrument()
