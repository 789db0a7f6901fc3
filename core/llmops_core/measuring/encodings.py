"""Which encoding a model counts in, and which family it is of. Names only; nothing is imported.

Held against tiktoken's own tables by a test. Unlike them it knows names with a provider in front
(``openai/gpt-4o``) and takes every later OpenAI model for ``o200k_base``.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ENCODINGS", "MERGED_AS", "encoding_of", "family_of"]

ENCODINGS: Final = (
    "o200k_base", "o200k_harmony", "cl100k_base", "p50k_base", "p50k_edit", "r50k_base", "gpt2"
)  # fmt: skip
#: Encodings that merge alike: they differ in special tokens, which plain text has none of.
MERGED_AS: Final = {"o200k_harmony": "o200k_base", "p50k_edit": "p50k_base", "gpt2": "r50k_base"}

#: The first that matches the start of a model's name.
_PREFIXES: Final = (
    ("gpt-oss", "o200k_harmony"),
    ("gpt-4o", "o200k_base"),
    ("gpt-4.", "o200k_base"),
    ("gpt-4", "cl100k_base"),
    ("gpt-3.5", "cl100k_base"),
    ("gpt-35", "cl100k_base"),
    ("gpt-2", "gpt2"),
    ("gpt2", "gpt2"),
    ("chatgpt-", "o200k_base"),
    ("text-embedding-", "cl100k_base"),
    ("davinci-002", "cl100k_base"),
    ("babbage-002", "cl100k_base"),
    ("text-davinci-edit", "p50k_edit"),
    ("code-davinci-edit", "p50k_edit"),
    ("text-davinci-003", "p50k_base"),
    ("text-davinci-002", "p50k_base"),
    ("code-search-", "r50k_base"),
    ("code-", "p50k_base"),
    ("davinci-codex", "p50k_base"),
    ("cushman-codex", "p50k_base"),
    ("text-", "r50k_base"),
)
_BASE_MODELS: Final = ("davinci", "curie", "babbage", "ada")
#: Reasoning models (o1, o3-mini, o4 …) and every gpt from the fifth on.
_LATER: Final = re.compile(r"(?:o[1-9]\d*|gpt-(?:[5-9]|[1-9]\d+))(?![a-z0-9])")
_FAMILIES: Final = (
    ("claude", "claude"), ("gemini", "gemini"), ("gemma", "gemini"), ("llama", "llama"),
    ("mistral", "mistral"), ("mixtral", "mistral"), ("codestral", "mistral"), ("qwen", "qwen"),
    ("deepseek", "deepseek"), ("command", "cohere"), ("grok", "grok"), ("nova", "nova"),
)  # fmt: skip


def encoding_of(model: str | None) -> str | None:
    """Return the encoding of an OpenAI model; None for a model of anybody else, or unknown."""
    name = _bare(model)
    for start, encoding in _PREFIXES:
        if name.startswith(start):
            return encoding
    if _LATER.match(name):
        return "o200k_base"
    return "r50k_base" if name in _BASE_MODELS else None


def family_of(model: str | None) -> str | None:
    """Return the family of a model, such as ``openai`` or ``claude``; None if it is unknown."""
    if encoding_of(model) is not None:
        return "openai"
    name = _bare(model)
    return next((family for word, family in _FAMILIES if word in name), None)


def _bare(model: str | None) -> str:
    """Return a model's name without its provider, and without what a fine-tuning adds."""
    name = (model or "").lower().rpartition("/")[2]
    return name.split(":")[1] if name.startswith("ft:") else name
