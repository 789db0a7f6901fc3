"""From LangChain's model calls to plain span fields: names, usage, finish reasons. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmops_integrations.langchain.reading import bases, count, first_text, name_of, text

__all__ = [
    "has_text",
    "model_end_fields",
    "model_output",
    "model_start_fields",
    "response_model",
    "usage_fields",
]


def model_start_fields(
    serialized: Mapping[str, Any] | None, metadata: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return kind, name, provider and model of a model call, and the names of the bound tools."""
    params = extra.get("invocation_params")
    params = params if type(params) is dict else {}
    model = (
        text(metadata.get("ls_model_name"))
        or text(params.get("model"))
        or text(params.get("model_name"))
    )
    fields: dict[str, Any] = {"kind": "llm", "name": model or name_of(extra, serialized, "llm")}
    if model:
        fields["model"] = model
    provider = text(metadata.get("ls_provider"))
    if provider:
        fields["provider"] = provider
    tools = _tool_names(params.get("tools"))
    if tools:
        fields["attributes"] = {"langchain.tools": tools}
    return fields


def _tool_names(tools: object) -> str | None:
    """Return the names of the tools bound to a model as JSON: their schemas are not stored."""
    if type(tools) is not list:
        return None
    names = []
    for tool in tools[:100]:
        if type(tool) is not dict:
            continue
        function = tool.get("function")
        name = function.get("name") if type(function) is dict else tool.get("name")
        if type(name) is str:
            names.append(name[:100])
    return json.dumps(names, ensure_ascii=False) if names else None


def model_end_fields(response: object) -> dict[str, Any]:
    """Return usage, finish reason and response id of an ``LLMResult``; of a partial one as well."""
    generation = next(_generations(response), None)
    message = getattr(generation, "message", None)
    fields = usage_fields(message, getattr(response, "llm_output", None))
    about = getattr(message, "response_metadata", None)
    about = about if type(about) is dict else {}
    info = getattr(generation, "generation_info", None)
    info = info if type(info) is dict else {}
    reason = first_text(about, "finish_reason", "stop_reason", "done_reason") or first_text(
        info, "finish_reason", "stop_reason", "done_reason"
    )
    if reason:
        fields["finish_reason"] = reason
    own_id = text(about.get("id")) or text(getattr(message, "id", None))
    if own_id and not own_id.startswith(("lc_run-", "run-")):  # LangChain's own, from the run id
        fields["response_id"] = own_id
    return fields


def model_output(response: object) -> object:
    """Return what the model said: a message or a text, a list of them where there are several."""
    said = []
    for generation in _generations(response):
        message = getattr(generation, "message", None)
        said.append(getattr(generation, "text", None) if message is None else message)
    return said[0] if len(said) == 1 else said or None


def response_model(response: object) -> str | None:
    """Return the model that a response names."""
    message = getattr(next(_generations(response), None), "message", None)
    for about in (
        getattr(message, "response_metadata", None),
        getattr(response, "llm_output", None),
    ):
        named = first_text(about, "model_name", "model") if type(about) is dict else None
        if named:
            return named
    return None


def _generations(response: object) -> Iterator[object]:
    """The candidates of an ``LLMResult``: attributes, as ``model_dump`` loses usage and tools."""
    outer = getattr(response, "generations", None)
    if type(outer) is not list:
        return
    for inner in outer:
        yield from inner if type(inner) is list else ()


def usage_fields(message: object, llm_output: object = None) -> dict[str, Any]:
    """Return token counts, split as LangChain splits them: parts are included in the totals."""
    usage = getattr(message, "usage_metadata", None)
    if type(usage) is dict and usage:
        into = usage.get("input_token_details")
        out = usage.get("output_token_details")
        into = into if type(into) is dict else {}
        out = out if type(out) is dict else {}
        counts = {
            "input_tokens": count(usage.get("input_tokens")),
            "output_tokens": count(usage.get("output_tokens")),
            "cache_read_tokens": count(into.get("cache_read")),
            "cache_write_tokens": _cache_write(into),
            "reasoning_tokens": count(out.get("reasoning")),
            "audio_input_tokens": count(into.get("audio")),
            "audio_output_tokens": count(out.get("audio")),
        }
    else:
        total = llm_output.get("token_usage") if type(llm_output) is dict else None
        total = total if type(total) is dict else {}
        counts = {
            "input_tokens": count(total.get("prompt_tokens", total.get("input_tokens"))),
            "output_tokens": count(total.get("completion_tokens", total.get("output_tokens"))),
            "cache_read_tokens": _detail(total, "prompt_tokens_details", "cached_tokens"),
            "audio_input_tokens": _detail(total, "prompt_tokens_details", "audio_tokens"),
            "reasoning_tokens": _detail(total, "completion_tokens_details", "reasoning_tokens"),
            "audio_output_tokens": _detail(total, "completion_tokens_details", "audio_tokens"),
        }
    fields: dict[str, Any] = {name: n for name, n in counts.items() if n is not None}
    fields["usage_source"] = "provider" if fields else "missing"
    return fields


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return count(details.get(name)) if type(details) is dict else None


def _cache_write(details: Mapping[str, Any]) -> int | None:
    """Tokens written to a cache. Anthropic's are split by lifetime, the plain key is then 0."""
    plain = count(details.get("cache_creation"))
    split = [
        n
        for key, value in details.items()
        if type(key) is str and key.startswith("ephemeral_") and (n := count(value)) is not None
    ]
    return sum(split) if split and not plain else plain


def has_text(token: object, chunk: object) -> bool:
    """Whether a streamed chunk brings something: the last, or a chunk of usage, is empty."""
    if type(token) is str:
        if token:
            return True
    elif any(base is str for base in bases(token)):  # never its own __bool__ or __len__
        if str.__str__(token):
            return True
    elif type(token) is list and token:  # content blocks
        return True
    return bool(getattr(getattr(chunk, "message", None), "tool_call_chunks", None))
