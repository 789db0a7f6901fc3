"""The collector: how many lines of a span's output are code."""

from __future__ import annotations

from llmops_core import SpanBatch

__all__ = ["CodeLines", "count_code_lines"]

_FENCE = "```"


class CodeLines:
    """Adds the measurement ``code_lines``: lines inside code fences of the output."""

    def collect(self, batch: SpanBatch) -> dict[str, list[float | None]]:
        """Return one number a span; None where there is no output."""
        return {
            "code_lines": [
                None if s.output is None else count_code_lines(s.output) for s in batch.rows
            ]
        }


def count_code_lines(text: str) -> float:
    """Return how many lines stand inside code fences."""
    inside, found = False, 0
    for line in text.splitlines():
        if line.lstrip().startswith(_FENCE):
            inside = not inside
        elif inside:
            found += 1
    return float(found)
