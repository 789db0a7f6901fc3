"""Many spans, fast: traces of ten spans as Arrow tables, made a column at a time.

A trace is a request of two agents: a root, the agents, four model calls, two tools, a handoff. Texts
are of 200 characters, ids as the tracer makes them, times some days long.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from llmops_core.schema import arrow_schema
from llmops_core.storage.parquet.files import day_of, file_name, make_folder
from llmops_core.storage.parquet.writing import write_parquet

__all__ = [
    "BEGIN",
    "DAY",
    "PATTERN",
    "SPANS_A_TRACE",
    "step_of",
    "tables",
    "trace_id",
    "write_files",
]

SPANS_A_TRACE: Final = 10
#: Ids repeat themselves after so many traces, but for their times.
PATTERN: Final = 10_000
#: 2026-01-01, a Thursday; a trace begins with each step.
BEGIN: Final = 1_767_225_600_000_000
DAY: Final = 86_400_000_000
_KINDS: Final = (
    "workflow", "agent", "llm", "tool", "llm", "handoff", "agent", "llm", "tool", "llm",
)  # fmt: skip
_PARENTS: Final = np.array([-1, 0, 1, 1, 1, 0, 0, 6, 6, 6])
_AGENTS: Final = np.array([-1, 1, 1, 1, 1, -1, 6, 6, 6, 6])
_OWNERS: Final = np.array([2, 0, 0, 0, 0, 2, 1, 1, 1, 1])
_NAMES: Final = {
    "workflow": ["answer", "summarise", "book"],
    "agent": ["researcher", "writer"],
    "llm": [f"model-{n}" for n in range(6)],
    "tool": [f"tool-{n}" for n in range(12)],
    "handoff": ["researcher → writer"],
}
_TEXTS: Final = 5_000
_HEX: Final = np.array([f"{n:02x}" for n in range(256)], "S2")


def trace_id(number: int, step: int) -> str:
    """Return the id of the trace of a number: its time, the version, and what tells apart."""
    return f"{(BEGIN + number * step) // 1000:012x}70008{number % PATTERN:015x}"


def step_of(traces: int, days: int) -> int:
    """Return the microseconds between traces, whole milliseconds."""
    return days * DAY // traces // 1000 * 1000


def tables(first: int, last: int, step: int, writer: str) -> pa.Table:
    """Return the spans of the traces *first* up to *last*, one after the other."""
    traces = np.arange(first, last)
    spans = np.arange(first * SPANS_A_TRACE, last * SPANS_A_TRACE)
    place = spans % SPANS_A_TRACE
    chance = np.random.default_rng(first)
    count = len(spans)
    starts = BEGIN + np.repeat(traces, SPANS_A_TRACE) * step + place * 200_000
    took = np.where(place == 0, 2_500_000, chance.lognormal(11.5, 0.6, count).astype(np.int64))
    is_llm = np.array([kind == "llm" for kind in _KINDS])[place]
    ids = _hex(_scrambled(spans))
    columns = {
        "span_id": ids,
        "trace_id": pa.array([trace_id(n, step) for n in traces]).take(
            pa.array(np.repeat(traces - first, SPANS_A_TRACE))
        ),
        "parent_id": ids.take(_above(spans, place, _PARENTS, first)),
        "agent_span_id": ids.take(_above(spans, place, _AGENTS, first)),
        "session_id": pa.array([f"session-{n // 5}" for n in traces]).take(
            pa.array(np.repeat(traces - first, SPANS_A_TRACE))
        ),
        "project": _one("shop", count),
        "writer_id": _one(writer, count),
        "seq": pa.array(spans - first * SPANS_A_TRACE + 1),
        "kind": _chosen(list(_KINDS), place),
        "name": _names(place, chance),
        "framework": _one("langgraph", count),
        "agent": _chosen(["researcher", "writer", None], _OWNERS[place]),
        "outcome": _chosen(["ok", "error"], (chance.random(count) < 0.01).astype(np.int64)),
        "start_time": _time(starts),
        "end_time": _time(starts + took),
        "duration_ms": pa.array(took / 1000),
        "provider": _where(is_llm, _one("openai", count)),
        "model": _where(is_llm, _one("model-1", count)),
        "input_tokens": _where(is_llm, pa.array(chance.integers(10, 2_000, count))),
        "output_tokens": _where(is_llm, pa.array(chance.integers(1, 400, count))),
        "usage_source": _where(is_llm, _one("provider", count)),
        "input": _texts(chance.integers(0, _TEXTS, count)),
        "output": _texts(chance.integers(0, _TEXTS, count)),
        "content_mode": _one("full", count),
    }  # fmt: skip
    for side in ("input", "output"):
        columns[f"{side}_hash"] = _hex(chance.integers(0, 2**63, (count, 2)))
        for unit, value in (("size", 200), ("chars", 200), ("words", 33), ("bytes", 200)):
            columns[f"{side}_{unit}"] = pa.array(np.full(count, value))
    arrays = [
        columns[f.name].cast(f.type) if f.name in columns else pa.nulls(count, f.type)
        for f in arrow_schema()
    ]
    return pa.Table.from_arrays(arrays, schema=arrow_schema())


def write_files(folder: Path, traces: int, days: int, a_file: int = 5_000) -> Iterator[int]:
    """Write the files that a monitor would: by day, of so many spans each. Yield how many there are."""
    step = step_of(traces, days)
    per_file = a_file // SPANS_A_TRACE
    done = 0
    for first in range(0, traces, per_file):
        # No trace lies on both sides of midnight, so that a table is one file.
        table = tables(first, min(first + per_file, traces), step, f"w{first:011x}")
        for day, part in _by_day(table):
            name = file_name(f"w{first:011x}", *_range(part))
            make_folder(folder / day)
            with pa.OSFile(str(folder / day / name), "wb") as file:
                write_parquet(part, file)
        done += table.num_rows
        yield done


def _by_day(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    ends = table["end_time"].cast(pa.int64()).to_numpy() // DAY
    for day in np.unique(ends):
        yield day_of(int(day) * DAY), table.filter(pa.array(ends == day))


def _range(table: pa.Table) -> tuple[int, int]:
    seqs = table["seq"].to_numpy()
    return int(seqs.min()), int(seqs.max())


# ---- columns ----


def _scrambled(numbers: Any) -> Any:
    """Return numbers that look like chance, each once."""
    return numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def _hex(numbers: Any) -> pa.Array:
    data = np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), -1)
    digits = _HEX[data]
    return pa.array(digits.view(f"S{2 * data.shape[1]}").reshape(-1)).cast(pa.string())


def _above(spans: Any, place: Any, table: Any, first: int) -> pa.Array:
    above = table[place]
    root = spans - place - first * SPANS_A_TRACE
    return pa.array(root + above, mask=above < 0)


def _one(text: str, count: int) -> pa.Array:
    return pa.repeat(text, count)


def _chosen(values: list[str | None], which: Any) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(which))


def _names(place: Any, chance: Any) -> pa.Array:
    names = [name for kind in _NAMES for name in _NAMES[kind]]
    sizes = np.array([len(_NAMES[kind]) for kind in _KINDS])[place]
    base = np.array([names.index(_NAMES[kind][0]) for kind in _KINDS])[place]
    return _chosen(list(names), base + (chance.random(len(place)) * sizes).astype(np.int64))


def _where(kept: Any, values: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.if_else(pa.array(kept), values, pa.scalar(None, values.type))


def _time(micros: Any) -> pa.Array:
    return pa.array(micros).cast(pa.timestamp("us", tz="UTC"))


_pool: list[pa.Array] = []


def _texts(which: Any) -> pa.Array:
    if not _pool:
        chance = np.random.default_rng(1)
        words = np.array([f"{n:x}" for n in chance.integers(0, 2**24, 3_000)])
        drawn = words[chance.integers(0, len(words), (_TEXTS, 40))]
        _pool.append(pa.array([" ".join(row)[:200].ljust(200, ".") for row in drawn]))
    return _pool[0].take(pa.array(which))
