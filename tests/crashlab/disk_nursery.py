"""Forks a child for each small run, warm, so that a tracer sees nothing but the run itself.

For each line ``MODE FOLDER`` on standard input it prints the child's pid, waits for ``go``, and prints
what the child said and how it ended, as JSON. What a child says goes through a socket, whose calls no
tracer here interferes with.

``small``: journal, seal, write, compact, on one thread and in one order. ``monitor``: a whole monitor.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from llmops_core import Monitor
from llmops_core.intake import thread as intake_module
from llmops_core.journal import writer as journal_module
from llmops_core.journal.writer import Journal
from llmops_core.schema import import_arrow
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.storage.parquet import compaction as compaction_module
from llmops_core.testing import make_batch, make_span

Say = Callable[[str], None]
WRITER = "019abcdef"


def small(folder: Path, say: Say) -> None:
    """Three ranges of one writer, a compaction of the first two, and its journal, until it goes."""
    journal = Journal(folder / ".journal", WRITER, max_bytes=2**30)
    storage = ParquetStorage(folder)

    async def store(first: int) -> None:
        spans = [make_span(1_000 + first + n) for n in range(4)]
        batch = make_batch(spans, writer_id=WRITER, first_seq=first)
        journal.append(batch.rows)
        say("journaled " + " ".join(s.span_id for s in batch.rows))
        journal.seal(batch.first_seq, batch.last_seq)
        await storage.write(batch)
        journal.mark_stored(batch.first_seq, batch.last_seq)

    async def work() -> None:
        await storage.open()
        await store(1)
        await store(5)
        journal.replace_open([make_span(2_000, outcome="incomplete")])
        journal.replace_state(b"{}")
        compaction_module.Compactor(folder, grace_seconds=0).run()
        await store(9)
        journal.replace_open([])
        journal.close(remove=True)

    asyncio.run(work())
    say("done")


def monitor(folder: Path, say: Say) -> None:
    """A monitored program; says what it saw of us: nothing, and a ledger that is exact."""
    compaction_module.LEAST_GRACE_SECONDS = 0.0  # type: ignore[misc]
    monitor = Monitor(f"parquet:{folder}", batch_size=5, flush_interval_seconds=0.05)
    say("opened")
    for run in range(1, 21):
        monitor.recorder.start(run, None, {"kind": "llm", "name": "m"})
        if run % 5 == 0:
            monitor.flush(0.5)  # in the middle of a span, which the file of open spans then has
        monitor.recorder.end(run, None, {"outcome": "ok"})
    monitor.close(1.0)
    say("stats " + json.dumps({n: monitor.stats()[n] for n in ("events", "spans")}))


def child(mode: str, folder: Path, go: int, out: socket.socket) -> None:
    os.read(go, 1)
    try:
        {"small": small, "monitor": monitor}[mode](
            folder, lambda line: out.sendall(f"{line}\n".encode())
        )
    except BaseException as error:
        out.sendall(f"raised {type(error).__name__}: {error}\n".encode())


def raise_child(mode: str, folder: Path) -> None:
    go, start = os.pipe()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        child(mode, folder, go, theirs)
        os._exit(0)
    theirs.close()
    os.close(go)
    print(pid, flush=True)
    sys.stdin.readline()
    os.write(start, b"g")
    os.close(start)
    said = b""
    while part := ours.recv(65536):
        said += part
    ours.close()
    _, status = os.waitpid(pid, 0)
    result = {"lines": said.decode().splitlines(), "status": os.waitstatus_to_exitcode(status)}
    print(json.dumps(result), flush=True)


def hasten() -> None:
    """Let a small run do what else takes megabytes or seconds: drop segments, replace files."""
    journal_module.SEGMENT_BYTES = 1024  # type: ignore[misc]
    intake_module.HOUSEKEEPING_SECONDS = 0.02  # type: ignore[misc]
    intake_module.OPEN_FILE_SECONDS = 0.02  # type: ignore[misc]


if __name__ == "__main__":
    import_arrow()
    hasten()
    compaction_module.LEAST_GRACE_SECONDS = 0.0  # type: ignore[misc]
    for line in iter(sys.stdin.readline, ""):
        mode_, _, folder_ = line.strip().partition(" ")
        raise_child(mode_, Path(folder_))
