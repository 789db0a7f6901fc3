"""A storage that is opened by its first use instead of by whoever makes the monitor.

For a forked child: its journal must not wait for a database that is down. Set-up has happened in
its parent, so an opening that fails here is a failure at run time: counted, and tried again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmops_core.batch import SpanBatch
from llmops_core.protocols import Storage, editable
from llmops_core.query import SpanQuery

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["OpenedLater"]


class OpenedLater:
    """Passes everything on to a storage, which it opens before the first use. On one lane only."""

    def __init__(self, storage: Storage) -> None:
        self.opened_later = storage
        self._opening = asyncio.Lock()
        self._is_open = False

    async def open(self) -> None:
        """Open the storage, unless it is open. Raises what its ``open`` raises."""
        async with self._opening:
            if not self._is_open:
                await self.opened_later.open()
                self._is_open = True

    async def write(self, batch: SpanBatch) -> None:
        """Open, and write."""
        await self.open()
        await self.opened_later.write(batch)

    async def query(self, query: SpanQuery) -> pa.Table:
        """Open, and answer a query."""
        await self.open()
        return await self.opened_later.query(query)

    async def delete(self, query: SpanQuery) -> int:
        """Open, and delete."""
        await self.open()
        return await editable(self.opened_later).delete(query)

    async def replace(self, batch: SpanBatch) -> int:
        """Open, and replace."""
        await self.open()
        return await editable(self.opened_later).replace(batch)

    async def close(self) -> None:
        """Close what was opened."""
        if self._is_open:
            await self.opened_later.close()
