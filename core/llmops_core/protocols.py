"""What a storage, an exporter and a collector are: small protocols of two to five methods.

Register an object that fits with the :func:`~llmops_core.hookspecs.llmops_register` hook, or pass
it to :class:`~llmops_core.Monitor` where a name is accepted. ``llmops_core.testing`` holds a
conformance suite for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from llmops_core.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch
    from llmops_core.query import SpanQuery

__all__ = [
    "Analyzer",
    "Check",
    "Collector",
    "Editable",
    "Exporter",
    "Finding",
    "Storage",
    "Tokenizer",
    "editable",
]


class Finding(msgspec.Struct, frozen=True):
    """One line of ``llmops doctor``: a text for people, and the facts behind it for programs.

    A ``problem`` makes the command exit with 1; a ``note`` is something to look at.
    """

    text: str
    level: Literal["ok", "note", "problem"] = "ok"
    facts: Mapping[str, Any] = {}


@runtime_checkable
class Check(Protocol):
    """Looks at one thing for ``llmops doctor``."""

    def check(self) -> Iterable[Finding]:
        """Return what was found. Must change nothing, and show no secret.

        Called once, on a thread of its own; may block for two minutes. If it raises, or takes longer,
        that is told as a problem, and the other checks go on.
        """


@runtime_checkable
class Storage(Protocol):
    """Keeps spans and answers queries. One object is used from one event loop.

    One that can also change what it keeps has the methods of :class:`Editable`.

    A storage may have these attributes; where they are missing the default is taken:

    - ``batch_spans`` (500) and ``batch_seconds`` (0.5): the size and the age at which the monitor
      seals a batch, unless the user's settings say otherwise.
    - ``journal_root`` (a :class:`~pathlib.Path`): where the journals of its writers lie. Without
      it they lie in the state folder.
    - ``volatile`` (a bool): true if it keeps nothing beyond the process; then nothing is journaled.
    - ``read_only`` (a bool): ``open_storage`` sets it to true before it calls ``open``, which then
      creates nothing and raises a ``StorageError`` where there is nothing to read; ``write`` is
      not called. Without it, ``open`` is called as it is.
    """

    async def open(self) -> None:
        """Make ready, creating what is missing. Called once, before anything else.

        Called by the monitor at set-up, or by ``open_storage``. Raise a
        :class:`~llmops_core.errors.LLMOpsError` if the storage cannot be used; that is an error of
        set-up. Raise ``RetryableError`` if it cannot be reached now: then the monitor starts, spans
        wait in the journal, and ``open`` is called again.
        """

    async def write(self, batch: SpanBatch) -> None:
        """Store every span of the batch, or raise.

        Called on this storage's own thread, one batch at a time; may await and may block. It must
        be idempotent: a span id that is already stored stays as it is. Raise if anything was not
        stored: the batch stays in the journal and is tried again. Raise ``PermanentError`` where a
        span of it will never be stored, and store nothing of the batch then: it is cut until that
        span is alone, and the span is put aside.
        """

    async def query(self, query: SpanQuery) -> pa.Table:
        """Answer a query with an Arrow table. Never changes anything; may run beside a write."""

    async def close(self) -> None:
        """Release what ``open`` took. Called once; nothing is called afterwards."""


@runtime_checkable
class Editable(Protocol):
    """What a storage has that can delete and rewrite spans. Both may run beside writes and queries."""

    async def delete(self, query: SpanQuery) -> int:
        """Delete the spans that *query* selects; return how many there were.

        The query has filters and a time range, and nothing else (``check_selection`` says so).
        Spans that wait in a journal of this storage and that queries see are deleted too.
        """

    async def replace(self, batch: SpanBatch) -> int:
        """Rewrite stored spans as they are in *batch*, by their span ids; return how many were.

        A span that is not stored, or is no longer, is left out: it must not come back. The caller
        changes neither ids nor times. Calling it again with the same batch changes nothing.
        """


@runtime_checkable
class Exporter(Protocol):
    """Sends spans onward; cannot be read back."""

    async def export(self, batch: SpanBatch) -> None:
        """Send one batch onward.

        Called on this exporter's own thread, one batch at a time; may await. If you raise, the
        batch is counted as failed for this exporter and the others still get it. If you take
        longer than the deadline of 10 seconds, the call is cancelled, and counts as one that raised;
        after five of either in a row you are cut off. So you are if it goes on all the same, as it
        blocks the thread.
        """

    async def close(self) -> None:
        """Flush and release. Called once; nothing is called afterwards."""


@runtime_checkable
class Collector(Protocol):
    """Measures spans: a pure function from a batch to columns."""

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[object]]:
        """Return new values by column, each as long as the batch; ``None`` keeps what is there.

        A key that is a column of the schema replaces that column's values; any other key becomes a
        measurement (numbers) or an attribute (text) of that name. Called on a helper thread, one
        batch at a time. Do not change the batch. If you raise, the batch goes on without your
        values and the failure is counted.
        """


@runtime_checkable
class Tokenizer(Protocol):
    """Counts the tokens of texts for models that it knows; it may ask a network."""

    def knows(self, model: str) -> bool:
        """Whether it counts for this model. Called for each model call; must not wait."""

    def count(self, text: str, model: str, seconds: float) -> int:
        """Return the tokens of a text.

        Called on a helper thread, one text at a time. Do not take longer than *seconds*. If you
        raise, the failure is counted, the span goes on without your count, and you are left in
        peace for a while.
        """


@runtime_checkable
class Analyzer(Protocol):
    """Turns stored spans into a table: a pure function."""

    def analyze(self, spans: pa.Table) -> pa.Table:
        """Return a table made of *spans*: of whole traces, or of what a query answered.

        Called on the thread of whoever analyses, by ``Monitor.analyze`` with the query's answer; it
        must not keep anything from one call to the next. What you raise reaches the caller.
        """


def editable(storage: Storage) -> Editable:
    """Return the storage as one that can delete and replace, or raise ``StorageError``."""
    if not isinstance(storage, Editable):
        raise StorageError(
            f"storage {type(storage).__name__} cannot change what it keeps",
            "expected one with delete and replace",
        )
    return storage
