"""What one bad span in each 1,000 costs: the same spans, clean and with bad ones, in turn.

Each round gives 20,000 spans to the part of a monitor that stores them, journal and quarantine included,
on a private server, and waits until all are stored or put aside. Bad spans are

- *hostile*: NUL, lone surrogates, NaN and 2^64, which are stored in a form that every storage can hold;
- *too long*: an id that is longer than the server's index takes;
- *checked*: a name that a CHECK of the table refuses, for which a server names no row.

::

    python benchmarks/refused.py
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "crashlab"))

from outage_servers import SERVERS, Click, Maria, Postgres, running

from llmops_core.batch import SpanBatch
from llmops_core.delivery.flushing import FlushMark
from llmops_core.delivery.lane import Lane
from llmops_core.delivery.storing import STAGE, StoreWorker
from llmops_core.failures import Failures
from llmops_core.journal.quarantine import Quarantine
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.parts import make_storage
from llmops_core.plugins import PluginHost
from llmops_core.span import Span
from llmops_core.testing import make_span

SPANS: Final = 20_000
_TEXT: Final = "lorem ipsum dolor sit amet, " * 8


def hostile(span: Span) -> Span:
    """Return the span with values that no database holds as they are."""
    return span.replace(
        input="nul \0, surrogate \ud800",
        attributes={"a\0b": "\udfff"},
        measurements={"nan": float("nan")},
        input_tokens=2**64,
    )


def too_long(span: Span) -> Span:
    """Return the span with an id that no index takes, and that cannot be compressed."""
    return span.replace(trace_id=random.Random(span.seq).randbytes(8_000).hex())


def checked(span: Span) -> Span:
    """Return the span with the name that the table refuses."""
    return span.replace(name="refused")


WAYS: Final[dict[str, Callable[[Span], Span]]] = {
    "clean": lambda span: span,
    "hostile": hostile,
    "too long": too_long,
    "checked": checked,
}


def make_spans(first: int, bad: Callable[[Span], Span]) -> list[Span]:
    """Return spans of which one in each thousand is bad."""
    rng, spans = random.Random(first), []
    for at in range(first, first + SPANS):
        span = make_span(
            at,
            seq=at,
            span_id=f"{rng.getrandbits(64):016x}",
            trace_id=f"{at // 10:032x}",
            input=_TEXT,
            output=_TEXT,
            input_tokens=at % 999,
            attributes={"langgraph.node": "write"},
        )
        spans.append(bad(span) if at % 1_000 == 500 else span)
    return spans


class Storing:
    """The part of a monitor that stores, with a journal and a quarantine."""

    def __init__(self, storage: Any, folder: Path) -> None:
        self.storage, self.lane = storage, Lane("storage")
        self.lane.run(storage.open).result(120)
        self.journal = Journal(folder, new_writer_id(), max_bytes=2**40)
        self.worker = StoreWorker(
            storage,
            self.lane,
            journal=self.journal,
            quarantine=Quarantine(folder),
            writer_id=self.journal.writer_id,
            batch_spans=storage.batch_spans,
            backlog_bytes=2**40,
            prepare=lambda batch: batch,
            stored=lambda batch: None,
            failures=Failures(),
        )
        self._next = 1

    def round(self, bad: Callable[[Span], Span]) -> tuple[float, float, int, int]:
        """Store spans; return wall and CPU seconds, and how many were stored and put aside."""
        spans = make_spans(self._next, bad)
        self._next += SPANS
        batches = [self._batch(some) for some in _cut(spans, self.storage.batch_spans)]
        before = (self.worker.stored, self.worker.quarantined)
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            self.worker.add(batch, 100)
        mark = FlushMark({STAGE})
        self.worker.mark(mark)
        if mark.wait(600):
            raise RuntimeError(f"not stored in time: {self.worker.state()}")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall, cpu, self.worker.stored - before[0], self.worker.quarantined - before[1]

    def _batch(self, spans: Sequence[Span]) -> SpanBatch:
        first, last = spans[0].seq or 0, spans[-1].seq or 0
        batch = SpanBatch(spans, writer_id=self.journal.writer_id, first_seq=first, last_seq=last)
        self.worker.count_in(batch, journaled=True)
        return batch

    def close(self) -> None:
        self.worker.stop()
        self.lane.run(self.storage.close).result(30)
        self.lane.stop()
        self.lane.join(10)
        self.journal.close(remove=True)


def _cut(spans: Sequence[Span], size: int) -> Iterator[Sequence[Span]]:
    for at in range(0, len(spans), size):
        yield spans[at : at + size]


def add_check(server: Any) -> None:
    """Let the table refuse a name."""
    check = "ALTER TABLE llmops_spans ADD CONSTRAINT no_refused CHECK (name <> 'refused')"
    if isinstance(server, Postgres):
        server.server.sql(check)
    elif isinstance(server, Maria):
        from servers import mysql_statements

        asyncio.run(mysql_statements(server.server.url, check))
    elif isinstance(server, Click):
        from clickhouse_server import ClickHouse

        ClickHouse(server.url(server.port)).run(check)


@contextmanager
def storing(name: str) -> Iterator[Storing]:
    """Run a server and open its storage; the table refuses a name."""
    with running(name) as server, tempfile.TemporaryDirectory() as folder:
        made = Storing(make_storage(PluginHost(), server.url(server.port)), Path(folder))
        try:
            add_check(server)
            yield made
        finally:
            made.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=list(SERVERS), action="append")
    options = parser.parse_args()
    print("| storage | 1 in 1,000 | stored | aside | spans/s | of clean, wall | of clean, CPU |")
    print("|---|---|---|---|---|---|---|")
    for name in options.database or SERVERS:
        with storing(name) as part:
            part.round(WAYS["clean"])  # the first one makes connections, and reads what it needs
            found: dict[str, list[tuple[float, float, int, int]]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way, bad in WAYS.items():
                    found[way].append(part.round(bad))
        for way, rounds in found.items():
            pairs = list(zip(found["clean"], rounds, strict=True))
            wall = statistics.median(clean[0] / one[0] for clean, one in pairs)
            cpu = statistics.median(clean[1] / one[1] for clean, one in pairs)
            speed = SPANS / statistics.median(one[0] for one in rounds)
            stored, aside = (statistics.median(one[at] for one in rounds) for at in (2, 3))
            print(f"| {name} | {way} | {stored:.0f} | {aside:.0f} | {speed:,.0f} |"
                  f" {wall:.0%} | {cpu:.0%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
