"""How many spans a second go from the queue to Parquet, stage by stage, beside the bare minimum.

Bare: the same spans as tuples → Arrow → one zstd-1 Parquet file of the same schema. The stages are
those of the pipeline, as it runs them: drains of the queue through tracer, finisher and journal, then
one batch through the collectors to Parquet. Left out is what passes a span on from thread to thread:
waking, the delivery's and the storage's own accounts, and the notes in the journal that a range was
sealed and stored. Both take the same spans, one right after the other and in random order, in each
round; CPU time of the process. The share has a bootstrap 95 % interval::

    python benchmarks/ingest.py
    python benchmarks/ingest.py --database postgresql
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from ratios import interval

from llmops_core.batch import SpanBatch
from llmops_core.clock import SystemClock
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.collectors.measure import MeasureCollector
from llmops_core.config import Settings
from llmops_core.delivery.collecting import Collecting
from llmops_core.failures import Failures
from llmops_core.freeze.freezer import Freezer
from llmops_core.intake.finish import Finisher
from llmops_core.intake.queue import END, START, HostEvent, IntakeQueue
from llmops_core.intake.thread import DRAIN_EVENTS, FINISH_SPANS
from llmops_core.intake.tracer import Tracer
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.schema import arrow_schema
from llmops_core.span import Span
from llmops_core.storage.parquet import ParquetStorage

DATABASES = ("postgresql", "mariadb", "clickhouse")
T = TypeVar("T")


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


class Stages:
    """The parts of the pipeline, each run by hand on what the one before it gave."""

    def __init__(self, folder: Path) -> None:
        self.took: dict[str, float] = {}
        self.writer = new_writer_id()
        self.queue = IntakeQueue(10**6, 2**40, lambda: None)
        self.tracer = Tracer(Settings(), SystemClock())
        self.finisher = Finisher(b"k" * 32, {})
        self.journal = Journal(folder / "journal", self.writer, max_bytes=2**40)
        collectors = {"capacity": CapacityCollector(), "measure": MeasureCollector()}
        self.collecting = Collecting(collectors, Failures())
        self.storage = ParquetStorage(folder / "data")
        asyncio.run(self.storage.open())

    def run(self, events: list[HostEvent]) -> list[Span]:
        """Take events to Parquet; return the spans as they were stored."""
        batches: list[SpanBatch] = []
        self.timed("queue", self._put, events)
        while drained := self.timed("queue", self.queue.take, DRAIN_EVENTS):
            drafts = self.timed("trace", self._trace, drained)
            for at in range(0, len(drafts), FINISH_SPANS):
                first = batches[-1].last_seq + 1 if batches else 1
                some = drafts[at : at + FINISH_SPANS]
                batches.append(self.timed("finish", self._finish, some, first))
                self.timed("journal", self._append, batches[-1])
        whole = self.timed("collect", self._collect, batches)
        self.timed("store", self._store, whole)
        self.journal.close(remove=True)
        return list(whole.rows)

    def timed(self, stage: str, work: Callable[..., T], *arguments: Any) -> T:
        started = time.process_time()
        result = work(*arguments)
        self.took[stage] = self.took.get(stage, 0.0) + time.process_time() - started
        return result

    def _put(self, events: list[HostEvent]) -> None:
        for event in events:
            self.queue.put(event)

    def _trace(self, events: list[HostEvent]) -> list[dict[str, Any]]:
        for event in events:
            self.tracer.feed(event)
        drafts, self.tracer.finished = self.tracer.finished, []
        return drafts

    def _finish(self, drafts: list[dict[str, Any]], first: int) -> SpanBatch:
        columns = self.finisher.finish_all(drafts, self.writer, first, _fail)
        return SpanBatch.of_columns(columns, writer_id=self.writer)

    def _append(self, batch: SpanBatch) -> None:
        self.journal.append_records(batch.records(), batch.first_seq, batch.last_seq)

    def _collect(self, batches: list[SpanBatch]) -> SpanBatch:
        return self.collecting.collect(SpanBatch.joined(batches))

    def _store(self, batch: SpanBatch) -> None:
        asyncio.run(self.storage.write(batch))


def _fail(error: Exception) -> None:
    raise error


def made_once(folder: Path, count: int, chars: int) -> list[tuple[Any, ...]]:
    """Return the spans as they are stored, for the bare minimum: so that it can also come first."""
    return [msgspec.structs.astuple(s) for s in Stages(folder).run(host_events(count, chars))]


def one_round(
    folder: Path, count: int, chars: int, rows: list[tuple[Any, ...]], rng: random.Random
) -> dict[str, float]:
    """Run each stage over fresh spans, and the bare minimum before or after; CPU µs a span."""
    stages, events = Stages(folder), host_events(count, chars)
    sides: list[Callable[[], object]] = [
        lambda: stages.run(events),
        lambda: stages.timed("bare", bare, rows, folder / "bare.parquet"),
    ]
    rng.shuffle(sides)
    for side in sides:
        side()
    return {name: seconds / count * 1e6 for name, seconds in stages.took.items()}


def bare(rows: list[tuple[Any, ...]], path: Path) -> None:
    """The least that can be done: tuples to Arrow to zstd. Columns without a value cost nothing."""
    count = len(rows)
    arrays = [
        pa.array(values, field.type) if values.count(None) < count else pa.nulls(count, field.type)
        for field, values in zip(arrow_schema(), zip(*rows, strict=True), strict=True)
    ]
    table = pa.Table.from_arrays(arrays, schema=arrow_schema())
    pq.write_table(table, path, compression="zstd", compression_level=1)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--database", choices=DATABASES, help="a database beside its own way in")
    parser.add_argument("--batch", type=int, default=500, help="spans of one write to a database")
    options = parser.parse_args()
    if options.database:
        import ingest_databases

        return ingest_databases.run(options.database, options.spans, options.rounds, options.batch)
    print(f"Python {sys.version.split()[0]}; CPU µs a span, median of {options.rounds} rounds")
    rng = random.Random(1)
    for chars in (200, 2_000):
        with tempfile.TemporaryDirectory() as folder:
            rows = made_once(Path(folder) / "first", options.spans, chars)
            rounds = [
                one_round(Path(folder) / str(n), options.spans, chars, rows, rng)
                for n in range(options.rounds)
            ]
        stored = ("queue", "trace", "finish", "journal", "collect", "store")
        median = {k: statistics.median(r[k] for r in rounds) for k in (*stored, "bare")}
        ours = sum(median[k] for k in stored)
        share, low, high = interval([r["bare"] / sum(r[k] for k in stored) for r in rounds], rng)
        stages = "  ".join(f"{k} {v:.1f}" for k, v in median.items())
        print(f"{chars:5} characters: {stages}")
        print(
            f"      in all {ours:.1f} µs, {1e6 / ours:,.0f} spans a second of one core; "
            f"throughput {share:.0%} [{low:.0%}, {high:.0%}] of bare"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
