"""A monitored process that is going to be killed. It tells an outside oracle what it does.

Lines on standard output, each one ``write`` of its own: ``ready``, then ``i RUN NS`` when a run has
ended on the host's thread, and ``j RUN RUN ...`` when the journal's write of them has returned.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from crash_payload import payload

from llmops_core import Monitor, Span
from llmops_core.journal.writer import Journal


def say(line: str) -> None:
    os.write(1, (line + "\n").encode())


def main(url: str, first_run: int, per_second: int, batch: int) -> None:
    append = Journal.append

    def told(self: Journal, spans: Sequence[Span]) -> int:
        size = append(self, spans)
        say("j " + " ".join(span.span_id for span in spans))
        return size

    Journal.append = told  # type: ignore[method-assign]
    say("ready")
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
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
