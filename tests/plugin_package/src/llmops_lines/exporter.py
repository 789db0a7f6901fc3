"""The exporter: one short line of text a span, for people who follow a file."""

from __future__ import annotations

from pathlib import Path

from llmops_core import ConfigError, Span, SpanBatch

__all__ = ["TextLines"]


class TextLines:
    """Appends ``kind name outcome milliseconds`` to a file."""

    def __init__(self, path: str) -> None:
        if not path:
            raise ConfigError("exporter 'lines' names no file", "expected 'lines:./spans.txt'")
        self._path = Path(path)

    async def export(self, batch: SpanBatch) -> None:
        """Write one line a span."""
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(map(_line, batch.rows))

    async def close(self) -> None:
        """Do nothing: the file is open during an export only."""


def _line(span: Span) -> str:
    took = "-" if span.duration_ms is None else f"{span.duration_ms:.1f}"
    # A name may hold anything: a line break in it must not become a line.
    return f"{span.kind} {span.name!r} {span.outcome} {took}\n"
