"""How many spans a second MariaDB takes from the storage, beside ``LOAD DATA`` into the same table.

Each round starts with an empty table of the storage's own, with its indexes, and writes the same
spans in batches of 500, by the storage or as files that the server loads. CPU time of this process and
of a server that is started for it, which nobody else uses::

    python benchmarks/ingest_mariadb.py
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from llmops_core.batch import SpanBatch
from llmops_core.schema import COLUMNS
from llmops_core.span import Span
from llmops_core.storage.mysql import MySQLStorage
from llmops_core.testing import make_batch, make_span
from mariadb import MariaDB, missing

BATCH = 500
TICKS = 100  # of /proc/PID/stat, a second


def make_spans(count: int, chars: int) -> list[Span]:
    """Return spans as a chain of model calls makes them: two texts, ids, counts, attributes."""
    rng = random.Random(1)
    text = "lorem ipsum dolor sit amet, " * (chars // 28 + 1)
    return [
        make_span(
            at,
            span_id=f"{rng.getrandbits(64):016x}",
            trace_id=f"{at // 10:032x}",
            parent_id=f"{rng.getrandbits(64):016x}" if at % 10 else None,
            session_id=f"session-{at // 100}",
            framework="langchain",
            agent="writer",
            model="m-1",
            provider="openai",
            duration_ms=at / 7,
            input=f"{at:08} {text}"[:chars],
            output=f"{at:08} {text}"[:chars],
            input_size=chars,
            output_size=chars,
            input_hash=f"{rng.getrandbits(128):032x}",
            output_hash=f"{rng.getrandbits(128):032x}",
            content_mode="full",
            input_tokens=at % 999,
            output_tokens=at % 99,
            **{f"{side}_{what}": chars // by for side in ("input", "output")
               for what, by in (("chars", 1), ("words", 5), ("bytes", 1), ("lines", 80))},
            attributes={"langgraph.node": "write", "langgraph.step": str(at % 9)},
        )
        for at in range(count)
    ]  # fmt: skip


class Server:
    """A server, and the CPU seconds that it has used."""

    def __init__(self, folder: Path) -> None:
        self.mariadb = MariaDB(folder / "db", "--local-infile=1")
        self.mariadb.start()
        self.pid = int((folder / "db" / "pid").read_text())

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


async def by_storage(storage: MySQLStorage, batches: Sequence[SpanBatch], folder: Path) -> None:
    """Write the batches as the monitor does."""
    for batch in batches:
        await storage.write(batch)


async def by_load_data(storage: MySQLStorage, batches: Sequence[SpanBatch], folder: Path) -> None:
    """Write each batch as a file, and let the server load it."""
    path = folder / "batch.tsv"
    for batch in batches:
        columns = [c for c in COLUMNS if any(v is not None for v in batch.values(c.name))]
        values = [[_field(v) for v in batch.values(c.name)] for c in columns]
        path.write_text("".join("\t".join(row) + "\n" for row in zip(*values, strict=True)))
        names = ", ".join(f"`{c.name}`" for c in columns)
        async with storage._cursor() as cursor:
            await cursor.execute(
                f"LOAD DATA INFILE '{path}' INTO TABLE `{storage.url.table}`"
                f" CHARACTER SET utf8mb4 ({names})"
            )


def _field(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value if value.isalnum() else _escaped(value)
    return _escaped(msgspec.json.encode(value).decode()) if isinstance(value, dict) else str(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


async def one_round(server: Server, way: Any, spans: Sequence[Span], folder: Path) -> list[float]:
    """Return client, server and wall seconds of one way into an empty table."""
    storage = MySQLStorage(server.mariadb.url)
    await storage.open()
    batches = [make_batch(spans[at : at + BATCH]) for at in range(0, len(spans), BATCH)]
    for batch in batches:
        batch.plain_columns()  # as a batch comes: columns, not rows
    await asyncio.sleep(0.5)  # the server's own work of before
    client, wall, used = time.process_time(), time.perf_counter(), server.cpu()
    await way(storage, batches, folder)
    took = [time.process_time() - client, server.cpu() - used, time.perf_counter() - wall]
    async with storage._cursor() as cursor:
        await cursor.execute(f"SELECT COUNT(*) FROM `{storage.url.table}`")
        assert (await cursor.fetchone())[0] == len(spans)
    await storage.close()
    return took


def run(spans: int, rounds: int) -> int:
    """Measure both ways with short and with long texts; return an exit code."""
    why = missing()
    if why is not None:
        print(why)
        return 1
    ways = {"storage": by_storage, "LOAD DATA": by_load_data}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server reads the files
        server = Server(folder)
        try:
            for chars in (200, 2_000):
                made = make_spans(spans, chars)
                took: dict[str, list[list[float]]] = {way: [] for way in ways}
                for _ in range(rounds):
                    for way, write in ways.items():
                        server.mariadb.sql("DROP TABLE IF EXISTS test.llmops_spans")
                        took[way].append(asyncio.run(one_round(server, write, made, folder)))
                report(chars, took, spans)
        finally:
            server.mariadb.stop()
    return 0


def report(chars: int, took: dict[str, list[list[float]]], count: int) -> None:
    """Print medians in microseconds a span, and the throughput per CPU second as a share."""
    print(f"{chars:5} characters, CPU µs a span, median of {len(took['storage'])} rounds:")
    for way, rounds in took.items():
        client, server, wall = (
            statistics.median(r[at] for r in rounds) / count * 1e6 for at in range(3)
        )
        print(
            f"      {way:10} client {client:5.1f}  server {server:5.1f}  "
            f"both {client + server:5.1f}  (wall {wall:.0f})"
        )
    shares = [
        (b[0] + b[1]) / (a[0] + a[1])
        for a, b in zip(took["storage"], took["LOAD DATA"], strict=True)
    ]
    print(f"      throughput {statistics.median(shares):.0%} of LOAD DATA")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    raise SystemExit(run(options.spans, options.rounds))
