"""A monitored process that is going to be killed. It tells an outside oracle what it does.

Lines on standard output, each one ``write`` of its own: ``ready``, then ``i RUN NS`` when a run has
ended on the host's thread, and ``j RUN RUN ...`` when the journal's write of them has returned. With
``outages`` the storage is down most of the time and hardly anything fits into memory; ``b`` is a
range that was read back from the journal.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

from crash_payload import payload

from llmops_core import Monitor, Span, SpanBatch
from llmops_core.delivery import storing
from llmops_core.journal.writer import Journal
from llmops_core.storage.parquet import ParquetStorage


def say(line: str) -> None:
    os.write(1, (line + "\n").encode())


class Outages(ParquetStorage):
    """Refuses most writes, before or after it has made them."""

    async def write(self, batch: SpanBatch) -> None:
        draw = random.random()
        if draw < 0.3:
            raise ConnectionError("down")
        await super().write(batch)
        if draw < 0.5:
            raise ConnectionError("the answer was lost")


def with_outages(folder: str) -> Monitor:
    read_range = Journal.read_range

    def told(self: Journal, first: int, last: int) -> list[Span]:
        say("b")
        return read_range(self, first, last)

    Journal.read_range = told  # type: ignore[method-assign]
    storing.FIRST_RETRY_SECONDS = 0.05  # type: ignore[misc]
    return Monitor(
        Outages(folder), batch_size=100, flush_interval_seconds=0.05, backlog_bytes=65_536
    )


def main(url: str, first_run: int, per_second: int, batch: int, outages: bool) -> None:
    append = Journal.append_records

    def told(self: Journal, spans: Sequence[Any], first_seq: int, last_seq: int) -> int:
        size = append(self, spans, first_seq, last_seq)
        say("j " + " ".join(span[0] for span in spans))  # the span id is the first column
        return size

    Journal.append_records = told  # type: ignore[method-assign]
    say("ready")
    if outages:
        monitor = with_outages(url.removeprefix("parquet:"))
    else:
        monitor = Monitor(url, batch_size=batch, flush_interval_seconds=0.1)
    recorder = monitor.recorder
    started, run = time.monotonic(), first_run
    while True:
        root = run
        recorder.start(root, None, {"kind": "workflow", "name": "root", "session_id": "s"})
        for child in range(root + 1, root + 4):
            text = recorder.freeze(payload(child))
            recorder.start(child, root, {"kind": "llm", "name": "m", "input": text})
            recorder.end(child, root, {"outcome": "ok"})
            say(f"i {child} {time.monotonic_ns()}")
        recorder.end(root, None, {"outcome": "ok"})
        say(f"i {root} {time.monotonic_ns()}")
        run += 4
        ahead = (run - first_run) / per_second - (time.monotonic() - started)
        if ahead > 0:
            time.sleep(ahead)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:5]]
    main(sys.argv[1], *numbers, outages=sys.argv[5:] == ["outages"])
