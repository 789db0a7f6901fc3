"""A small run that is killed at each of its system calls, or told at each that it failed.

Needs ``strace``. The calls are those that change what is on disk, and the opening of files. A run is
forked from a warm process and traced from its first step on.
"""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from rows import Row

from llmops_core import open_storage
from llmops_core.journal.recovery import recover
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.storage.parquet import compaction as compaction_module
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.store import Store

HERE = Path(__file__).parent
#: A journal reaches its files through the descriptor of its folder, with the calls that end in "at".
#: A question mark is for the machines on which a call does not exist.
NAMES = (
    "write", "pwrite64", "openat", "?open", "?creat", "?mkdir", "?mkdirat", "?rmdir", "fsync", "flock",
    "?rename", "?renameat", "?renameat2", "?unlink", "?unlinkat", "truncate", "ftruncate",
)  # fmt: skip
CALLS = ",".join(NAMES)
#: Those of a monitor that are told that they failed.
FAILING = (
    "write", "openat", "fsync", "ftruncate", "mkdir", "flock",
    "rename", "renameat", "unlink", "unlinkat", "rmdir",
)  # fmt: skip
#: Some runs under a tracer take seconds here; one that takes so long has hung.
RUN_SECONDS = 60.0
OLD_FILES, OLD_ROWS = 3, 4


class Nursery:
    """Runs one forked child after another under a tracer."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "disk_nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what is counted is logged too
            text=True,
        )

    def run(self, mode: str, folder: Path, *injected: str) -> tuple[dict[str, Any], str]:
        """Run a child with some injections; return what came of it, and the trace."""
        pid = int(self._ask(f"{mode} {folder}"))
        trace = folder.parent / "trace"
        command = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={CALLS}", "-p", str(pid)]
        for inject in injected:
            command += ["-e", f"inject={inject}"]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
        _wait_for_tracer(tracer, pid)
        hung = threading.Event()
        # The child is the nursery's, which says how it ended only afterwards: the pid is still its.
        limit = threading.Timer(RUN_SECONDS, _end, (pid, hung))
        limit.start()
        try:
            result = json.loads(self._ask("go"))
        finally:
            limit.cancel()
        tracer.communicate()
        if hung.is_set():
            result |= {"status": f"hung for {RUN_SECONDS:.0f} s"}
        return result, trace.read_text()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _wait_for_tracer(tracer: subprocess.Popen[bytes], pid: int) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        if tracer.poll() is not None:
            raise RuntimeError(f"strace: {tracer.communicate()[1].decode()}")
        if time.monotonic() > deadline:
            tracer.kill()
            raise RuntimeError(f"strace: not attached after {RUN_SECONDS:.0f} s")
        time.sleep(0.001)


def _end(pid: int, hung: threading.Event) -> None:
    hung.set()
    os.kill(pid, signal.SIGKILL)


def prepared(folder: Path) -> Path:
    """Return a folder with some small files of a closed day."""
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    store = Store(ParquetStorage(data))
    for file in range(OLD_FILES):
        spans = [make_span(file * OLD_ROWS + n) for n in range(OLD_ROWS)]
        batch = make_batch(spans, writer_id=f"old{file}", first_seq=1)
        store.run(store.storage.write(batch))
    store.close()
    return data


def ids_of(folder: Path) -> list[str]:
    with open_storage(f"parquet:{folder}") as storage:
        return [str(i) for i in storage.query(columns=["span_id"])["span_id"].to_pylist()]


def check(folder: Path, journaled: set[str]) -> str:
    """Return what is wrong at once, and after a recovery and a compaction; empty if nothing is."""
    expected = journaled | {f"{n:016x}" for n in range(OLD_FILES * OLD_ROWS)}
    for when in ("at once", "after a recovery", "after another compaction"):
        if when == "after a recovery":
            store = Store(ParquetStorage(folder))
            report = asyncio.run(recover(folder / ".journal", store.storage.write))
            store.close()
            if report.failed:
                return f"recovery failed: {report.failed}"
        elif when == "after another compaction":
            report_ = compaction_module.Compactor(folder, grace_seconds=0).run()
            if report_.failed:
                return f"compaction failed: {report_.failed}"
        ids = ids_of(folder)
        if len(ids) != len(set(ids)):
            return f"{len(ids) - len(set(ids))} doubled {when}"
        if not expected <= set(ids):
            return f"{len(expected - set(ids))} lost {when}"
    if len(list(folder.glob("2026-01-01/*"))) != 1:
        return "something was left over"
    return ""


def counts(trace: str) -> Counter[str]:
    """Count the calls of a trace by name."""
    return Counter(re.findall(r"^\d+ +(\w+)\(", trace, re.MULTILINE))


def kills(nursery: Nursery, folder: Path, quick: bool) -> Iterator[Row]:
    """Kill the run at its first, second, ... call of each kind."""
    data = prepared(folder)
    result, trace = nursery.run("small", data)
    problem = "" if result["lines"][-1:] == ["done"] else f"unharmed: {result}"
    calls, done, bad = counts(trace), 0, [problem] if problem else []
    for call, count in sorted(calls.items()):
        step = max(1, count // 2) if quick else 1
        for at in range(1, count + 1, step):
            data = prepared(folder)
            result, _ = nursery.run("small", data, f"{call}:signal=KILL:when={at}")
            done += result["status"] == -9
            journaled = {
                i
                for line in result["lines"]
                if line.startswith("journaled")
                for i in line.split()[1:]
            }
            hung = isinstance(result["status"], str)
            problem = result["status"] if hung else check(data, journaled)
            if problem:
                bad.append(f"{call} {at}: {problem}")
    detail = f"{done} kills at {sum(calls.values())} calls of {len(calls)} kinds; {bad[:3] or 'none'} wrong"
    yield Row(
        "disk", "killed at a system call", "write, seal, compact", not bad and done > 0, detail
    )


def errors(nursery: Nursery, folder: Path, quick: bool) -> Iterator[Row]:
    """Let each call of a monitor fail once, or from then on; its ledgers must stay exact."""
    kinds = ("ENOSPC",) if quick else ("ENOSPC", "EIO", "EINTR", "EMFILE")
    for error in kinds:
        felt: Counter[str] = Counter()
        bad = []
        for call in FAILING:
            # A journal is cut back only where a write of it has failed.
            first = ("write:error=ENOSPC:when=1..40",) if call == "ftruncate" else ()
            for when in whens(error, quick):
                data = prepared(folder)
                inject = f"{call}:error={error}:when={when}"
                result, trace = nursery.run("monitor", data, *first, inject)
                felt[call] += _was_injected(call, trace)
                problem = ledger(result)
                if problem:
                    bad.append(f"{call} {when}: {problem}")
        bad += [f"{call}: never made" for call in FAILING if not felt[call]]
        detail = f"{felt.total()} runs with a call that failed; wrong: {bad[:3] or 'none'}"
        yield Row("disk", "a system call fails", error, not bad, detail)


def _was_injected(call: str, trace: str) -> bool:
    return re.search(rf"\b{call}(\(| resumed>).*\(INJECTED\)", trace) is not None


def whens(error: str, quick: bool) -> tuple[str, ...]:
    """Return at which of a thread's calls an error comes."""
    if error == "EINTR":
        # A signal that comes again for ever is none: Python repeats a call until it comes no more.
        return ("1", "1..9", "2", "2..9", "3", "5", "8", "8..19")
    return ("1", "2+") if quick else ("1", "1+", "2", "2+", "3", "3+", "5", "8", "8+")


