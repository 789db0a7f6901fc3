"""Pauses for a human: who was asked what, since when, and what they answered.

Pure: spans in, rows out. A paused span stores a ``wait_key``; the run that goes on from there stores
the same as its ``resume_key``, perhaps in another process and weeks later. Nothing else joins them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from llmops_core.span import Span

__all__ = ["COLUMNS", "Pause", "Question", "waiting"]

#: The columns that :func:`waiting` reads.
COLUMNS: Final = (
    "trace_id", "span_id", "kind", "name", "agent", "outcome", "session_id", "thread_id",
    "wait_key", "resume_key", "start_time", "end_time", "input", "output", "attributes",
)  # fmt: skip

#: Where content holds the questions of a pause, and the answer: as LangGraph's callers know them.
_ASKED: Final = "__interrupt__"
_ANSWER: Final = "resume"
_PAUSE: Final = "langgraph.pause"


class Question(NamedTuple):
    """One thing that was asked: LangGraph's id of it, and the value that the program gave."""

    id: str | None
    value: Any


class Pause(NamedTuple):
    """One pause. Times are UTC microseconds. Of the traces that resumed it the first answered it."""

    trace_id: str
    span_id: str
    name: str
    agent: str | None
    session_id: str | None
    thread_id: str | None
    wait_key: str
    cause: str | None
    asked: tuple[Question, ...]
    since: int
    answered: bool
    answer: Any
    answered_at: int | None
    resumed_trace_ids: tuple[str, ...]
    waited_ms: float
    #: When the thread was last at work after the pause, although nothing stored answers it: the
    #: resumed run has not ended yet, or the user went on without an answer.
    thread_went_on: int | None


def waiting(
    spans: Iterable[Span], *, now: int, thread_activity: Mapping[str, int] | None = None
) -> list[Pause]:
    """Return the pauses among *spans*, the longest waiting first, then the answered, newest first.

    A key may serve several pauses in a row (two questions in one node, or two answered one after
    the other): a resume belongs to the last pause before it, and of several resumes of one pause
    (forks, time travel) the first answered it. *now* ends the wait of those that wait still.
    """
    paused: dict[str, list[Span]] = defaultdict(list)
    resumed: dict[str, list[Span]] = defaultdict(list)
    for span in {s.span_id: s for s in spans}.values():
        if span.wait_key:
            paused[span.wait_key].append(span)
        if span.resume_key:
            resumed[span.resume_key].append(span)
    rows = []
    for key, pauses in paused.items():
        pauses.sort(key=lambda s: (s.end_time, s.span_id))
        for span, answers in zip(pauses, _answers(pauses, resumed.get(key, ())), strict=True):
            rows.append(_row(span, answers, now, (thread_activity or {}).get(span.thread_id or "")))
    rows.sort(key=lambda row: (row.answered, -row.since if row.answered else row.since))
    return rows


def _answers(pauses: Sequence[Span], resumes: Iterable[Span]) -> list[list[Span]]:
    """Give each resume to the last pause before it; clocks may differ, so else to the first."""
    found: list[list[Span]] = [[] for _ in pauses]
    for resume in sorted(resumes, key=lambda s: (s.start_time, s.span_id)):
        at = [
            i
            for i, pause in enumerate(pauses)
            if pause.end_time <= resume.start_time and pause.span_id != resume.span_id
        ]
        other = next((i for i, p in enumerate(pauses) if p.span_id != resume.span_id), None)
        place = at[-1] if at else other
        if place is not None:
            found[place].append(resume)
    return found


def _row(span: Span, answers: Sequence[Span], now: int, active: int | None) -> Pause:
    first = answers[0] if answers else None
    until = first.start_time if first is not None else now
    went_on = active if first is None and active is not None and active > span.end_time else None
    return Pause(
        trace_id=span.trace_id,
        span_id=span.span_id,
        name=span.name,
        agent=span.agent,
        session_id=span.session_id,
        thread_id=span.thread_id,
        wait_key=span.wait_key or "",
        cause=(span.attributes or {}).get(_PAUSE),
        asked=_questions(span.output),
        since=span.end_time,
        answered=first is not None,
        answer=_object(first.input).get(_ANSWER) if first is not None else None,
        answered_at=first.start_time if first is not None else None,
        resumed_trace_ids=tuple(dict.fromkeys(span.trace_id for span in answers)),
        waited_ms=max(0, until - span.end_time) / 1000,
        thread_went_on=went_on,
    )


def _questions(output: str | None) -> tuple[Question, ...]:
    asked = _object(output).get(_ASKED)
    if not isinstance(asked, list):
        return ()
    found = []
    for item in asked:
        if isinstance(item, dict) and "value" in item:
            name = item.get("id")
            found.append(Question(name if isinstance(name, str) else None, item["value"]))
        else:
            found.append(Question(None, item))
    return tuple(found)


def _object(text: str | None) -> dict[str, Any]:
    """Return content that is a JSON object; an empty one for anything else."""
    if not text or not text.startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
