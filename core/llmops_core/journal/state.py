"""What a living monitor says of itself beside its journal, for ``llmops doctor``.

Names, numbers and types only: no text of an error, which may hold content of spans.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

__all__ = ["STATE_FILE", "encode_state", "read_state", "trouble_of"]

STATE_FILE: Final = "state"
#: The file is small; whatever is larger was not written by us.
_MAX_BYTES: Final = 256 * 1024
_MAX_FAILURES: Final = 50
#: What of a journal's stats is trouble where it is not 0.
JOURNAL_TROUBLE: Final = ("full", "gone", "remade", "unjournaled")


def trouble_of(stats: dict[str, Any]) -> dict[str, Any]:
    """Return what of a monitor's stats an operator should know; empty where all is well."""
    trouble: dict[str, Any] = {}
    if stats["storage"]["state"] != "ok":
        trouble["storage"] = stats["storage"]
    if stats["cut_off"]:
        trouble["cut_off"] = list(stats["cut_off"])
    dropped = {k: v for k in ("events", "spans") if (v := stats[k]["dropped"])}
    dropped |= {
        n: {"exporter": e["dropped"]} for n, e in stats["exporters"].items() if e["dropped"]
    }
    if dropped:
        trouble["dropped"] = dropped
    if stats["events"]["content_shed"]:
        trouble["content_shed"] = stats["events"]["content_shed"]
    journal = {n: v for n in JOURNAL_TROUBLE if (v := stats["journal"].get(n))}
    if journal:
        trouble["journal"] = journal
    workers = {n: w for n, w in stats["workers"].items() if w["restarts"] or w["stuck"]}
    if workers:
        trouble["workers"] = workers
    stopped = (stats.get("breakers") or {}).get("stopped")
    if stopped:
        trouble["stopped"] = dict(stopped)
    if stats["failures"]:
        trouble["failures"] = dict(list(stats["failures"].items())[:_MAX_FAILURES])
    return trouble


def encode_state(state: dict[str, Any]) -> bytes:
    """Return the content of the file."""
    return json.dumps(state).encode()


def read_state(folder: Path) -> dict[str, Any]:
    """Return what a writer said last; empty where it said nothing, or nothing that can be read."""
    try:
        path = folder / STATE_FILE
        if path.stat().st_size > _MAX_BYTES:
            return {}
        state = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