def ledger(result: dict[str, Any]) -> str:
    """Return what is wrong with the end of a monitored program; empty if nothing is."""
    lines = result["lines"]
    if "opened" not in lines:
        # Set-up may raise, but only what set-up raises.
        raised = lines[0] if lines else f"status {result['status']}"
        return "" if _is_of_setup(raised) else raised
    if result["status"] != 0 or not lines[-1].startswith("stats "):
        return f"{lines[-1]} (status {result['status']})"
    stats = json.loads(lines[-1].removeprefix("stats "))
    events, spans = stats["events"], stats["spans"]
    received = events["consumed"] + events["queued"] + sum(events["dropped"].values())
    made = sum(spans[n] for n in ("stored", "queued", "journaled", "quarantined"))
    made += sum(spans["dropped"].values()) + sum(spans["skipped"].values())
    if events["received"] != 40 or events["received"] != received:
        return f"events {events}"
    return "" if spans["made"] == made == 20 else f"spans {spans}"


def _is_of_setup(raised: str) -> bool:
    """Whether what was raised is a ``StorageError``, or what the system said of its call."""
    found = re.match(r"raised (\w+)", raised)
    kind = getattr(builtins, found[1], None) if found else None
    of_system = isinstance(kind, type) and issubclass(kind, OSError)
    return of_system or raised.startswith("raised StorageError")


def rows(quick: bool) -> Iterator[Row]:
    """Yield a row for the kills, and one for each error."""
    if shutil.which("strace") is None:
        yield Row(
            "disk", "killed at a system call", "write, seal, compact", False, "no strace here"
        )
        return
    compaction_module.LEAST_GRACE_SECONDS = 0.0  # type: ignore[misc]
    nursery = Nursery()
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from kills(nursery, Path(folder), quick)
            yield from errors(nursery, Path(folder), quick)
    finally:
        nursery.close()
        compaction_module.LEAST_GRACE_SECONDS = 1.0  # type: ignore[misc]
