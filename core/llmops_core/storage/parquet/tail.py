"""The tails of the journals: spans that were journaled and are in no Parquet file yet.

A long-lived reader decodes each record once. It holds only spans that were not stored when it last
looked, so its memory is that of the tail and not of the journal.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmops_core.batch import spans_to_arrow
from llmops_core.capacity import with_capacity
from llmops_core.journal.format import Damage, Range, read_records, segments
from llmops_core.schema import arrow_schema
from llmops_core.span import Span
from llmops_core.storage.parquet.files import day_of
from llmops_core.storage.parquet.sources import StoredRanges

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JournalTails"]

_MOST_CHUNKS: Final = 16


class JournalTails:
    """The spans of every journal below a root, of living and of dead writers.

    Not thread-safe: the storage calls it with a lock held. Call :meth:`refresh`, then list the
    files, then call :meth:`table`. In this order a span that moves from the journal to a file
    meanwhile is seen in the journal, or in the file, or in both and then taken once.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._writers: dict[str, _Writer] = {}
        self.damage = Damage()

    def refresh(self) -> None:
        """Decode what the journals have gained, and forget those that are gone."""
        names = _folders(self._root)
        for name in [known for known in self._writers if known not in names]:
            del self._writers[name]  # removed: all that it had is stored
        for name in names:
            writer = self._writers.setdefault(name, _Writer(self._root / name))
            writer.refresh(self.damage)

    def table(self, stored: StoredRanges) -> pa.Table:
        """Return the spans that are not *stored*, measured as delivery measures them."""
        import pyarrow as pa

        tables = [table for writer in self._writers.values() for table in writer.tables(stored)]
        return pa.concat_tables([arrow_schema().empty_table(), *tables])


class _Writer:
    """The journal of one writer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segments: dict[str, _Segment] = {}
        self._stored: list[Range] = []

    def refresh(self, damage: Damage) -> None:
        seen = {}
        for path in segments(self._folder):
            segment = self._segments.get(path.name) or _Segment()
            if segment.refresh(path, self._stored, damage):
                seen[path.name] = segment
        self._segments = seen  # a segment that is gone was stored throughout

    def tables(self, stored: StoredRanges) -> list[pa.Table]:
        # The journal's own notes count too: a file may have been deleted for good since.
        for segment in self._segments.values():
            segment.forget(self._folder.name, stored, self._stored)
        return [s.table() for s in self._segments.values() if s.spans]


class _Segment:
    """One segment: how far it is read, and its spans that are not stored."""

    def __init__(self) -> None:
        self._begin(inode=0)

    def _begin(self, inode: int) -> None:
        self._inode = inode
        self._offset = 0
        self._table: pa.Table | None = None
        self._measured = 0  # so many of the spans are in the table
        self.spans: list[Span] = []

    def refresh(self, path: Path, stored: list[Range], damage: Damage) -> bool:
        """Decode what is new; return False if the file is gone."""
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._begin(status.st_ino)  # another file under the same name
                if status.st_size == self._offset:
                    return True
                file.seek(self._offset)
                data = file.read(status.st_size - self._offset)
        except FileNotFoundError:
            return False
        end = 0
        for record in read_records(data, 0, damage):
            end = record.end
            if record.type == "s":
                self.spans += record.spans
            elif record.type == "c":
                _add(stored, record.range)
        self._offset += end
        return True

    def forget(self, writer: str, stored: StoredRanges, noted: list[Range]) -> None:
        """Drop the spans that are stored; for good, as nothing that is stored returns."""
        if not self.spans:
            return
        keep = []
        for at, span in enumerate(self.spans):
            seq, day = span.seq or 0, day_of(span.end_time)
            if any(a <= seq <= b for a, b in noted):
                continue
            if not stored.has(day, span.writer_id or writer, seq):
                keep.append(at)
        if len(keep) == len(self.spans):
            return
        if self._table is not None:
            inside = [at for at in keep if at < self._measured]
            self._table = self._table.take(inside) if inside else None
            self._measured = len(inside)
        self.spans = [self.spans[at] for at in keep]

    def table(self) -> pa.Table:
        """Return the spans as a table; what was converted before is not converted again."""
        import pyarrow as pa

        if self._measured < len(self.spans):
            new = with_capacity(spans_to_arrow(self.spans[self._measured :]))
            table = new if self._table is None else pa.concat_tables([self._table, new])
            if table["span_id"].num_chunks > _MOST_CHUNKS:
                table = table.combine_chunks()
            self._table, self._measured = table, len(self.spans)
        assert self._table is not None  # noqa: S101 - for the type checker: there are spans
        return self._table


def _add(ranges: list[Range], new: Range) -> None:
    """Append a range, merged with those before it that it touches: notes come nearly in order."""
    first, last = new
    while ranges and first <= ranges[-1][1] + 1 and ranges[-1][0] <= last + 1:
        before = ranges.pop()
        first, last = min(first, before[0]), max(last, before[1])
    ranges.append((first, last))


def _folders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return sorted(
                e.name
                for e in entries
                if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
