"""Exports of OpenTelemetry spans, as ours: the semantic conventions ``gen_ai.*``, and OpenInference.

Takes what the OTLP/JSON file exporter and ``ReadableSpan.to_json`` write. Unknown attributes are kept,
so nothing that was exported is lost.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from llmops_core.span import KINDS, Span

__all__ = ["spans_from_otel"]

#: ``gen_ai.operation.name`` and ``openinference.span.kind``, in lower case, as kinds.
_KINDS: Final = {
    "chat": "llm", "text_completion": "llm", "generate_content": "llm", "llm": "llm",
    "embeddings": "embedding", "embedding": "embedding", "execute_tool": "tool", "tool": "tool",
    "retriever": "retriever", "reranker": "retriever", "invoke_agent": "agent",
    "create_agent": "agent", "agent": "agent", "chain": "chain", "guardrail": "guardrail",
    "evaluator": "chain",
}  # fmt: skip
_AGENT: Final = ("gen_ai.agent.name", "agent.name", "graph.node.id")
_SESSION: Final = ("session.id", "gen_ai.conversation.id")
_INPUT: Final = (
    "input.value",
    "gen_ai.input.messages",
    "gen_ai.prompt",
    "gen_ai.tool.call.arguments",
)
_OUTPUT: Final = ("output.value", "gen_ai.output.messages", "gen_ai.completion",
                  "gen_ai.tool.call.result")  # fmt: skip
_MODEL: Final = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name")
_IN_TOKENS: Final = ("gen_ai.usage.input_tokens", "llm.token_count.prompt")
_OUT_TOKENS: Final = ("gen_ai.usage.output_tokens", "llm.token_count.completion")


def spans_from_otel(export: Any) -> list[Span]:
    """Return the spans of an export: OTLP/JSON (one object or several), or a list of plain spans.

    A root without a kind is a ``workflow``. Spans that lack an id or a time are left out.
    """
    found = []
    for raw in _spans(export):
        made = _span(raw)
        if made is not None:
            found.append(made)
    return found


def _spans(export: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(export, Mapping):
        nested = [key for key in _NESTED if key in export]
        if not nested:
            yield export
        for key in nested:
            yield from _spans(export[key])
    elif isinstance(export, Iterable) and not isinstance(export, str | bytes):
        for item in export:
            yield from _spans(item)


_NESTED: Final = ("resourceSpans", "resource_spans", "scopeSpans", "scope_spans", "spans")


def _span(raw: Mapping[str, Any]) -> Span | None:
    context = _mapping(raw.get("context"))
    span_id = _id(_first(raw, ("spanId", "span_id")) or context.get("span_id"), 16)
    trace_id = _id(_first(raw, ("traceId", "trace_id")) or context.get("trace_id"), 32)
    start = _micros(_first(raw, ("startTimeUnixNano", "start_time_unix_nano", "start_time")))
    if span_id is None or trace_id is None or start is None:
        return None
    end = _micros(_first(raw, ("endTimeUnixNano", "end_time_unix_nano", "end_time")))
    parent = _id(_first(raw, ("parentSpanId", "parent_span_id", "parent_id")), 16)
    attributes = _attributes(raw.get("attributes"))
    kind = _kind(attributes, parent is None)
    name = str(raw.get("name") or kind)
    return Span(
        span_id=span_id,
        trace_id=trace_id,
        parent_id=parent,
        session_id=_text(_first(attributes, _SESSION)),
        user_id=_text(attributes.get("user.id")),
        kind=kind,
        name=name,
        agent=_text(_first(attributes, _AGENT)) or (name if kind == "agent" else None),
        outcome=_outcome(raw.get("status"), end),
        start_time=start,
        end_time=max(start, end if end is not None else start),
        duration_ms=None if end is None else max(0, end - start) / 1000,
        model=_text(_first(attributes, _MODEL)),
        input_tokens=_count(_first(attributes, _IN_TOKENS)),
        output_tokens=_count(_first(attributes, _OUT_TOKENS)),
        input=_text(_first(attributes, _INPUT)) or _messages(attributes, "llm.input_messages"),
        output=_text(_first(attributes, _OUTPUT)) or _messages(attributes, "llm.output_messages"),
        attributes={key: _text(value) or "" for key, value in attributes.items()} or None,
    )


def _kind(attributes: Mapping[str, Any], is_root: bool) -> str:
    said = _first(attributes, ("openinference.span.kind", "gen_ai.operation.name"))
    found = _KINDS.get(str(said or "").lower())
    if found is None or (found == "chain" and is_root):
        found = "workflow" if is_root else "chain"
    return found if found in KINDS else "chain"


def _outcome(status: Any, end: int | None) -> str:
    if end is None:
        return "incomplete"
    code = status
    if isinstance(status, Mapping):
        code = _first(status, ("code", "status_code"))
    return "error" if str(code).upper() in ("2", "ERROR", "STATUS_CODE_ERROR") else "ok"


def _attributes(raw: Any) -> dict[str, Any]:
    """Return attributes as a dictionary: OTLP has a list of keys and typed values."""
    if isinstance(raw, Mapping):
        return {str(key): value for key, value in raw.items()}
    found = {}
    for item in raw if isinstance(raw, list | tuple) else ():
        if isinstance(item, Mapping) and isinstance(item.get("key"), str):
            found[item["key"]] = _value(item.get("value"))
    return found


def _value(raw: Any) -> Any:
    if not isinstance(raw, Mapping) or len(raw) != 1:
        return raw
    kind, value = next(iter(raw.items()))
    if kind == "arrayValue":
        values = _mapping(value).get("values")
        return [_value(item) for item in values] if isinstance(values, list | tuple) else []
    if kind == "kvlistValue":
        return _attributes(_mapping(value).get("values"))
    return _count(value) if kind == "intValue" else value


def _mapping(raw: Any) -> Mapping[str, Any]:
    return raw if isinstance(raw, Mapping) else {}


def _messages(attributes: Mapping[str, Any], prefix: str) -> str | None:
    """Return the messages that OpenInference spreads over ``PREFIX.0.message.role`` and so on."""
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        parts = key.removeprefix(prefix + ".").split(".")
        if key.startswith(prefix + ".") and len(parts) == 3 and parts[0].isdigit():
            found.setdefault(int(parts[0]), {"role": "user", "content": ""})[parts[2]] = value
    return json.dumps([found[at] for at in sorted(found)]) if found else None


def _id(raw: Any, digits: int) -> str | None:
    """Return an id as lower-case hex of our length; one of another shape is hashed to it."""
    if not isinstance(raw, str) or not raw:
        return None
    plain = raw.lower().removeprefix("0x")
    if len(plain) == digits and all(c in "0123456789abcdef" for c in plain):
        return None if set(plain) == {"0"} else plain
    return hashlib.sha256(raw.encode("utf-8", "replace")).hexdigest()[:digits]


def _micros(raw: Any) -> int | None:
    """Return a time as microseconds: nanoseconds as a number or text, or ISO text."""
    if isinstance(raw, str) and not raw.isdigit():
        try:
            moment = dt.datetime.fromisoformat(raw)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return int(moment.timestamp() * 1_000_000)
    try:
        return int(raw) // 1000
    except (TypeError, ValueError):
        return None


def _count(raw: Any) -> int | None:
    try:
        return int(raw)
    except (TypeError, ValueError):
        return None


def _text(raw: Any) -> str | None:
    return raw if raw is None or isinstance(raw, str) else json.dumps(raw, default=str)


def _first(values: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((values[key] for key in keys if values.get(key) not in (None, "")), None)
