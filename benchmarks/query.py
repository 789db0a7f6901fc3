"""How long queries take over many spans: on Parquet beside bare DuckDB, and on PostgreSQL.

Makes spans in traces of ten (two of 200 characters each, ten days), as files of 5,000 spans, and asks
for p50, p95 and sums of tokens by operation; then compacts them, and asks again, and for one tree by
its id and the newest page of traces with their sums. Milliseconds of CPU of this process and of the
database's; beside it the wall clock's, which a busy machine makes longer::

    python benchmarks/query.py
    python benchmarks/query.py --traces 20000 --storages parquet

10,000,000 spans take some ten minutes to make and 5 GB of disk, in PostgreSQL as long again and 15 GB.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import private_servers
import query_data
from query_postgres import fill

from llmops_core import StorageReader, open_storage
from llmops_core.storage.parquet.compaction import Compactor

DAYS: Final = 10
#: What a tree shows of a span but its texts.
COLUMNS: Final = (
    "span_id", "trace_id", "parent_id", "agent_span_id", "kind", "name", "agent", "outcome",
    "error_type", "start_time", "end_time", "duration_ms", "input_tokens", "output_tokens",
)  # fmt: skip
OPERATIONS: Final = """
    SELECT kind, name, count(*), quantile_cont(duration_ms, 0.5), quantile_cont(duration_ms, 0.95),
           sum(input_tokens), sum(output_tokens)
    FROM read_parquet($files) GROUP BY ALL ORDER BY ALL
"""
TOTALS: Final = ("count", "sum:input_tokens", "sum:output_tokens")


class Took(NamedTuple):
    """Milliseconds of one query: of CPU on average, of the wall clock at best and in the middle."""

    cpu: float
    best: float
    median: float

    def __str__(self) -> str:
        return f"{self.cpu:8,.0f} CPU  {self.best:8,.0f} best  {self.median:8,.0f} median"


def took(work: Callable[[], Any], rounds: int, cpu: Callable[[], float] = lambda: 0.0) -> Took:
    """Do *work* once to warm up, then so many times."""
    work()
    walls = []
    used = time.process_time() + cpu()
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        walls.append((time.perf_counter() - began) * 1e3)
    used = (time.process_time() + cpu() - used) * 1e3 / rounds
    return Took(used, min(walls), statistics.median(walls))


# ---- queries ----


def operations(reader: StorageReader) -> Any:
    """Ask for each operation's percentiles and tokens."""
    return reader.query(
        group_by=["kind", "name"],
        aggregates=["count", "p50:duration_ms", "p95:duration_ms", *TOTALS[1:]],
    )


def page(reader: StorageReader) -> Any:
    """Ask for the newest traces and their sums, as ``llmops traces`` does."""
    roots = reader.query(where=[("parent_id", "is null")], columns=COLUMNS, limit=20)
    sums = reader.query(
        where=[("trace_id", "in", roots["trace_id"].to_pylist())],
        group_by=["trace_id"],
        aggregates=TOTALS,
    )
    assert sums.num_rows == roots.num_rows
    return sums


class Trees:
    """Asks for one tree after the other, spread over all times: none is in a cache."""

    def __init__(self, reader: StorageReader, ids: Iterator[str]) -> None:
        self._reader = reader
        self._ids = ids

    def bare(self) -> None:
        """Ask for a tree without its texts."""
        found = self._reader.query(trace_id=next(self._ids), columns=COLUMNS, order=["start_time"])
        assert found.num_rows == query_data.SPANS_A_TRACE

    def whole(self) -> None:
        """Ask for a tree with all that is stored."""
        assert len(self._reader.trace(next(self._ids))) == query_data.SPANS_A_TRACE


def some_ids(traces: int, step: int) -> Iterator[str]:
    """Return ids all over the place."""
    for number in itertools.count(1):
        yield query_data.trace_id(number * 7_919 % traces, step)


# ---- what is measured ----


def by_operation(title: str, folder: Path, rounds: int, goal: float) -> None:
    """Compare the operations' query to the same in bare DuckDB, in turns."""
    connection = duckdb.connect()
    connection.execute("SET threads=4")
    files = sorted(map(str, folder.glob("*/*.parquet")))

    def bare() -> Any:
        return connection.execute(OPERATIONS, {"files": files}).fetchall()

    with open_storage(f"parquet:{folder}") as reader:
        assert operations(reader).num_rows == len(bare())
        pairs = [(took(lambda: operations(reader), 1), took(bare, 1)) for _ in range(rounds)]
    ours, theirs = (
        Took(*(statistics.median(values) for values in zip(*side, strict=True)))
        for side in zip(*pairs, strict=True)
    )
    ratio = statistics.median(a.cpu / b.cpu for a, b in pairs)
    print(f"{title}, {len(files):,} files, p50/p95/tokens by operation")
    print(f"    bare DuckDB      {theirs}")
    print(f"    ours             {ours}   {ratio:.2f} x (goal {goal})")


def by_trace(
    title: str, url: str, ids: Iterator[str], rounds: int, cpu: Callable[[], float]
) -> None:
    """Measure single trees and the newest page."""
    print(title)
    with open_storage(url) as reader:
        trees = Trees(reader, ids)
        for name, work, goal in (
            ("one tree", trees.bare, 60),
            ("with contents", trees.whole, 150),
            ("page with sums", lambda: page(reader), 200),
        ):
            print(f"    {name:16} {took(work, rounds, cpu)}   (goal {goal})")


def parquet(folder: Path, traces: int, rounds: int) -> None:
    """Measure on Parquet, before and after a compaction."""
    folder = folder / "parquet"
    step = query_data.step_of(traces, DAYS)
    began = time.process_time()
    spans = 0
    for spans in query_data.write_files(folder, traces, DAYS):  # noqa: B007
        pass
    print(f"{spans:,} spans written in {time.process_time() - began:,.0f} s of CPU", flush=True)
    by_operation("Parquet", folder, rounds, 2)
    began = time.process_time()
    report = Compactor(folder, today=True, alone=True).run()
    assert not report.failed, report.failed
    print(f"compacted in {time.process_time() - began:,.0f} s of CPU", flush=True)
    by_operation("Parquet, compacted", folder, rounds, 1.3)
    title = f"Parquet, compacted, {traces:,} traces"
    by_trace(title, f"parquet:{folder}", some_ids(traces, step), 3 * rounds, lambda: 0.0)


def postgresql(folder: Path, traces: int, rounds: int) -> None:
    """Measure on a PostgreSQL of one's own, with the settings that it comes with."""
    step = query_data.step_of(traces, DAYS)
    with private_servers.postgres(folder / "db", *private_servers.HASTY) as server:
        began = server.cpu()
        for _ in fill(server.url, traces, step):
            pass
        print(f"PostgreSQL filled in {server.cpu() - began:,.0f} s of CPU", flush=True)
        title = f"PostgreSQL, {traces:,} traces"
        by_trace(title, server.url, some_ids(traces, step), 10 * rounds, server.cpu)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=1_000_000, help="of ten spans each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where there is space; the system's, for a while, if not")
    parser.add_argument("--storages", nargs="+", default=["parquet", "postgresql"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmops-bench-", dir=options.folder) as name:
        for storage, measure in (("parquet", parquet), ("postgresql", postgresql)):
            if storage in options.storages:
                try:
                    measure(Path(name), options.traces, options.rounds)
                except private_servers.Missing as why:
                    print(why)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
