"""Keeps spans as JSON lines: a storage, an exporter and a collector, registered as ``lines``."""

from __future__ import annotations

from llmops_core import Registry, hookimpl
from llmops_lines.collector import CodeLines
from llmops_lines.exporter import TextLines
from llmops_lines.storage import LinesStorage

__all__ = ["CodeLines", "LinesStorage", "TextLines", "llmops_register"]


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Provide ``lines:FILE`` as a storage, ``lines:FILE`` as an exporter, ``lines`` as a collector."""
    registry.storage("lines", LinesStorage.from_url)
    registry.exporter("lines", TextLines)
    registry.collector("lines", lambda argument: CodeLines())
