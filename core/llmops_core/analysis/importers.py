"""What others recorded, as events: message logs and plain records of spans."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llmops_core.analysis.drift import Content
from llmops_core.analysis.events import Event

__all__ = ["contents_of_records", "events_from_messages", "events_from_records"]

_KINDS: Final = {
    "model": "llm", "llm_call": "llm", "function": "tool", "tool_call": "tool", "run": "workflow",
    "trace": "workflow", "agent_workflow": "workflow", "retrieval": "retriever",
}  # fmt: skip

_SPEAKERS: Final = ("name", "agent", "sender", "source", "from", "role", "type")
_MACHINES: Final = ("tool", "function", "tool_result")
_FAILED: Final = frozenset(
    ("error", "failed", "failure", "fail", "exception", "timeout", "timed_out", "crashed", "2",
     "status_code_error")
)  # fmt: skip
_FINE: Final = frozenset(
    ("ok", "success", "succeeded", "completed", "complete", "done", "finished", "unset", "1", "0",
     "status_code_ok", "status_code_unset")
)  # fmt: skip


def events_from_messages(
    messages: Iterable[Mapping[str, Any]], *, session_id: str = "log"
) -> list[Event]:
    """Return the events of a plain message log: ``[{"name": ..., "content": ...}, ...]``.

    Who speaks is ``name``, else ``agent``, ``sender``, ``source``, ``from``, ``role`` or ``type``;
    messages follow each other in the order in which they come. Each is an event at its place in the
    log, not a time. What a tool returned, whatever its name, is nobody's turn.
    """
    found = []
    for index, message in enumerate(messages):
        name = _first(message, _SPEAKERS) or "unknown"
        if str(message.get("role") or message.get("type")).lower() in _MACHINES:
            name = "tool"
        found.append(
            Event(
                event_id=str(message.get("event_id") or f"{session_id}-{index}"),
                partition=str(message.get("session_id") or session_id),
                session_id=str(message.get("session_id") or session_id),
                kind="message",
                name=str(name),
                span_id=str(message.get("event_id") or f"{session_id}-{index}"),
                parent_id=None,
                start=float(index) * 1e6,
                end=float(index) * 1e6,
                outcome=_outcome(message.get("status")),
            )
        )
    return found


def events_from_records(records: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Return the events of plain records of spans and messages.

    A record has ``event_id`` or ``span_id``, ``session_id``, ``type`` (or ``kind``), ``name``,
    ``start`` and ``end`` in seconds or as ISO text, ``status``, and maybe ``parent_span_id``, ``attempt``,
    ``target`` and ``metadata``. One of type ``message`` has ``index`` instead of times. A chain
    whose metadata names a LangGraph node is the run of the agent of that name.
    """
    return [_record(record, at) for at, record in enumerate(records)]


def contents_of_records(records: Iterable[Mapping[str, Any]]) -> dict[str, Content]:
    """Return the content of plain records that have ``input`` or ``output``, by span id."""
    found = {}
    for at, record in enumerate(records):
        given, said = record.get("input"), record.get("output")
        if given is not None or said is not None:
            event = _record(record, at)
            found[event.span_id] = Content(
                _text(given),
                _text(said),
                bool(record.get("input_truncated")),
                bool(record.get("output_truncated")),
            )
    return found


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _record(record: Mapping[str, Any], at: int) -> Event:
    kind = str(_first(record, ("type", "kind", "operation_type")) or "chain").lower()
    kind = _KINDS.get(kind, kind)
    session = str(record.get("session_id") or record.get("trace_id") or "log")
    event_id = str(record.get("event_id") or record.get("span_id") or f"{session}-{at}")
    node = _node(record.get("metadata"))
    start = record.get("start")
    if start is None:
        start = record.get("index", at)
    end = record.get("end")
    return Event(
        event_id=event_id,
        partition=session,
        session_id=session,
        kind=kind,
        name=str(_first(record, ("name", "operation_name")) or kind),
        span_id=str(record.get("span_id") or event_id),
        parent_id=record.get("parent_span_id") or record.get("parent_id"),
        start=_micros(start),
        end=_micros(start if end is None else end),
        outcome=_outcome(record.get("status") or record.get("outcome")),
        attempt=record.get("attempt"),
        agent=node or record.get("agent"),
        target=record.get("target"),
        mechanism="node" if node and kind == "chain" else None,
    )


def _outcome(said: object) -> str:
    """Return how something ended, in our words: exports say ``ERROR``, ``failure`` or ``success``."""
    word = str(said or "ok").lower().rpartition(".")[2]
    if word in _FAILED:
        return "error"
    return "ok" if word in _FINE else word


def _micros(moment: object) -> float:
    """Return a time in microseconds: seconds as a number or text, or ISO text."""
    try:
        return float(moment) * 1e6  # type: ignore[arg-type]
    except (TypeError, ValueError):
        parsed = dt.datetime.fromisoformat(str(moment))
        zoned = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=dt.UTC)
        return zoned.timestamp() * 1e6


def _node(metadata: Any) -> str | None:
    if isinstance(metadata, str):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            return None
    node = metadata.get("langgraph_node") if isinstance(metadata, dict) else None
    return node if isinstance(node, str) and node else None


def _first(message: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((message[key] for key in keys if message.get(key)), None)
