"""The collector ``tokenizer:NAME``: exact tokens from a registered tokenizer, such as a provider's API.

It is off unless it is named. It runs on the collectors' helper thread, since a tokenizer may wait
for a network, and keeps to a budget: what it does not get counted stays as it was.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from llmops_core.errors import ConfigError
from llmops_core.hookspecs import hookimpl
from llmops_core.measuring.provider_api import PROVIDERS, make_tokenizer
from llmops_core.measuring.spans import columns_of, part_cut
from llmops_core.measuring.texts import text_of
from llmops_core.protocols import Tokenizer

if TYPE_CHECKING:
    from llmops_core.batch import SpanBatch
    from llmops_core.plugins import Registry
    from llmops_core.span import Span

__all__ = ["TokenizerCollector"]

#: For one batch: the delivery goes on without a collector that takes half a second.
BATCH_SECONDS: Final = 0.4
CALLS_A_MINUTE: Final = 300
#: How long nobody is asked after a failure.
PAUSE_SECONDS: Final = 30.0
MAX_KEPT: Final = 10_000


class TokenizerCollector:
    """Counts model calls whose provider told no usage, with a tokenizer, within a budget.

    A batch may take :data:`BATCH_SECONDS` and a minute :data:`CALLS_A_MINUTE` calls. After a
    failure, which is counted as any collector's, nobody is asked for :data:`PAUSE_SECONDS`.
    """

    name = "tokenizer"
    #: Tells the delivery that what runs in it may wait, so that it belongs on a helper thread.
    opened_later: Final = object()

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        batch_seconds: float = BATCH_SECONDS,
        calls_a_minute: int = CALLS_A_MINUTE,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._tokenizer = tokenizer
        self._batch_seconds = batch_seconds
        self._calls_a_minute = calls_a_minute
        self._pause_seconds = pause_seconds
        self._paused_until = 0.0
        self._failed: BaseException | None = None
        self._minute, self._calls = 0.0, 0
        # A batch is measured for the exporters and once more for the storage.
        self._kept: OrderedDict[bytes, int] = OrderedDict()
        self._known: set[str] = set()

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[Any]]:
        """Return the counts that could be had. Called on a helper thread; waits for the tokenizer."""
        failed, self._failed = self._failed, None
        if failed is not None:  # told late, while it is paused: there is little to lose now
            raise failed
        deadline = time.monotonic() + self._batch_seconds
        values: list[dict[str, Any]] = [{} for _ in batch.rows]
        for at, row in enumerate(batch.rows):
            try:
                if self._wanted(row):
                    values[at] = self._counted(row, deadline)
            except BaseException as error:  # its sys.exit is a failure as any other
                self._paused_until = time.monotonic() + self._pause_seconds
                if any(values):
                    self._failed = error  # what is counted stays; the next batch tells of it
                    break
                raise
        return columns_of(values) if any(values) else {}

    def _wanted(self, row: Span) -> bool:
        told = row.usage_source in ("provider", "counted")
        return row.kind == "llm" and not told and bool(row.model) and self._knows(row.model or "")

    def _knows(self, model: str) -> bool:
        if time.monotonic() < self._paused_until:
            return model in self._known  # what was counted before is still told
        knows = self._tokenizer.knows(model)
        if knows and len(self._known) < MAX_KEPT:
            self._known.add(model)
        return knows

    def _counted(self, row: Span, deadline: float) -> dict[str, Any]:
        """Return both sides of a call, or nothing: half of a call's tokens would be a wrong sum."""
        counts: dict[str, Any] = {}
        exact = True
        for side in ("input", "output"):
            text = text_of(getattr(row, side))
            if text is None:
                continue
            tokens = self._tokens(text, row.model or "", deadline) if text else 0
            if tokens is None:
                return {}
            cut = part_cut(row, side)
            exact = exact and cut is None
            counts[f"{side}_tokens"] = tokens if cut is None else round(tokens * cut)
        return {**counts, "usage_source": "counted" if exact else "estimated"} if counts else {}

    def _tokens(self, text: str, model: str, deadline: float) -> int | None:
        key = blake2b(f"{model}\0{text}".encode(errors="replace"), digest_size=16).digest()
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        left = deadline - time.monotonic()
        if left <= 0 or not self._may_ask():
            return None
        tokens = self._tokenizer.count(text, model, left)
        if type(tokens) is not int or tokens < 0:
            raise TypeError(f"the tokenizer returned {type(tokens).__name__}, expected a count")
        self._kept[key] = tokens
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return tokens

    def _may_ask(self) -> bool:
        now = time.monotonic()
        if now < self._paused_until:
            return False
        if now - self._minute >= 60:
            self._minute, self._calls = now, 0
        self._calls += 1
        return self._calls <= self._calls_a_minute


def _make(registry: Registry, argument: str) -> TokenizerCollector:
    name, _, rest = argument.partition(":")
    factory = registry.find("tokenizer", name)
    if factory is None:
        raise ConfigError(
            f"collector 'tokenizer:{argument}'",
            "expected the name of a tokenizer: " + ", ".join(registry.names("tokenizer")),
        )
    made = factory(rest)
    if not isinstance(made, Tokenizer):
        raise ConfigError(
            f"tokenizer {name!r} is a {type(made).__name__}", "expected one with knows and count"
        )
    return TokenizerCollector(made, batch_seconds=BATCH_SECONDS)


@hookimpl
def llmops_register(registry: Registry) -> None:
    """Register the collector, and the tokenizers of the providers."""
    registry.collector("tokenizer", partial(_make, registry))
    for name in PROVIDERS:
        registry.tokenizer(name, partial(make_tokenizer, name))
