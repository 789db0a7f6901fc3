"""How many spans a second go from the queue to Parquet, stage by stage, beside the bare minimum.

Bare: the same spans as tuples → Arrow → one zstd-1 Parquet file of the same schema. The stages are
those of the pipeline, run one after the other on the same spans in the same process; CPU time::

    python benchmarks/ingest.py
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from llmops_core.batch import SpanBatch, spans_to_arrow
from llmops_core.clock import SystemClock
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.config import Settings
from llmops_core.delivery.collecting import merge_values
from llmops_core.freeze.freezer import Freezer
from llmops_core.intake.finish import Finisher
from llmops_core.intake.queue import END, START, HostEvent
from llmops_core.intake.tracer import Tracer
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.span import Span
from llmops_core.storage.parquet import ParquetStorage


def host_events(count: int, chars: int) -> list[HostEvent]:
    """Make the events of *count* runs, in traces of ten, with two texts each."""
    freeze = Freezer().freeze
    events: list[HostEvent] = []
    for number in range(1, count + 1):
        root = number - (number - 1) % 10
        parent = None if number == root else root
        text = freeze(f"{number} " + "lorem ipsum dolor " * (chars // 18))
        start = {"kind": "llm", "name": "model", "model": "m-1", "session_id": str(root)}
        end = {"output": text, "outcome": "ok", "input_tokens": 12, "output_tokens": 34}
        run = number + (1 << 90)
        above = None if parent is None else parent + (1 << 90)
        events.append((START, run, above, number, number, {**start, "input": text}, 600, False))
        events.append((END, run, above, number + 5, number, end, 600, False))
    return events


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds of the process, and what the work returned."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def one_round(folder: Path, count: int, chars: int) -> dict[str, float]:
    """Run each stage once over fresh spans; return CPU microseconds a span."""
    events = host_events(count, chars)
    took: dict[str, float] = {}
    tracer = Tracer(Settings(), SystemClock())
    took["trace"], _ = cpu(lambda: [tracer.feed(event) for event in events])
    finisher = Finisher(b"k" * 32, {})
    writer = new_writer_id()
    drafts = tracer.finished
    took["finish"], spans = cpu(
        lambda: [finisher.finish(d, writer, n) for n, d in enumerate(drafts, 1)]
    )
    journal = Journal(folder / "journal", writer, max_bytes=2**40)
    took["journal"], _ = cpu(
        lambda: [journal.append(spans[at : at + 256]) for at in range(0, count, 256)]
    )
    journal.close(remove=True)
    batch = SpanBatch(spans, writer_id=writer, first_seq=1, last_seq=count)
    took["collect"], rows = cpu(
        lambda: merge_values(batch.rows, CapacityCollector().collect(batch))
    )
    storage = ParquetStorage(folder / "data")
    asyncio.run(storage.open())
    took["store"], _ = cpu(lambda: asyncio.run(storage.write(batch.with_rows(rows))))
    took["bare"], _ = cpu(lambda: bare(rows, folder / "bare.parquet"))
    return {name: seconds / count * 1e6 for name, seconds in took.items()}


def bare(rows: list[Span], path: Path) -> None:
    """The least that can be done: tuples to Arrow to zstd."""
    table = spans_to_arrow(rows)
    pq.write_table(table, path, compression="zstd", compression_level=1)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}; CPU µs a span, median of {options.rounds} rounds")
    for chars in (200, 2_000):
        with tempfile.TemporaryDirectory() as folder:
            rounds = [
                one_round(Path(folder) / str(n), options.spans, chars)
                for n in range(options.rounds)
            ]
        median = {k: statistics.median(r[k] for r in rounds) for k in rounds[0]}
        ours = sum(v for k, v in median.items() if k != "bare")
        share = statistics.median(
            r["bare"] / sum(v for k, v in r.items() if k != "bare") for r in rounds
        )
        stages = "  ".join(f"{k} {v:.1f}" for k, v in median.items())
        print(f"{chars:5} characters: {stages}")
        print(
            f"      in all {ours:.1f} µs, {1e6 / ours:,.0f} spans a second of one core; "
            f"throughput {share:.0%} of bare"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
