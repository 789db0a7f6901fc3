"""What ``llmops doctor`` says of the storage, of what is in it, and of the journals before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmops_core import StorageReader

__all__ = ["compaction", "journals", "storage_and_models"]


def storage_and_models(
    url: str, option: str | None, broken: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return whether the storage answers, and the models that its spans name."""
    from llmops_core.cli.console import masked, nothing_written, reading

    found: dict[str, Any] = {"url": masked(url), "source": "--storage", "healthy": True}
    found["error"] = None
    if broken:
        return {**found, "source": "set-up", "healthy": False, "error": masked(broken)}, []
    if not option:
        from llmops_core.sources import default_storage

        found["source"] = default_storage().source.replace("default", "the default")
    if nothing_written(url):
        return {**found, "spans": 0, "newest": None}, []
    try:
        with reading(url) as reader:
            row = reader.query(aggregates=["count", "max:end_time"]).to_pylist()
            models = _models(reader)
    except Exception as error:  # whatever fails is told
        told = masked(str(error) or type(error).__name__)
        return {**found, "healthy": False, "error": told}, []
    found["spans"] = row[0]["count"] if row else 0
    found["newest"] = row[0]["max_end_time"] if row else None
    return found, models


def _models(reader: StorageReader) -> list[dict[str, Any]]:
    """Return each model that was called, how often, and how often without usage; most calls first."""
    rows = reader.query(
        where=[("model", "is not null"), ("kind", "in", ["llm", "embedding"])],
        group_by=["provider", "model", "usage_source"],
        aggregates=["count"],
    ).to_pylist()
    models: dict[tuple[Any, Any], dict[str, Any]] = {}
    for row in rows:
        key = row["provider"], row["model"]
        fresh = {"provider": key[0], "model": key[1], "calls": 0, "without_usage": 0}
        model = models.setdefault(key, fresh)
        model["calls"] += row["count"]
        if row["usage_source"] in (None, "missing"):
            model["without_usage"] += row["count"]
    return sorted(models.values(), key=lambda m: (-m["calls"], str(m["model"])))


def journals(url: str) -> dict[str, Any]:
    """Return the journals of the storage's writers, and what is in quarantine beside them."""
    from llmops_core.cli.journals import journal_problem, journal_root, journal_states
    from llmops_core.journal.quarantine import Quarantine

    try:
        root = journal_root(url)
    except Exception:  # told as the storage's error
        root = None
    return {
        "root": str(root) if root else None,
        "problem": journal_problem(root),
        "writers": [state._asdict() for state in journal_states(root)],
        "quarantined": len(Quarantine(root)) if root else 0,
    }


def compaction(url: str) -> dict[str, Any] | None:
    """Return how many files wait to be merged and who does it; None where there are no files."""
    from llmops_core.parts import make_storage
    from llmops_core.plugins import PluginHost
    from llmops_core.storage.parquet.compaction import small_files
    from llmops_core.storage.parquet.lock import owner

    try:
        storage = make_storage(PluginHost(), url)
        folder = getattr(storage, "folder", None)
        if not hasattr(storage, "compaction") or not isinstance(folder, Path):
            return None
        files, days = small_files(folder)
        return {"files": files, "days": days, "owner": owner(folder)}
    except Exception:  # told as the storage's error
        return None
