"""What a monitor's pipeline is made of, also where a process leaves without one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from llmops_core.config import Settings, state_dir
from llmops_core.errors import ConfigError
from llmops_core.failures import Failures
from llmops_core.intake.finish import Finisher
from llmops_core.intake.queue import IntakeQueue
from llmops_core.journal.writer import Journal
from llmops_core.keys import load_key

__all__ = ["batching_of", "journal_root_of", "make_finisher", "new_queue", "open_journal"]

DEFAULT_BATCH_SPANS: Final = 500
DEFAULT_BATCH_SECONDS: Final = 0.5


def journal_root_of(storage: object, name: str) -> Path | None:
    """Return where the journals of a storage's writers lie; None for one that keeps nothing."""
    if getattr(storage, "volatile", False):
        return None
    root = getattr(storage, "journal_root", None)
    if root is not None:
        return Path(root)
    # One folder for each target, so that a recovery never stores into another database.
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return state_dir() / "journal" / digest


def open_journal(
    root: Path | None, writer_id: str, settings: Settings, failures: Failures
) -> Journal | None:
    """Open the journal of a new writer; None where nothing is to be kept, or nothing can be."""
    if settings.durability == "memory" or root is None:
        return None
    try:
        return Journal(root, writer_id, max_bytes=settings.journal_bytes)
    except OSError as error:
        # Nothing is writable: monitoring goes on in memory, with this one warning.
        failures.report("journal", "open", error)
        return None


def make_finisher(settings: Settings, failures: Failures) -> Finisher:
    """Return what makes spans storable: it knows the key and the settings' constants."""
    key, error = load_key(state_dir())
    if error is not None:
        failures.report("keys", "load", error)
    names = ("project", "service", "environment", "app_version")
    return Finisher(key, {name: getattr(settings, name) for name in names})


def new_queue(settings: Settings) -> IntakeQueue:
    """Return an empty queue. Until an intake thread takes it over, nothing is woken."""
    waits = settings.block_seconds if settings.overload == "block" else 0.0
    return IntakeQueue(
        settings.queue_events, settings.queue_bytes, lambda: None, block_seconds=waits
    )


def batching_of(storage: object, settings: Settings) -> tuple[int, float]:
    """Return size and age of a stored batch: the user's, else the storage's, else the default."""
    spans: Any = settings.batch_size or getattr(storage, "batch_spans", DEFAULT_BATCH_SPANS)
    seconds = settings.flush_interval_seconds
    if seconds is None:
        seconds = getattr(storage, "batch_seconds", DEFAULT_BATCH_SECONDS)
    good = isinstance(spans, int) and spans > 0 and isinstance(seconds, int | float) and seconds > 0
    if not good:
        raise ConfigError(
            f"storage {type(storage).__name__} has batch_spans={spans!r}, batch_seconds={seconds!r}",
            "expected numbers above 0",
        )
    return int(spans), float(seconds)
