"""The span: the only record that is stored, and the one source of every schema.

The Arrow schema, SQL tables, API types and ``docs/schema.md`` derive from :class:`Span`.
Fields are only ever appended, and a new field is nullable: the journal encodes spans as
arrays, so the order of the fields is part of the format.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

import msgspec

__all__ = [
    "KINDS",
    "OUTCOMES",
    "SCHEMA_VERSION",
    "USAGE_SOURCES",
    "Kind",
    "Outcome",
    "Span",
    "UsageSource",
]

SCHEMA_VERSION: Final = 1

Kind = Literal[
    "workflow",
    "agent",
    "task",
    "chain",
    "llm",
    "tool",
    "retriever",
    "embedding",
    "guardrail",
    "handoff",
    "event",
]
Outcome = Literal[
    "ok", "error", "interrupted", "handed_off", "cancelled", "abandoned", "incomplete"
]
UsageSource = Literal["provider", "counted", "estimated", "missing"]

KINDS: Final[tuple[str, ...]] = get_args(Kind)
OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)
USAGE_SOURCES: Final[tuple[str, ...]] = get_args(UsageSource)


def _column(group: str, description: str, *, unit: str = "", enum: bool = False) -> msgspec.Meta:
    """Describe a column: its group in the schema, what it means, and its unit."""
    return msgspec.Meta(description=description, extra={"group": group, "unit": unit, "enum": enum})


_Text = str | None
_Count = int | None
_Number = float | None


class Span(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False, dict=False, weakref=False
):
    """One timed operation, finished and frozen.

    An *event* is a span of zero duration. All times are UTC microseconds since the epoch; ids are
    lowercase hexadecimal text of OpenTelemetry's shape.
    """

    # identity
    span_id: Annotated[
        str, _column("identity", "16 hex digits; a hash of the run id and its count of starts")
    ]
    trace_id: Annotated[
        str, _column("identity", "32 hex digits; the root run's id, time-ordered where it is ours")
    ]
    parent_id: Annotated[_Text, _column("identity", "span id of the parent; null for a root")] = (
        None
    )
    agent_span_id: Annotated[
        _Text, _column("identity", "span id of the nearest enclosing agent span")
    ] = None
    session_id: Annotated[_Text, _column("identity", "one conversation")] = None
    thread_id: Annotated[
        _Text, _column("identity", "the framework's own thread (LangGraph checkpointer)")
    ] = None
    user_id: Annotated[
        _Text, _column("identity", "the end user, as the application names them")
    ] = None
    project: Annotated[_Text, _column("identity", "the project that the monitor was made for")] = (
        None
    )
    service: Annotated[_Text, _column("identity", "the running service", enum=True)] = None
    environment: Annotated[
        _Text, _column("identity", "deployment environment, such as production", enum=True)
    ] = None
    app_version: Annotated[_Text, _column("identity", "version of the application", enum=True)] = (
        None
    )
    tags: Annotated[
        tuple[str, ...] | None, _column("identity", "labels given by the application")
    ] = None
    writer_id: Annotated[
        _Text, _column("identity", "the journal that this span was first written to", enum=True)
    ] = None
    seq: Annotated[
        _Count, _column("identity", "position in that journal, counted from 1, without gaps")
    ] = None

    # what
    kind: Annotated[str, _column("what", "what sort of operation: " + ", ".join(KINDS), enum=True)]
    name: Annotated[str, _column("what", "name of the operation, model, tool, agent or node")]
    framework: Annotated[
        _Text, _column("what", "langchain, langgraph, crewai or python", enum=True)
    ] = None
    agent: Annotated[_Text, _column("what", "the agent at work: itself, or the nearest one")] = None
    target_agent: Annotated[_Text, _column("what", "handoffs: the agent that is to take over")] = (
        None
    )
    handoff_mechanism: Annotated[
        _Text, _column("what", "handoffs: how it was asked for", enum=True)
    ] = None
    handoff_confirmed: Annotated[
        bool | None, _column("what", "handoffs: whether the target really started")
    ] = None
    outcome: Annotated[str, _column("what", "how it ended: " + ", ".join(OUTCOMES), enum=True)]
    error_type: Annotated[
        _Text, _column("what", "class of the exception; null unless the outcome is error")
    ] = None
    error_message: Annotated[_Text, _column("what", "text of the exception, bounded")] = None
    attempt: Annotated[
        _Count, _column("what", "number of the attempt, from 1; null where nothing was retried")
    ] = None
    step: Annotated[_Count, _column("what", "the framework's own step number")] = None
    tool_call_id: Annotated[_Text, _column("what", "the model's id of the tool call")] = None
    wait_key: Annotated[_Text, _column("what", "interrupted spans: what a resume will carry")] = (
        None
    )
    resume_key: Annotated[_Text, _column("what", "resumed roots: equals a wait_key")] = None

    # when
    start_time: Annotated[int, _column("when", "start", unit="µs since 1970, UTC")]
    end_time: Annotated[
        int, _column("when", "end; never before the start", unit="µs since 1970, UTC")
    ]
    duration_ms: Annotated[
        _Number,
        _column("when", "from a monotonic clock; null where the start is unknown", unit="ms"),
    ] = None
    ttft_ms: Annotated[_Number, _column("when", "time to the first streamed token", unit="ms")] = (
        None
    )
    queued_ms: Annotated[
        _Number, _column("when", "waiting for a worker before it ran", unit="ms")
    ] = None
    waited_ms: Annotated[_Number, _column("when", "waiting for a human", unit="ms")] = None

    # model
    provider: Annotated[_Text, _column("model", "who serves the model", enum=True)] = None
    model: Annotated[_Text, _column("model", "the model, as the provider names it", enum=True)] = (
        None
    )
    finish_reason: Annotated[_Text, _column("model", "why generation stopped", enum=True)] = None
    response_id: Annotated[_Text, _column("model", "the provider's id of the response")] = None
    input_tokens: Annotated[
        _Count, _column("model", "all input tokens, cached and audio included", unit="tokens")
    ] = None
    output_tokens: Annotated[
        _Count, _column("model", "all output tokens, reasoning and audio included", unit="tokens")
    ] = None
    cache_read_tokens: Annotated[
        _Count, _column("model", "part of input_tokens read from a cache", unit="tokens")
    ] = None
    cache_write_tokens: Annotated[
        _Count, _column("model", "part of input_tokens written to a cache", unit="tokens")
    ] = None
    reasoning_tokens: Annotated[
        _Count, _column("model", "part of output_tokens spent on reasoning", unit="tokens")
    ] = None
    audio_input_tokens: Annotated[
        _Count, _column("model", "part of input_tokens that is audio", unit="tokens")
    ] = None
    audio_output_tokens: Annotated[
        _Count, _column("model", "part of output_tokens that is audio", unit="tokens")
    ] = None
    usage_source: Annotated[
        _Text,
        _column(
            "model", "where the token counts come from: " + ", ".join(USAGE_SOURCES), enum=True
        ),
    ] = None
    cost_usd: Annotated[_Number, _column("model", "price of the call", unit="US dollars")] = None
    price_source: Annotated[
        _Text, _column("model", "price list that cost_usd was computed with, name@date", enum=True)
    ] = None

    # content
    input: Annotated[_Text, _column("content", "a lone string as it is, else canonical JSON")] = (
        None
    )
    output: Annotated[_Text, _column("content", "a lone string as it is, else canonical JSON")] = (
        None
    )
    input_truncated: Annotated[
        bool | None, _column("content", "whether input was cut by a capture limit")
    ] = None
    output_truncated: Annotated[
        bool | None, _column("content", "whether output was cut by a capture limit")
    ] = None
    input_size: Annotated[
        _Count, _column("content", "size before the cut; a lower bound if truncated", unit="bytes")
    ] = None
    output_size: Annotated[
        _Count, _column("content", "size before the cut; a lower bound if truncated", unit="bytes")
    ] = None
    input_hash: Annotated[
        _Text,
        _column(
            "content",
            "HMAC-SHA256 of the stored input with the installation's key, cut to 32 digits",
        ),
    ] = None
    output_hash: Annotated[
        _Text,
        _column(
            "content",
            "HMAC-SHA256 of the stored output with the installation's key, cut to 32 digits",
        ),
    ] = None
    content_mode: Annotated[
        _Text, _column("content", "how content was kept: full, or off", enum=True)
    ] = None

    # capacity
    input_chars: Annotated[_Count, _column("capacity", "characters of the stored input")] = None
    input_words: Annotated[_Count, _column("capacity", "words of the stored input")] = None
    input_bytes: Annotated[
        _Count, _column("capacity", "UTF-8 size of the stored input", unit="bytes")
    ] = None
    input_lines: Annotated[_Count, _column("capacity", "lines of the stored input")] = None
    output_chars: Annotated[_Count, _column("capacity", "characters of the stored output")] = None
    output_words: Annotated[_Count, _column("capacity", "words of the stored output")] = None
    output_bytes: Annotated[
        _Count, _column("capacity", "UTF-8 size of the stored output", unit="bytes")
    ] = None
    output_lines: Annotated[_Count, _column("capacity", "lines of the stored output")] = None
    image_count: Annotated[_Count, _column("capacity", "images in the input and output")] = None
    image_pixels: Annotated[
        _Count, _column("capacity", "width times height, summed", unit="pixels")
    ] = None
    image_bytes: Annotated[
        _Count, _column("capacity", "encoded size of the images, summed", unit="bytes")
    ] = None

    # overflow
    attributes: Annotated[
        dict[str, str] | None,
        _column("overflow", "facts of one framework or application; text, JSON where not scalar"),
    ] = None
    measurements: Annotated[
        dict[str, float] | None, _column("overflow", "numbers from collectors, by name")
    ] = None
    sample_weight: Annotated[
        _Number,
        _column("overflow", "how many spans this one stands for; 1 where nothing is sampled"),
    ] = None

    def replace(self, **changes: Any) -> Span:
        """Return a copy with *changes* applied; the original stays as it was."""
        return msgspec.structs.replace(self, **changes)
