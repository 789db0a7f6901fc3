"""Print one readable line for each span: ``console``, or ``console:stdout``."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Final, TextIO

from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = ["ConsoleExporter", "line"]

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - printed as UTC, with a Z
_LONGEST: Final = 200


class ConsoleExporter:
    """Writes lines to a stream: standard error unless told otherwise.

    Content is never printed, only names, times and counts. A stream that is closed or broken costs
    its lines, which ``dropped_lines`` counts; it never fails the batch, as there is nobody to tell.
    """

    name = "console"

    def __init__(self, stream: TextIO | None = None, *, to: str = "stderr") -> None:
        self._stream = stream
        self._to = to
        self.dropped_lines = 0

    async def export(self, batch: SpanBatch) -> None:
        """Print the batch. Called on the exporter's own thread; blocks while the stream does."""
        # Looked up each time: programs and test runners replace the standard streams.
        stream = self._stream if self._stream is not None else getattr(sys, self._to)
        text = "".join(line(span) + "\n" for span in batch.rows)
        try:
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
        except (OSError, ValueError, AttributeError, LookupError):
            self.dropped_lines += len(batch)  # closed, broken, or None (a program without console)

    async def close(self) -> None:
        """Do nothing: the stream is not ours to close."""


def line(span: Span) -> str:
    """Return one line about a span, free of control characters."""
    parts = [_when(span.start_time), f"{span.outcome:<11}", f"{span.kind:<9}", span.name]
    if span.agent and span.agent != span.name:
        parts.append(f"agent={span.agent}")
    if span.target_agent:
        parts.append(f"target={span.target_agent}")
    if span.duration_ms is not None:
        parts.append(f"{span.duration_ms:.1f}ms")
    if span.input_tokens is not None or span.output_tokens is not None:
        parts.append(f"tokens={_count(span.input_tokens)}+{_count(span.output_tokens)}")
    if span.cost_usd is not None:
        parts.append(f"${span.cost_usd:.6f}")
    if span.error_type:
        parts.append(f"{span.error_type}: {span.error_message or ''}"[:_LONGEST])
    parts.append(f"trace={span.trace_id} span={span.span_id}")
    return " ".join(_printable(part) for part in parts)


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else str(tokens)


def _when(micros: int) -> str:
    try:
        moment = _EPOCH + dt.timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros}us"
    return moment.isoformat(timespec="microseconds") + "Z"


def _printable(text: str) -> str:
    """Escape what could move the cursor, start a new line or turn the writing direction."""
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _make(argument: str) -> ConsoleExporter:
    if argument not in ("", "stderr", "stdout"):
        raise ConfigError(
            f"exporter 'console:{argument}'", "expected console, console:stderr or console:stdout"
        )
    return ConsoleExporter(to=argument or "stderr")


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the exporter."""
    registry.exporter("console", _make)
