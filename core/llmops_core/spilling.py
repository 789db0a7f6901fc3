"""The last resort of a program that ends before any monitor was opened: its events into a journal.

Python starts no thread once it exits (3.12), so no monitor can open any more. Pairing and journaling
need none: the next start, or the next reader, finds the spans there.
"""

from __future__ import annotations

from llmops_core.clock import SystemClock
from llmops_core.config import Settings, state_dir
from llmops_core.intake.finish import Finisher
from llmops_core.intake.queue import IntakeQueue
from llmops_core.intake.tracer import Tracer
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.keys import load_key
from llmops_core.parts import make_storage, storage_name
from llmops_core.pipeline import journal_root_of
from llmops_core.plugins import PluginHost
from llmops_core.span import Span

__all__ = ["spill"]


def spill(queue: IntakeQueue, settings: Settings, storage_url: str) -> int:
    """Journal what *queue* holds for a storage, and return how many spans that were."""
    storage = make_storage(PluginHost(), storage_url)
    root = journal_root_of(storage, storage_name(storage_url))
    if root is None:
        return 0
    writer_id = new_writer_id()
    spans = _spans_of(queue, settings, writer_id)
    if spans:
        journal = Journal(root, writer_id, max_bytes=settings.journal_bytes)
        journal.append(spans)
        journal.close(remove=False)
    return len(spans)


def _spans_of(queue: IntakeQueue, settings: Settings, writer_id: str) -> list[Span]:
    tracer = Tracer(settings, SystemClock())
    for event in queue.take(len(queue)):
        tracer.feed(event)
    tracer.close_all()
    key, _ = load_key(state_dir())
    names = ("project", "service", "environment", "app_version")
    finisher = Finisher(key, {name: getattr(settings, name) for name in names})
    return [
        finisher.finish(draft, writer_id, number)
        for number, draft in enumerate(tracer.finished, start=1)
    ]
