"""Drafts: dicts of span fields whose ``input`` and ``output`` are still frozen values."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

from llmops_core.intake.state import Run, nearest_agent

__all__ = ["INHERITED", "NS_PER_MS", "Draft", "draft_of", "handoff_draft", "inherit", "span_id_of"]

Draft = dict[str, Any]

NS_PER_MS: Final = 1_000_000
INHERITED: Final = ("session_id", "thread_id", "user_id")


def span_id_of(run_id: int, starts: int = 1) -> str:
    """Return the span id of a run id: the host and another process can compute it too."""
    key = run_id.to_bytes(16, "big")
    if starts > 1:
        key += starts.to_bytes(4, "big")
    return blake2b(key, digest_size=8).hexdigest()


def draft_of(run: Run, mono: int, fields: dict[str, Any], outcome: str) -> Draft:
    """Make the draft of a run that ends: ids, times, agent; the later fields win."""
    trace = run.trace
    draft = {**run.fields, **fields}
    if run.fields.get("attributes") and fields.get("attributes"):
        draft["attributes"] = {**run.fields["attributes"], **fields["attributes"]}
    draft["kind"] = run.kind
    draft["outcome"] = outcome
    draft["span_id"] = run.span_id
    draft["trace_id"] = trace.trace_id
    if run.parent is not None:
        draft["parent_id"] = run.parent.span_id
    elif run.awaited_parent is not None:
        draft["parent_id"] = span_id_of(run.awaited_parent)
    else:
        draft["parent_id"] = run.remote_parent
    agent, draft["agent_span_id"] = nearest_agent(run)
    if run.kind == "agent":
        draft["agent"] = draft.get("agent") or draft.get("name")
    elif not draft.get("agent"):
        draft["agent"] = agent
    start, end = trace.wall_us(run.start_ns), trace.wall_us(max(mono, run.start_ns))
    draft["start_time"], draft["end_time"] = start, end
    if run.retry_key is not None and outcome == "error":
        draft["attempt"] = draft.get("attempt") or 1
    # How long a run took whose end never came is not known.
    if run.start_known and not run.closed_by_us and outcome != "incomplete":
        draft["duration_ms"] = max(0, mono - run.start_ns) / NS_PER_MS
        if run.first_token_ns is not None:
            draft["ttft_ms"] = max(0, run.first_token_ns - run.start_ns) / NS_PER_MS
    # Where the root is somebody else's, the topmost spans that are ours say it.
    if trace.over_limit and (trace.root is run or run.awaited_parent is not None):
        extra = {"llmops.span_limit_exceeded": str(trace.over_limit)}
        draft["attributes"] = {**(draft.get("attributes") or {}), **extra}
    return draft


def handoff_draft(above: Run, fields: Draft, start_ns: int, end_ns: int) -> Draft:
    """Make the draft of a handoff that hangs below *above*."""
    trace = above.trace
    trace.handoff_count += 1
    key = f"handoff {above.span_id} {trace.handoff_count}".encode()
    agent_span = nearest_agent(above, including=True)[1]
    return {
        **{name: above.fields.get(name) for name in INHERITED},
        **fields,
        "span_id": blake2b(key, digest_size=8).hexdigest(),
        "trace_id": trace.trace_id,
        "parent_id": above.span_id,
        "agent_span_id": agent_span,
        "start_time": trace.wall_us(start_ns),
        "end_time": trace.wall_us(end_ns),
        "duration_ms": (end_ns - start_ns) / NS_PER_MS,
    }


def inherit(run: Run) -> None:
    """Give a run what it has from its parent and does not say itself."""
    parent = run.parent
    if parent is None:
        return
    fields, above = run.fields, parent.fields
    for name in INHERITED:
        value = above.get(name)
        if value is not None and fields.get(name) is None:
            fields[name] = value
