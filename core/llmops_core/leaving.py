"""A process that ends before its monitor could open: its events go straight into a journal.

A forked child opens its monitor on a thread, with its first event. One that ends at once may be too
late for that: Python 3.12 starts no thread once it exits, on any version a thread may not get its
turn in time. Then what waits in the queue is paired, finished and journaled on the exiting thread
itself, with no other thread, no plugin and no network, and the next start or ``llmops recover``
stores it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmops_core.batch import SpanBatch
from llmops_core.clock import Clock
from llmops_core.config import Settings
from llmops_core.delivery.flushing import FlushMark
from llmops_core.failures import Failures
from llmops_core.intake.queue import IntakeQueue
from llmops_core.intake.thread import Intake
from llmops_core.intake.tracer import Tracer
from llmops_core.journal.writer import new_writer_id
from llmops_core.ledgers import idle_stats
from llmops_core.materials import make_finisher, open_journal

__all__ = ["leave_in_journal"]


class _Nobody:
    """Stands where the delivery and the storage would: it counts, and leaves all to the journal."""

    def __init__(self) -> None:
        self.journaled = self.lost = 0

    def count_in(self, batch: SpanBatch, *, journaled: bool) -> None:
        if journaled:
            self.journaled += len(batch)
        else:
            self.lost += len(batch)

    def hand_over(self, batch: SpanBatch, size: int) -> None:
        """Nobody comes after the journal."""

    def mark(self, mark: FlushMark) -> None:
        """Nobody comes after the journal."""


def leave_in_journal(
    journal_root: Path | None,
    queue: IntakeQueue,
    *,
    settings: Settings,
    clock: Clock,
    failures: Failures,
    deadline: float,
) -> dict[str, Any]:
    """Journal what waits in *queue* on this thread, until *deadline*; return the ledgers.

    For an exiting process. Never raises: what finds no journal, or no time, is counted as dropped.
    """
    writer_id = new_writer_id()
    journal = open_journal(journal_root, writer_id, settings, failures)
    nobody = _Nobody()
    finisher = make_finisher(settings, failures)
    intake = Intake(
        queue,
        Tracer(settings, clock),
        finisher,
        nobody,
        nobody,
        journal=journal,
        writer_id=writer_id,
        failures=failures,
    )
    try:
        intake.run_out(deadline)
    except Exception as error:  # a defect of ours must not reach an exiting program
        failures.report("leaving", "journal", error)
    if journal is not None:
        try:
            journal.close(remove=nobody.journaled == 0)
        except OSError as error:
            failures.report("journal", "close", error)
    return _ledgers(intake, nobody, failures)


def _ledgers(intake: Intake, nobody: _Nobody, failures: Failures) -> dict[str, Any]:
    stats = idle_stats(intake.queue, failures)
    tracer, dropped = intake.tracer, dict(intake.dropped)
    if nobody.lost:
        dropped["not_journaled"] = nobody.lost
    stats["events"]["consumed"] = intake.consumed
    stats["spans"].update(
        made=tracer.made,
        journaled=nobody.journaled,
        dropped=dropped,
        skipped=dict(tracer.skipped),
        open=tracer.open_count,
    )
    stats["tracer"] = dict(tracer.notes)
    stats["sanitized"] = dict(intake.finisher.sanitized)
    return stats
