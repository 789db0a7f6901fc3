"""The oracle's view of a monitored program: what it recorded, journaled and logged, and its memory."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from outage_servers import until

HERE = Path(__file__).parent
PER_SECOND = 500
MEGABYTE = 2**20


class Program:
    """One process of ``outage_program.py``, from its start to its end."""

    def __init__(self, url: str, state: Path, first_run: int, deadline: float) -> None:
        self.issued: list[int] = []
        self.journaled: set[str] = set()
        self.log: list[str] = []
        self.rss_peak = 0
        self.journal_peak = 0
        self._state = state
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ready = threading.Event()
        # Where it cannot start it says why on stderr, which is ours.
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(HERE / "outage_program.py"), url),
                *(str(first_run), str(PER_SECOND), str(deadline)),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "LLMOPS_STATE_DIR": str(state)},
        )  # fmt: skip
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()
        if not self._ready.wait(120):
            self.kill()
            raise RuntimeError("the program did not start")

    def ask(self, word: str = "stats") -> dict[str, Any]:
        """Say a word, and return the ledgers."""
        self._say(word)
        found: dict[str, Any] = json.loads(self._answers.get(timeout=130))
        return found

    def flush(self) -> bool:
        """Wait until all is stored; return whether it is."""
        self._say("flush")
        return self._answers.get(timeout=200) == "1"

    def end(self) -> int:
        """Let it leave as a program does; return its exit code."""
        self._say("end")
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait(60)
        self._over()
        return code

    def kill(self) -> None:
        """Kill it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._over()

    def settle_memory(self) -> int:
        """Return the memory that it has needed until now, and look for a new peak from here on."""
        peak, self.rss_peak, self.journal_peak = self.rss_peak, 0, 0
        return peak

    def logged(self, text: str) -> int:
        """Return how many lines of the log contain a text."""
        return sum(text in line for line in self.log)

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def _over(self) -> None:
        self._reading.join()
        self._watching.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, _, rest = line.rstrip("\n").partition(" ")
            if not line.endswith("\n"):
                break  # it was killed within this line
            if what == "i":
                self.issued.append(int(rest))
            elif what == "j":
                self.journaled.update(rest.split())
            elif what == "l":
                self.log.append(rest)
            elif what in ("s", "f"):
                self._answers.put(rest)
            elif what == "ready":
                self._ready.set()

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while self._process.poll() is None:
            try:
                text = status.read_text()
            except OSError:
                return
            kilobytes = text.partition("VmRSS:")[2].split()[:1]
            if kilobytes:  # none of one that has just ended
                self.rss_peak = max(self.rss_peak, int(kilobytes[0]) * 1024)
            self.journal_peak = max(self.journal_peak, _journal_bytes(self._state))
            time.sleep(0.1)


def _journal_bytes(state: Path) -> int:
    total = 0
    for path in state.rglob("*.log"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def drain(program: Program, before: int) -> tuple[float, float, int]:
    """Wait until a program has caught up.

    Return how long the first span took, how many a second it stored from there on, and the backlog.
    """
    samples: list[tuple[float, int]] = []

    def sample() -> dict[str, Any]:
        spans: dict[str, Any] = program.ask()["spans"]
        samples.append((time.monotonic(), spans["stored"]))
        return spans

    resumed = until(lambda: sample()["stored"] > before, every=0.05)
    began, first = samples[-1]
    backlog = 0

    def caught_up() -> bool:
        nonlocal backlog
        spans = sample()
        waiting = spans["journaled"] + spans["queued"]
        backlog = backlog or waiting
        return bool(waiting <= 3 * PER_SECOND)  # ClickHouse is given a batch every two seconds

    until(caught_up, seconds=600, every=0.05)
    ended, last = samples[-1]
    rate = (last - first) / max(ended - began, 1e-9)
    return resumed, rate, backlog
