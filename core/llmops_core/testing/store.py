"""A storage under test, driven from plain test functions."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from llmops_core.batch import SpanBatch, spans_from_arrow
from llmops_core.protocols import Storage, editable
from llmops_core.query import SpanQuery
from llmops_core.span import Span
from llmops_core.testing.spans import make_batch

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Store"]


class Store:
    """Opens a storage on a loop of its own and calls it from there. Blocks; for tests only."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._runner = asyncio.Runner()
        self._next_seq = 1
        try:
            self.run(storage.open())
        except BaseException:
            self._runner.close()
            raise

    def write(self, *spans: Span) -> SpanBatch:
        """Write spans as the next sealed range of one writer; return the batch."""
        batch = make_batch(spans, first_seq=self._next_seq)
        self._next_seq += len(spans)
        self.run(self.storage.write(batch))
        return batch

    def query(self, query: SpanQuery | None = None, /, **arguments: Any) -> pa.Table:
        """Answer a query, or what ``SpanQuery.build`` takes."""
        built = SpanQuery.build(**arguments) if query is None else query
        return self.run(self.storage.query(built))

    def rows(self, **arguments: Any) -> list[dict[str, Any]]:
        """Answer a query with plain rows."""
        found: list[dict[str, Any]] = self.query(**arguments).to_pylist()
        return found

    def names(self, **arguments: Any) -> list[str]:
        """Answer a query with the names of the spans, in order."""
        found: list[str] = self.query(columns=["name"], **arguments)["name"].to_pylist()
        return found

    def spans(self) -> list[Span]:
        """Return every span, oldest first."""
        return spans_from_arrow(self.query(order=["start_time"]))

    def delete(self, **arguments: Any) -> int:
        """Delete what ``SpanQuery.build`` selects."""
        deleted: int = self.run(editable(self.storage).delete(SpanQuery.build(**arguments)))
        return deleted

    def replace(self, *spans: Span) -> int:
        """Replace spans; they keep their places in the journal."""
        replaced: int = self.run(editable(self.storage).replace(SpanBatch(spans)))
        return replaced

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end."""
        return self._runner.run(work)

    def together(self, *work: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run coroutines at the same time; return their results in order."""
        return list(self.run(_gathered(work)))

    def close(self) -> None:
        """Close the storage and the loop."""
        try:
            self.run(self.storage.close())
        finally:
            self._runner.close()


async def _gathered(work: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*work)
