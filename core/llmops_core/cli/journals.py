"""The journals on this machine: whether each one's writer lives, and what it still holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from llmops_core.journal.format import Damage, Range, read_records, segments
from llmops_core.journal.state import read_state

__all__ = ["JournalState", "journal_problem", "journal_root", "journal_states"]

#: A journal beyond this is not read to count its spans; its bytes are told.
_MAX_READ_BYTES: Final = 64 * 1024 * 1024


class JournalState(NamedTuple):
    """One writer's journal."""

    writer_id: str
    living: bool
    bytes: int
    pending_spans: int | None  # not stored yet; None where the journal is too large to count
    open_spans: int
    damaged_records: int
    trouble: dict[str, Any]  # what the monitor said of itself; empty where all is well


def journal_root(url: str) -> Path | None:
    """Return the folder of the journals of a storage's writers; None for one that keeps nothing."""
    from llmops_core.materials import journal_root_of
    from llmops_core.parts import make_storage, storage_name
    from llmops_core.plugins import PluginHost

    return journal_root_of(make_storage(PluginHost(), url), storage_name(url))


def journal_problem(root: Path | None) -> str | None:
    """Say why no journal can be kept below *root*, where none can: its spans stay in memory."""
    if root is None:
        return None
    nearest = root
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return f"{nearest} is no folder: finished spans are kept in memory only"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} is not writable: finished spans are kept in memory only"
    return None


def journal_states(root: Path | None) -> list[JournalState]:
    """Return the journals below *root*, oldest first. Changes nothing."""
    if root is None or not root.is_dir():
        return []
    folders = (p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [_state(folder) for folder in sorted(folders)]


def _state(folder: Path) -> JournalState:
    paths = segments(folder)
    size = sum(_size(p) for p in paths)
    damage = Damage()
    pending: int | None = None
    if size <= _MAX_READ_BYTES:
        seqs: set[int] = set()
        stored: list[Range] = []
        for path in paths:
            for record in read_records(_read(path), 0, damage):
                seqs.update(s.seq or 0 for s in record.spans)
                if record.type == "c":
                    stored.append(record.range)
        pending = sum(not any(a <= seq <= b for a, b in stored) for seq in seqs)
    opened = sum(len(r.spans) for r in read_records(_read(folder / "open"), 0, Damage()))
    trouble = read_state(folder)
    return JournalState(folder.name, _lives(folder), size, pending, opened, damage.records, trouble)


def _lives(folder: Path) -> bool:
    """Whether the writer holds its lock: the kernel lets it go when the process dies."""
    from llmops_core.journal.lock import is_locked

    try:
        return is_locked(folder / "lock")
    except OSError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # its writer has just dropped it
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
