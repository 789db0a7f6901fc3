"""Writers, a compactor and readers on one folder at once, killed at random, against an oracle."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from crash_payload import payload
from kill import RUNS_PER_ROUND
from rows import Row

from llmops_core import Monitor, open_storage
from llmops_core.intake.tracer import span_id_of
from llmops_core.storage.parquet.compaction import Compactor

HERE = Path(__file__).parent
#: A shared machine may need so much longer, or twice as long, until each has done enough.
PATIENCE_SECONDS = 90.0


class Size(NamedTuple):
    """How many writers for how long, and how often the readers must have read all that there is."""

    writers: int
    seconds: int
    least_reads: int
    spans_per_second: int  # of each writer, which is a file a second
    spans_per_file: int


#: Eight write less each: what there is grows with them, and so does the time of a read.
LONG = (Size(2, 120, 200, 100, 100), Size(8, 600, 1_000, 10, 10))
SHORT = (Size(4, 10, 10, 100, 100),)


class Process:
    """A process whose lines are collected; it can be killed and begun again."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[bytes] = []
        self._process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()

    def _collect(self) -> None:
        for line in self._process.stdout or ():
            self.lines.append(line)

    def kill(self) -> str:
        """Kill it; return what it said on stderr, if it had ended by itself."""
        self._process.send_signal(signal.SIGKILL)
        _, errors = self._wait()
        return errors if self._process.returncode != -signal.SIGKILL else ""

    def _wait(self) -> tuple[str, str]:
        self._collector.join(30)
        errors = self._process.stderr.read().decode() if self._process.stderr else ""
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.wait()
        return "", errors


class Race:
    """One run: starts everything, kills now and then, and compares in the end."""

    def __init__(self, folder: Path, size: Size, seed: int) -> None:
        self.folder = folder
        self.size = size
        self.url = f"parquet:{folder}"
        self.rng = random.Random(seed)
        self.round = 0
        self.problems: list[str] = []
        self.ended: list[Process] = []
        self.kills = {"writer": 0, "compactor": 0}
        self.writers = [self._writer() for _ in range(size.writers)]
        while not list(folder.glob("*/*.parquet")):
            time.sleep(0.05)
        self.readers = [self._worker("read") for _ in range(3)]
        self.compactor = self._worker("compact")

    def _writer(self) -> Process:
        self.round += 1
        first = str(self.round * RUNS_PER_ROUND)
        script = str(HERE / "writer.py")
        pace = str(self.size.spans_per_second), str(self.size.spans_per_file)
        return Process(script, self.url, first, *pace)

    def _worker(self, what: str) -> Process:
        return Process(str(HERE / "disk_worker.py"), what, str(self.folder))

    def run(self) -> None:
        """Let them work; kill a writer or the compactor every few seconds."""
        self._wait_until_all_work()
        began, seconds = time.monotonic(), self.size.seconds
        deadline, latest = began + seconds, began + seconds + max(seconds, PATIENCE_SECONDS)
        # A busy machine may need longer until there was a race at all.
        while (now := time.monotonic()) < deadline or (not self._has_raced() and now < latest):
            time.sleep(self.rng.uniform(0.2, 3.0))
            at = self.rng.randrange(len(self.writers))
            # Whoever is killed while it starts has done nothing that could go wrong.
            if self.rng.random() < 0.5 and self.writers[at].lines:
                self._end(self.writers[at], "writer")
                self.writers[at] = self._writer()
            elif self.compactor.lines:
                self._end(self.compactor, "compactor")
                self.compactor = self._worker("compact")
        for process in (*self.writers, *self.readers, self.compactor):
            self._end(process)

    def _has_raced(self) -> bool:
        processes = [*self.ended, *self.readers, self.compactor]
        done = {line for process in processes for line in tuple(process.lines)} - {b"c 0\n"}
        merged = any(line[:2] == b"c " for line in done)
        return merged and self._reads() >= self.size.least_reads and min(self.kills.values()) > 0

    def _reads(self) -> int:
        """Return how often all was read; a reader that is killed in between has not read."""
        readers = [*self.ended, *self.readers]
        return sum(line[:2] == b"r " for reader in dict.fromkeys(readers) for line in reader.lines)

    def _wait_until_all_work(self) -> None:
        deadline = time.monotonic() + 60
        processes = [*self.writers, *self.readers, self.compactor]
        while not all(process.lines for process in processes) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _end(self, process: Process, what: str | None = None) -> None:
        errors = process.kill()
        if errors:
            self.problems.append(errors.strip().splitlines()[-1])
        self.ended.append(process)
        if what:
            self.kills[what] += 1

    def result(self, cell: str) -> Row:
        """Recover, compact once more, and hold what is stored against what the oracle saw."""
        with Monitor(self.url, compact="off") as monitor:
            monitor.flush(120)
        Compactor(self.folder, today=True, grace_seconds=1).run()
        lines = [line for process in self.ended for line in process.lines]
        self.problems += sorted({line.decode() for line in lines if line.startswith(b"bad")})
        reads = self._reads()
        merged = sum(int(line.split()[1]) for line in lines if line.startswith(b"c "))
        journaled = {i.decode() for line in lines if line[:2] == b"j " for i in line.split()[1:]}
        if lines and not journaled:
            self.problems.append("nothing was written")
        lost, doubled, wrong = self._compare(journaled, lines)
        fine = not (self.problems or lost or doubled or wrong) and merged > 0
        fine = fine and reads >= self.size.least_reads and min(self.kills.values()) > 0
        detail = (
            f"{len(journaled)} spans seen journaled, {lost} lost, {doubled} doubled, {wrong} wrong; "
            f"{merged} files merged, {reads} reads (at least {self.size.least_reads:,} are asked for), "
            f"{self.kills['writer']} writers and {self.kills['compactor']} compactors killed; "
            f"problems: {self.problems[:3] or 'none'}"
        )
        return Row("disk", "writers, readers and a compactor", cell, fine, detail)

    def _compare(self, journaled: set[str], lines: list[bytes]) -> tuple[int, int, int]:
        runs = {
            span_id_of(int(x[1])): int(x[1]) for x in map(bytes.split, lines) if x[:1] == [b"i"]
        }
        with open_storage(self.url) as storage:
            rows = storage.query(columns=["span_id", "kind", "input"]).to_pylist()
        ids = {row["span_id"] for row in rows}
        wrong = sum(
            row["input"] != payload(runs[row["span_id"]])
            for row in rows
            if row["kind"] == "llm" and row["input"] and row["span_id"] in runs
        )
        # A line that the kill cut off names an id in part, and no such span.
        whole = {span for span in journaled if len(span) == 16}
        return len(whole - ids), len(rows) - len(ids), wrong


def rows(quick: bool) -> Iterator[Row]:
    """Yield a row for two writers and one for eight; with the tests, one for four."""
    for size in SHORT if quick else LONG:
        seed = int(time.time())
        with tempfile.TemporaryDirectory() as folder:
            race = Race(Path(folder) / "data", size, seed)
            race.run()
            yield race.result(f"{size.writers} writers, {size.seconds} s, seed {seed}")
