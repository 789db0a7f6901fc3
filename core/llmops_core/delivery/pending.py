"""A range of spans on its way to the storage."""

from __future__ import annotations

import msgspec

from llmops_core.batch import SpanBatch

__all__ = ["PendingRange"]


class PendingRange(msgspec.Struct):
    """Spans from *first* to *last*; ``batch`` is None where only the journal holds them."""

    first: int
    last: int
    batch: SpanBatch | None
    size: int
    journaled: int
    unjournaled: set[int]
    dropped: set[int] = msgspec.field(default_factory=set)
    taken: bool = False
    sealed: bool = False
    #: What a range that only the journal holds takes in memory once it is read back, in bytes.
    spilled: int = 0

    def lost(self, batch: SpanBatch) -> int:
        """Return how many of its spans are not in *batch*: a segment was damaged, or deleted."""
        return self.journaled + len(self.unjournaled) - len(batch)

    def cut(self, whole: SpanBatch, parts: list[SpanBatch]) -> list[PendingRange]:
        """Return a range for each of the parts that its batch was cut into; they are sealed."""
        pieces = []
        for part in parts:
            missing = self.unjournaled.intersection(s for s in part.seqs() if s is not None)
            size = self.size * len(part) // len(whole)
            piece = PendingRange(
                part.first_seq, part.last_seq, part, size, len(part) - len(missing), missing
            )
            piece.taken = piece.sealed = True
            pieces.append(piece)
        return pieces
