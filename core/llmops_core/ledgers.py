"""What ``Monitor.stats()`` tells: both ledgers, and the state of every part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops_core.failures import Failures
from llmops_core.intake.queue import IntakeQueue

if TYPE_CHECKING:
    from llmops_core.pipeline import Pipeline

__all__ = ["idle_stats", "stats_of"]


def stats_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return both ledgers and the state of each part."""
    store, intake, queue = pipeline.store, pipeline.intake, pipeline.queue
    tracer, notifier = pipeline.tracer, pipeline.notifier
    in_intake = len(tracer.finished) + tracer.pending_held
    return {
        "events": {
            "received": queue.received,
            "consumed": intake.consumed,
            "queued": queue.waiting + intake.in_hand,
            "dropped": dict(queue.dropped),
            "content_shed": queue.content_shed,
            "blocked": queue.blocked(),
        },
        "spans": {
            "made": tracer.made,
            "stored": store.stored,
            "queued": store.queued + in_intake,
            "journaled": store.journaled,
            "quarantined": store.quarantined,
            "dropped": _added(intake.dropped, store.dropped),
            "skipped": dict(tracer.skipped),
            "open": tracer.open_count,
        },
        "tracer": dict(tracer.notes),
        "sanitized": dict(pipeline.finisher.sanitized),
        "journal": _journal_stats(pipeline),
        "storage": store.state(),
        "quarantine": {"spans": store.in_quarantine},
        "compaction": pipeline.compaction.stats(),
        "exporters": {e.name: e.stats() for e in pipeline.exporters},
        "collectors": {"missed": dict(pipeline.collecting.missed)},
        "hooks": {"missed": notifier.missed},
        "cut_off": _cut_off(pipeline),
        "workers": pipeline.watchdog.stats(),
        "failures": pipeline.failures.counts(),
    }


def _cut_off(pipeline: Pipeline) -> list[str]:
    exporters = [e.name for e in pipeline.exporters if e.cut_off]
    return [*pipeline.collecting.cut_off, *exporters, *pipeline.notifier.cut_off]


def _journal_stats(pipeline: Pipeline) -> dict[str, Any]:
    journal = pipeline.journal
    if journal is None:
        return {"level": "memory"}
    return {
        "level": "journal",
        "path": str(journal.folder),
        "bytes": journal.size,
        "unjournaled": pipeline.intake.unjournaled,
        "full": journal.full,
        "gone": journal.gone,
        "remade": journal.remade,
    }


def idle_stats(queue: IntakeQueue, failures: Failures) -> dict[str, Any]:
    """Return the ledgers of a monitor that has not opened yet in this process."""
    counts = ("made", "stored", "queued", "journaled", "quarantined", "open")
    return {
        "events": {
            "received": queue.received,
            "consumed": 0,
            "queued": queue.waiting,
            "dropped": dict(queue.dropped),
            "content_shed": queue.content_shed,
            "blocked": queue.blocked(),
        },
        "spans": {**dict.fromkeys(counts, 0), "dropped": {}, "skipped": {}},
        "tracer": {},
        "sanitized": {},
        "journal": {"level": "not open"},
        "storage": {"state": "not open", "seconds": 0.0, "retries": 0, "last_error": None},
        "quarantine": {"spans": 0},
        "compaction": {"state": "not open"},
        "exporters": {},
        "collectors": {"missed": {}},
        "hooks": {"missed": 0},
        "cut_off": [],
        "workers": {},
        "failures": failures.counts(),
    }


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}
