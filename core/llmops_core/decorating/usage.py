"""The tokens that a model's answer tells, in the forms that the providers' own clients return.

Read on the caller's thread from dicts and from the fields of objects, through C descriptors alone:
no property and no method of an unknown class is called. What is told elsewhere, or not as whole
numbers, is not usage.
"""

from __future__ import annotations

from typing import Any, Final

from llmops_core.freeze.type_names import Fields, layout_of

__all__ = ["usage_fields"]

#: Classes whose fields are looked for; a program answers with few.
_MAX_LAYOUTS: Final = 256
#: By id: a hostile metaclass may define ``__eq__``, which a look-up of the class would call.
_PLAIN: Final = frozenset(map(id, (str, bytes, int, float, bool, list, tuple, type(None))))
_layouts: Final[dict[int, tuple[type, Any]]] = {}


def usage_fields(result: object) -> dict[str, Any]:
    """Return the token columns of a result; empty where it tells no usage.

    ``input_tokens`` and ``output_tokens`` include their parts, as everywhere: Anthropic's client
    tells what a cache read and wrote apart, so these are added.
    """
    if _is_plain(result):
        return {}
    for holder in (result, _get(result, "message"), _get(result, "response")):
        usage = _get(holder, "usage")  # the two others: in the streams of Anthropic and OpenAI
        if not _is_plain(usage):
            return _told(_of_usage(usage))
    usage = _get(result, "usage_metadata")
    return {} if _is_plain(usage) else _told(_of_google(usage))


def _of_usage(usage: object) -> dict[str, int | None]:
    """Of OpenAI's two interfaces, of those that follow them, and of Anthropic's."""
    prompt = _count(usage, "prompt_tokens")
    given = _count(usage, "input_tokens") if prompt is None else prompt
    said = _count(usage, "completion_tokens")
    said = _count(usage, "output_tokens") if said is None else said
    into = _either(usage, "prompt_tokens_details", "input_tokens_details")
    out = _either(usage, "completion_tokens_details", "output_tokens_details")
    read, wrote = _count(into, "cached_tokens"), None
    if prompt is None and read is None:
        read = _count(usage, "cache_read_input_tokens")
        wrote = _count(usage, "cache_creation_input_tokens")
        if given is not None:
            given += (read or 0) + (wrote or 0)
    return {
        "input_tokens": given,
        "output_tokens": said,
        "cache_read_tokens": read,
        "cache_write_tokens": wrote,
        "reasoning_tokens": _count(out, "reasoning_tokens"),
        "audio_input_tokens": _count(into, "audio_tokens"),
        "audio_output_tokens": _count(out, "audio_tokens"),
    }


def _of_google(usage: object) -> dict[str, int | None]:
    said = _count(usage, "candidates_token_count")
    thought = _count(usage, "thoughts_token_count")
    if said is not None or thought is not None:
        said = (said or 0) + (thought or 0)
    return {
        "input_tokens": _count(usage, "prompt_token_count"),
        "output_tokens": said,
        "cache_read_tokens": _count(usage, "cached_content_token_count"),
        "reasoning_tokens": thought,
    }


def _told(counts: dict[str, int | None]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: n for name, n in counts.items() if n is not None}
    if fields:
        fields["usage_source"] = "provider"
    return fields


def _is_plain(value: object) -> bool:
    return id(type(value)) in _PLAIN


def _either(value: object, one: str, other: str) -> object:
    found = _get(value, one)
    return _get(value, other) if found is None else found


def _count(value: object, name: str) -> int | None:
    found = _get(value, name)
    return found if type(found) is int and found >= 0 else None


def _get(value: object, name: str) -> Any:
    """Return an entry of a dict, or a field of an object; None where there is none."""
    kind = type(value)
    if kind is dict:
        return value.get(name)  # type: ignore[attr-defined]
    if id(kind) in _PLAIN:
        return None
    known = _layouts.get(id(kind))
    if known is None or known[0] is not kind:
        if len(_layouts) >= _MAX_LAYOUTS:
            _layouts.clear()
        known = _layouts[id(kind)] = (kind, layout_of(kind))
    return Fields(value, known[1]).get(name)
