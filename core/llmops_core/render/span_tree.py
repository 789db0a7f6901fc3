"""Draw spans as a small deterministic text: what the handler suites compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from llmops_core.span import Span

__all__ = ["span_tree"]

_INDENT: Final = "  "


def span_tree(spans: Iterable[Span], *, content: bool = False, times: bool = False) -> str:
    """Return the spans as an indented tree, one line each; children by start time, then name.

    A line is ``kind name outcome`` and then what is there to tell::

        workflow support ok
          agent researcher ok
            llm scripted-1 [researcher] ok 12+3 tokens streamed
            tool search [researcher] error TimeoutError attempt=2

    ``content=True`` adds what went in and came out, ``times=True`` durations. A span whose parent
    is not among the spans is a root, marked ``(orphan)``.
    """
    ordered = sorted(spans, key=lambda s: (s.start_time, s.name, s.span_id))
    known = {span.span_id for span in ordered}
    children: dict[str | None, list[Span]] = defaultdict(list)
    for span in ordered:
        children[span.parent_id if span.parent_id in known else None].append(span)
    lines: list[str] = []
    seen: set[str] = set()

    def draw(span: Span, depth: int) -> None:
        if span.span_id in seen:
            return
        seen.add(span.span_id)
        margin = _INDENT * depth
        orphan = span.parent_id is not None and span.parent_id not in known
        lines.append(margin + " ".join(_words(span, times=times)) + " (orphan)" * orphan)
        if content:
            lines.extend(margin + _INDENT + line for line in _content(span))
        for child in children[span.span_id]:
            draw(child, depth + 1)

    for root in children[None]:
        draw(root, 0)
    for span in ordered:  # a cycle has no root
        draw(span, 0)
    return "\n".join(lines) + "\n" if lines else ""


def _words(span: Span, *, times: bool) -> Iterator[str]:
    yield span.kind
    yield span.name
    if span.agent and not (span.kind == "agent" and span.agent == span.name):
        yield f"[{span.agent}]"
    if span.target_agent:
        yield f"-> {span.target_agent}"
    if span.handoff_mechanism:
        yield f"by {span.handoff_mechanism}"
    yield span.outcome
    if span.error_type:
        yield span.error_type
    if span.attempt is not None and span.attempt > 1:
        yield f"attempt={span.attempt}"
    if span.input_tokens is not None or span.output_tokens is not None:
        yield f"{span.input_tokens}+{span.output_tokens} tokens"
    if span.ttft_ms is not None:
        yield "streamed"
    if span.parent_id is None and span.session_id:
        yield f"session={span.session_id}"
    if times and span.duration_ms is not None:
        yield f"{span.duration_ms:.1f}ms"


def _content(span: Span) -> Iterator[str]:
    for label, value in (("in", span.input), ("out", span.output)):
        if value is not None:
            yield f"{label}: {value}"
