"""Kill a writer again and again, and look from outside at what is lost, doubled or unreadable.

Run it by hand with ``python tests/crashlab/kill.py --kills 100``; the tests run it too. The oracle
(this process) is never faulted: it counts as journaled what the writer told it through the pipe
after the journal's write had returned.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from crash_payload import payload
from rows import Row

from llmops_core import Monitor, open_storage
from llmops_core.intake.tracer import span_id_of

HERE = Path(__file__).parent
RUNS_PER_ROUND = 1_000_000
#: How old the oldest span is that is not in the journal yet. Not asked among the tests.
MAX_MEDIAN_AGE_MS = 50


@dataclass
class Seen:
    """What the oracle has seen."""

    journaled: set[str] = field(default_factory=set)
    issued: dict[str, int] = field(default_factory=dict)
    ages_ms: list[float] = field(default_factory=list)
    kills: int = 0
    read_back: int = 0


class Reader(threading.Thread):
    """Reads all the time: every query must work, and no file may be unreadable."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.stopping = threading.Event()
        self.reads = 0
        self.footers = 0
        self.problems: list[str] = []
        self._known: set[Path] = set()

    def run(self) -> None:
        """Query and check until told to stop."""
        while not self.stopping.is_set():
            if not self.folder.is_dir():
                time.sleep(0.02)
                continue
            try:
                with open_storage(f"parquet:{self.folder}") as storage:
                    while not self.stopping.wait(0.05):
                        self._read(storage)
            except Exception as error:
                self.problems.append(f"{type(error).__name__}: {error}")
                return

    def _read(self, storage: object) -> None:
        table = storage.query(columns=["span_id"])  # type: ignore[attr-defined]
        ids = table["span_id"].to_pylist()
        self.reads += 1
        if len(ids) != len(set(ids)):
            self.problems.append(f"{len(ids) - len(set(ids))} spans twice in one read")
        self._check_files()

    def _check_files(self) -> None:
        import pyarrow.parquet as pq

        for path in set(self.folder.glob("*/*.parquet")) - self._known:
            pq.read_metadata(path)
            self._known.add(path)
            self.footers += 1


def one_round(url: str, number: int, seen: Seen, rng: random.Random, outages: bool) -> None:
    """Start a writer, let it work for a random time, kill it, and note what was under way."""
    first = (number + 1) * RUNS_PER_ROUND
    command = [sys.executable, str(HERE / "writer.py"), url, str(first), "2000", "200"]
    command += ["outages"] if outages else []
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    ready = writer.stdout.readline()
    if ready != b"ready\n":
        raise RuntimeError(f"the writer did not start: {writer.communicate()[1].decode()}")
    lines: list[bytes] = []
    working = threading.Event()

    def collect() -> None:
        for line in writer.stdout or ():
            lines.append(line)
            working.set()

    collector = threading.Thread(target=collect)
    collector.start()
    # One in five dies while it opens or recovers, the others at work.
    if rng.random() > 0.2:
        working.wait(30)
    time.sleep(rng.uniform(0.0, 2.0 if outages else 0.8))
    os.kill(writer.pid, signal.SIGKILL)
    killed_ns = time.monotonic_ns()
    code = writer.wait()
    collector.join()
    stderr = writer.stderr.read().decode() if writer.stderr else ""
    writer.stdout.close()
    if writer.stderr:
        writer.stderr.close()
    if code != -signal.SIGKILL:
        raise RuntimeError(f"the writer ended by itself ({code}): {stderr}")
    seen.kills += 1
    _note(lines, killed_ns, seen)


