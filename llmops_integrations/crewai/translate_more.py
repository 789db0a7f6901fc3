"""Readers of flows, memory, knowledge, MCP, A2A, and of events that only happen. Pure."""

from __future__ import annotations

from typing import Any, Final

from llmops_integrations.crewai.reading import count, error_fields, read, text
from llmops_integrations.crewai.translate import (
    POINT,
    READERS,
    Freeze,
    Reader,
    _ends,
    _failures,
    _starts,
)

__all__ = ["HIDDEN", "is_internal"]

#: CrewAI's own flows run below these: an agent's executor, memory's recall.
_INTERNAL: Final = "crewai."
HIDDEN: Final = "_hidden"


def is_internal(flow: Any) -> bool:
    """Whether a flow is CrewAI's own machinery: every agent execution is wrapped in one."""
    return type(flow).__module__.startswith(_INTERNAL)


# ---- flows ----


@_starts("flow_started")
def flow_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": "workflow", "name": text(event.flow_name) or "flow"}
    if is_internal(source):
        fields[HIDDEN] = True
        return fields
    if event.inputs:
        fields["input"] = freeze(event.inputs)
    # No event tells that a flow goes on after a pause; the flow itself knows.
    paused = read(source, "_pending_feedback_context")
    if paused is not None:
        fields["_resumes"] = (text(read(paused, "flow_id")), text(read(paused, "method_name")))
    return fields


@_ends("flow_started", "flow_finished")
def flow_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    if is_internal(source):
        return {"outcome": "ok"}
    fields: dict[str, Any] = {"outcome": "ok", "output": freeze(event.result)}
    given = read(source, "last_human_feedback")
    if given is not None:
        fields["_feedback"] = read(given, "feedback")
    return fields


_failures("flow_started", "FlowError", "flow_failed")


@_starts("method_execution_started")
def method_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": "task", "name": text(event.method_name) or "method"}
    if event.params:
        fields["input"] = freeze(event.params)
    return fields


@_ends("method_execution_started", "method_execution_finished")
def method_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"outcome": "ok", "output": freeze(event.result)}


_failures("method_execution_started", "FlowError", "method_execution_failed")


@_ends("method_execution_started", "method_execution_paused")
def method_paused(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"outcome": "interrupted", "output": freeze(_asked(event.message))}


