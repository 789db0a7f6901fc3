"""From LangGraph's pauses and resumes to plain span fields. Pure: no clock, no state, no I/O."""

from __future__ import annotations

import hashlib
from typing import Any

from llmops_integrations.langchain.reading import text

__all__ = ["pause_fields", "pause_key", "resume_fields"]


def pause_key(thread_id: str | None, checkpoint_id: str | None) -> str | None:
    """Return what a pause and its resume have in common, in whichever process they happen.

    None without a thread: nobody can come back to a run that no checkpointer keeps.
    """
    if not thread_id or not checkpoint_id:
        return None
    said = f"{thread_id}\0{checkpoint_id}".encode(errors="surrogatepass")
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def pause_fields(event: Any, thread_id: str | None) -> dict[str, Any]:
    """Return what the end of a paused graph run brings: its key, and how it was stopped.

    A status of ``pending`` means that a node asked by ``interrupt()``; ``interrupt_before`` and
    ``interrupt_after`` are the breakpoints of the graph or the call.
    """
    checkpoint = text(event.checkpoint_id)
    fields = _fields("wait_key", thread_id, checkpoint)
    status = text(event.status)
    if status:
        fields["attributes"]["langgraph.pause"] = "interrupt" if status == "pending" else status
    return fields


def resume_fields(event: Any, thread_id: str | None) -> dict[str, Any]:
    """Return what the end of a resumed graph run brings.

    A subgraph that goes on with its parent is told of as well, and has no key: the pause was one.
    """
    if event.checkpoint_ns:
        return {}
    return _fields("resume_key", thread_id, text(event.checkpoint_id), "resumed_")


def _fields(
    name: str, thread_id: str | None, checkpoint: str | None, of: str = ""
) -> dict[str, Any]:
    fields: dict[str, Any] = {"attributes": {}}
    key = pause_key(thread_id, checkpoint)
    if key is not None:
        fields[name] = key
    if checkpoint:
        fields["attributes"][f"langgraph.{of}checkpoint_id"] = checkpoint
    return fields