def _note(lines: list[bytes], killed_ns: int, seen: Seen) -> None:
    issued: dict[str, int] = {}
    journaled: set[str] = set()
    for line in lines:
        what, *rest = line.split()
        if what == b"i" and len(rest) == 2 and line.endswith(b"\n"):
            issued[span_id_of(int(rest[0]))] = int(rest[1])
            seen.issued[span_id_of(int(rest[0]))] = int(rest[0])
        elif what == b"j" and line.endswith(b"\n"):
            journaled.update(text.decode() for text in rest)
    seen.read_back += lines.count(b"b\n")
    seen.journaled |= journaled
    waiting = [ns for span, ns in issued.items() if span not in journaled]
    age = (killed_ns - min(waiting)) / 1e6 if waiting else 0.0
    if issued:
        seen.ages_ms.append(max(0.0, age))
    print(
        f"kill {seen.kills}: {len(issued)} ended, {len(journaled)} journaled, "
        f"oldest not yet journaled {age:.1f} ms old",
        flush=True,
    )


@dataclass
class Result:
    """What came of it."""

    kills: int
    journaled: int
    stored: int
    lost: int
    doubled: int
    wrong: int
    reads: int
    footers: int
    read_back: int
    problems: list[str]
    median_age_ms: float
    max_age_ms: float

    def __str__(self) -> str:
        return (
            f"{self.kills} kills: {self.journaled} spans seen journaled, {self.stored} stored, "
            f"{self.lost} lost, {self.doubled} doubled, {self.wrong} wrong; "
            f"{self.reads} reads and {self.footers} files checked meanwhile, "
            f"{self.read_back} ranges read back from a journal, "
            f"{len(self.problems)} problems; oldest span not yet journaled at a kill: "
            f"median {self.median_age_ms:.1f} ms, max {self.max_age_ms:.1f} ms"
        )


def run(folder: Path, kills: int, seed: int, *, outages: bool = False) -> Result:
    """Kill *kills* writers of one folder, start once more, and compare."""
    url, rng, seen = f"parquet:{folder}", random.Random(seed), Seen()
    reader = Reader(folder)
    reader.start()
    for number in range(kills):
        one_round(url, number, seen, rng, outages)
    with Monitor(url) as monitor:
        monitor.flush(60)
    reader.stopping.set()
    reader.join(30)
    return _compare(url, seen, reader)


def _compare(url: str, seen: Seen, reader: Reader) -> Result:
    with open_storage(url) as storage:
        table = storage.query(columns=["span_id", "kind", "outcome", "input"])
    rows = table.to_pylist()
    ids = [row["span_id"] for row in rows]
    wrong = 0
    for row in rows:
        run_id = seen.issued.get(row["span_id"])
        if row["kind"] == "llm" and row["input"] and run_id is not None:
            wrong += row["input"] != payload(run_id)
    return Result(
        kills=seen.kills,
        journaled=len(seen.journaled),
        stored=len(ids),
        lost=len(seen.journaled - set(ids)),
        doubled=len(ids) - len(set(ids)),
        wrong=wrong,
        reads=reader.reads,
        footers=reader.footers,
        read_back=seen.read_back,
        problems=reader.problems,
        median_age_ms=statistics.median(seen.ages_ms) if seen.ages_ms else 0.0,
        max_age_ms=max(seen.ages_ms, default=0.0),
    )


def lab(quick: bool) -> Iterator[Row]:
    """Yield a row for the kills of a working writer, and one for kills while it catches up."""
    for outages, kills in ((False, 20 if quick else 100), (True, 5 if quick else 20)):
        seed = int(time.time())
        with tempfile.TemporaryDirectory() as folder:
            result = run(Path(folder) / "data", kills, seed, outages=outages)
        scenario = "kill -9 while the storage fails" if outages else "kill -9 under load"
        bad = result.lost or result.doubled or result.wrong or result.problems
        bad = bad or (not outages and not quick and result.median_age_ms > MAX_MEDIAN_AGE_MS)
        yield Row("kills", scenario, f"seed {seed}", not bad, str(result))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; exit 1 if anything was lost, doubled, wrong or unreadable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--outages", action="store_true", help="the storage fails now and then")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder) / "data", options.kills, options.seed, outages=options.outages)
    print(result)
    return int(bool(result.lost or result.doubled or result.wrong or result.problems))


if __name__ == "__main__":
    raise SystemExit(main())
