"""Keeps spans as JSON lines: a storage and more, each registered as ``lines``."""

from __future__ import annotations

from llmops_core import Registry, hookimpl
from llmops_lines.analyzer import CodeByAgent
from llmops_lines.collector import CodeLines
from llmops_lines.exporter import TextLines
from llmops_lines.extractor import CodePlaces
from llmops_lines.storage import LinesStorage

__all__ = [
    "CodeByAgent", "CodeLines", "CodePlaces", "LinesStorage", "TextLines", "llmops_register",
]  # fmt: skip


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Provide ``lines:FILE`` as a storage and an exporter, ``lines`` as everything else."""
    registry.storage("lines", LinesStorage.from_url)
    registry.exporter("lines", TextLines)
    registry.collector("lines", lambda argument: CodeLines())
    registry.analyzer("lines", lambda argument: CodeByAgent())
    registry.entity_extractor("lines", lambda argument: CodePlaces())
