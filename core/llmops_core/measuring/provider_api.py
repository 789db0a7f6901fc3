"""The token-counting endpoints of providers, called with the standard library. Off by default.

They count a text as one user message, so the few tokens around a message are counted too.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from llmops_core.errors import ConfigError
from llmops_core.measuring.encodings import family_of

__all__ = ["PROVIDERS", "Provider", "ProviderTokenizer", "make_tokenizer"]

#: An answer is a number and little else; whatever is longer is not one.
_MAX_ANSWER_BYTES: Final = 65_536


class Provider(msgspec.Struct, frozen=True):
    """How one provider is asked."""

    family: str
    url: str
    #: Variables that may hold the key, the first that is set.
    variables: tuple[str, ...]
    path: Callable[[str], str]
    headers: Callable[[str], Mapping[str, str]]
    body: Callable[[str, str], object]
    answer: str


PROVIDERS: Final[dict[str, Provider]] = {
    "anthropic": Provider(
        family="claude",
        url="https://api.anthropic.com",
        variables=("ANTHROPIC_API_KEY",),
        path=lambda model: "/v1/messages/count_tokens",
        headers=lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
        body=lambda text, model: {
            "model": model, "messages": [{"role": "user", "content": text}]
        },
        answer="input_tokens",
    ),
    "gemini": Provider(
        family="gemini",
        url="https://generativelanguage.googleapis.com",
        variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        path=lambda model: f"/v1beta/models/{quote(model, safe='')}:countTokens",
        headers=lambda key: {"x-goog-api-key": key},
        body=lambda text, model: {"contents": [{"parts": [{"text": text}]}]},
        answer="totalTokens",
    ),
}  # fmt: skip


class ProviderTokenizer:
    """Asks one provider. Follows no redirect, which could carry the key elsewhere, and no proxy."""

    def __init__(self, provider: Provider, key: str, url: str | None = None) -> None:
        parts = urlsplit(url or provider.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("the URL of a tokenizer", "expected http:// or https:// and a host")
        self._provider = provider
        self._key = key
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._connect = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )

    def knows(self, model: str) -> bool:
        """Whether this provider has the model."""
        return family_of(model) == self._provider.family

    def count(self, text: str, model: str, seconds: float) -> int:
        """Ask for the tokens of a text. Waits *seconds* at most for each step; raises ``OSError``."""
        name = model.rpartition("/")[2]
        clean = text.encode(errors="replace").decode()
        body = json.dumps(self._provider.body(clean, name)).encode()
        headers = {"content-type": "application/json", **self._provider.headers(self._key)}
        connection = self._connect(self._host, self._port, timeout=seconds)
        try:
            connection.request("POST", self._base + self._provider.path(name), body, headers)
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER_BYTES)
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(f"no answer: {type(error).__name__}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"the provider answered {response.status}")
        return self._read(answer)

    def _read(self, answer: bytes) -> int:
        try:
            told: Any = json.loads(answer)[self._provider.answer]
        except (ValueError, TypeError, KeyError):
            told = None
        if type(told) is not int or told < 0:
            raise OSError(f"the provider's answer has no {self._provider.answer}")
        return told


def make_tokenizer(name: str, argument: str) -> ProviderTokenizer:
    """Make the tokenizer of a provider; *argument* is another URL than its own, or nothing."""
    provider = PROVIDERS[name]
    key = next((k for v in provider.variables if (k := os.environ.get(v, "").strip())), "")
    if not key:
        raise ConfigError(
            f"tokenizer {name!r} without a key",
            "expected it in " + " or ".join(provider.variables),
        )
    return ProviderTokenizer(provider, key, argument or None)