@_ends("flow_started", "flow_paused")
def flow_paused(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {
        "outcome": "interrupted",
        "output": freeze(_asked(event.message)),
        "_paused": (text(event.flow_id), text(event.method_name)),
    }


def _asked(message: Any) -> dict[str, Any]:
    """Return a question in the form that a pause has in every framework."""
    return {"__interrupt__": [{"value": message}]}


@_starts("human_feedback_requested", "flow_input_requested")
def feedback_requested(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    name = "human feedback" if event.type == "human_feedback_requested" else "human input"
    shown = read(event, "output")
    given = event.message if shown is None else {"message": event.message, "output": shown}
    return {"kind": "chain", "name": name, "input": freeze(given), "_waits": True}


def feedback_received(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    answer = read(event, "feedback") if event.type == "human_feedback_received" else event.response
    fields: dict[str, Any] = {"outcome": "ok", "output": freeze(answer), "_answers": True}
    outcome = text(read(event, "outcome"))
    if outcome:
        fields["attributes"] = {"crewai.feedback_outcome": outcome}
    return fields


READERS["human_feedback_received"] = Reader(POINT, feedback_received)
READERS["flow_input_received"] = Reader(POINT, feedback_received)


# ---- memory and knowledge ----


def _memory(name: str) -> None:
    def started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
        fields: dict[str, Any] = {"kind": "retriever", "name": name}
        given = read(event, "query") or read(event, "value") or read(event, "task_prompt")
        if given is not None:
            fields["input"] = freeze(given)
        return fields

    def ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
        fields: dict[str, Any] = {"outcome": "ok"}
        query = read(event, "query")
        if query is not None:  # knowledge tells what it was asked only when it has answered
            fields["input"] = freeze(query)
        for told in ("results", "memory_content", "retrieved_knowledge", "value"):
            found = read(event, told)
            if found is not None:
                fields["output"] = freeze(found)
                break
        return fields

    _starts(f"{name}_started")(started)
    _ends(f"{name}_started", f"{name}_completed")(ended)
    _failures(f"{name}_started", "RetrieverError", f"{name}_failed")


for _name in (
    "memory_retrieval",
    "memory_query",
    "memory_save",
    "knowledge_query",
    "knowledge_search_query",
):
    _memory(_name)


# ---- MCP ----


@_starts("mcp_connection_started")
def mcp_connecting(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"kind": "chain", "name": f"mcp connect {text(event.server_name) or ''}".strip()}


_ends("mcp_connection_started", "mcp_connection_completed")(
    lambda event, source, freeze: {"outcome": "ok"}
)


@_starts("mcp_tool_execution_started")
def mcp_tool_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": "tool",
        "name": text(event.tool_name) or "tool",
        "input": freeze(event.tool_args),
        "_inner_tool": True,
    }
    server = text(event.server_name)
    if server:
        fields["attributes"] = {"crewai.mcp_server": server}
    return fields


@_ends("mcp_tool_execution_started", "mcp_tool_execution_completed")
def mcp_tool_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"outcome": "ok", "output": freeze(event.result)}


def _mcp_failed(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    fields = error_fields(event.error, "MCPError")
    reason = text(read(event, "error_type"))
    if reason:
        fields["attributes"] = {"crewai.mcp_error": reason}
    return fields


_ends("mcp_connection_started", "mcp_connection_failed")(_mcp_failed)
_ends("mcp_tool_execution_started", "mcp_tool_execution_failed")(_mcp_failed)


# ---- A2A: agents elsewhere ----


def _remote_name(event: Any) -> str:
    return text(event.a2a_agent_name) or text(event.endpoint) or "remote agent"


@_starts("a2a_delegation_started")
def a2a_started(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    name = _remote_name(event)
    task = freeze(event.task_description)
    return {
        "kind": "agent",
        "name": name,
        "agent": name,
        "input": task,
        "attributes": _endpoint(event),
        "_remote": True,
    }


def _endpoint(event: Any) -> dict[str, str]:
    endpoint = text(event.endpoint)
    return {"crewai.endpoint": endpoint} if endpoint else {}


def _a2a_ended(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    told = read(event, "result")
    told = read(event, "final_result") if told is None else told
    if event.status == "failed" or (told is None and event.error):
        return error_fields(event.error, "A2AError")
    outcome = "interrupted" if event.status in ("input_required", "auth_required") else "ok"
    return {"outcome": outcome, "output": freeze(told)}


_ends("a2a_delegation_started", "a2a_delegation_completed")(_a2a_ended)


@_starts("a2a_conversation_started")
def a2a_conversation(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    name = f"conversation with {_remote_name(event)}"
    return {"kind": "chain", "name": name, "attributes": _endpoint(event)}


_ends("a2a_conversation_started", "a2a_conversation_completed")(_a2a_ended)


@_starts("a2a_server_task_started")
def a2a_served(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"kind": "workflow", "name": "a2a task"}


_ends("a2a_server_task_started", "a2a_server_task_completed")(
    lambda event, source, freeze: {"outcome": "ok", "output": freeze(event.result)}
)
_ends("a2a_server_task_started", "a2a_server_task_canceled")(
    lambda event, source, freeze: {"outcome": "cancelled"}
)
_failures("a2a_server_task_started", "A2AError", "a2a_server_task_failed")


@_starts("a2a_parallel_delegation_started")
def a2a_parallel(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    return {"kind": "chain", "name": "parallel delegation", "input": freeze(event.task_description)}


_ends("a2a_parallel_delegation_started", "a2a_parallel_delegation_completed")(
    lambda event, source, freeze: {"outcome": "ok", "output": freeze(event.results)}
)


# ---- what only happens ----

#: Event types that become events, with the fields that say what happened.
_POINTS: Final[dict[str, tuple[str, ...]]] = {
    "a2a_message_sent": ("message",),
    "a2a_response_received": ("response",),
    "a2a_artifact_received": ("artifact_name", "artifact_description"),
    "a2a_authentication_failed": ("error",),
    "a2a_connection_error": ("error",),
    "a2a_polling_started": ("polling_interval",),
    "a2a_push_notification_received": ("state",),
    "a2a_push_notification_registered": ("callback_url",),
    "a2a_push_notification_timeout": ("timeout_seconds",),
    "a2a_streaming_started": ("turn_number",),
    "context_window_summarization_started": (),
    "context_window_summarization_completed": (),
    "context_window_summarization_failed": ("error",),
    "conversation_message_added": ("role", "content"),
    "conversation_route_selected": ("route",),
    "conversation_turn_started": ("session_id",),
    "conversation_turn_completed": ("session_id",),
    "conversation_turn_failed": (),
    "crew_test_result": ("quality", "model"),
    "goal_achieved_early": ("steps_remaining", "steps_completed"),
    "mcp_config_fetch_failed": ("slug", "error"),
    "plan_refinement": ("refinements",),
    "plan_replan_triggered": ("replan_reason", "replan_count"),
    "plan_step_started": ("step_number", "step_description"),
    "plan_step_completed": ("step_number", "result", "error"),
    "skill_activated": ("skill_name",),
    "skill_load_failed": ("skill_name", "error"),
    "skill_used": ("skill_name",),
    "step_observation_completed": ("step_number", "key_information_learned"),
    "step_observation_failed": ("step_number", "error"),
    "task_evaluation": ("evaluation_type",),
}


def _point(event: Any, source: Any, freeze: Freeze) -> dict[str, Any]:
    told = {name: read(event, name) for name in _POINTS[event.type]}
    told = {name: value for name, value in told.items() if value is not None}
    fields: dict[str, Any] = {"kind": "event", "name": event.type, "outcome": "ok"}
    if told:
        fields["input"] = freeze(told)
    step = count(told.get("step_number"))
    if step is not None:
        fields["attributes"] = {"crewai.plan_step": str(step)}
    return fields


for _name in _POINTS:
    READERS[_name] = Reader(POINT, _point)
