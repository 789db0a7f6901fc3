"""The last resort of a program that ends before any monitor was opened: its events into a journal.

Python starts no thread once it exits (3.12), so no monitor can open any more. The default storage's
journal needs none: the next start, or the next reader, finds the spans there.
"""

from __future__ import annotations

import time
from typing import Final

from llmops_core.clock import SystemClock
from llmops_core.config import Settings
from llmops_core.failures import Failures
from llmops_core.intake.queue import IntakeQueue
from llmops_core.leaving import leave_in_journal
from llmops_core.materials import journal_root_of
from llmops_core.parts import make_storage, storage_name
from llmops_core.plugins import PluginHost

__all__ = ["SPILL_SECONDS", "spill"]

#: How long it may hold up the end of a program, as a flush may; what is left then is dropped.
SPILL_SECONDS: Final = 10.0


def spill(queue: IntakeQueue, settings: Settings, storage_url: str) -> int:
    """Journal what *queue* holds for a storage, and return how many spans that were."""
    root = journal_root_of(make_storage(PluginHost(), storage_url), storage_name(storage_url))
    if root is None:
        return 0
    ledgers = leave_in_journal(
        root,
        queue,
        settings=settings,
        clock=SystemClock(),
        failures=Failures(),
        deadline=time.monotonic() + SPILL_SECONDS,
    )
    journaled: int = ledgers["spans"]["journaled"]
    return journaled
