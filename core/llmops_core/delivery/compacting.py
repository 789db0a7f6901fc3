"""Merges small files while nothing is written: for storages that have a ``compaction``.

It runs on the storage's own thread, a short step at a time, and gives way at once when there is
something to write: then it merges no more, and only deletes what it has replaced. A program that
ends before it was ever idle pays nothing but a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from llmops_core.delivery.storing import StoreWorker
from llmops_core.errors import LLMOpsError
from llmops_core.failures import Failures

__all__ = ["IdleCompaction"]

#: Nothing was written for so long: the application has time.
IDLE_SECONDS: Final = 20.0
#: When to look again after a compaction, and after one that failed.
AGAIN_SECONDS: Final = 600.0
_TOTALS: Final = (
    "files_before",
    "files_after",
    "spans",
    "bytes_before",
    "bytes_after",
    "deleted",
    "swept",
)


class _Compaction(Protocol):
    @property
    def report(self) -> Any: ...

    def steps(self) -> Iterator[float]: ...

    # One that leaves something to be cleared up also has finish(): the steps after it do no more than that.


class IdleCompaction:
    """Runs a storage's compaction when it is idle. ``run`` on its lane, the rest on any thread."""

    def __init__(
        self, storage: object, store: StoreWorker, setting: str, failures: Failures
    ) -> None:
        make: Callable[[], _Compaction] | None = getattr(storage, "compaction", None)
        self._make = make if setting == "idle" and callable(make) else None
        self._store = store
        self._failures = failures
        self._state = "waiting" if self._make else "off"
        self._stopped = False
        #: How often another process was found at it.
        self.refused = 0
        self._runs = self._interrupted = self._failed = 0
        self._totals = dict.fromkeys(_TOTALS, 0)

    @property
    def wanted(self) -> bool:
        """Whether there is anything to run."""
        return self._make is not None

    def stop(self) -> None:
        """Stop after the step that runs."""
        self._stopped = True

    def stats(self) -> dict[str, Any]:
        """Return whether it works (``waiting``, ``working``, ``off``) and what it has done."""
        return {
            "state": self._state,
            "runs": self._runs,
            "interrupted": self._interrupted,
            "refused": self.refused,
            "failed": self._failed,
            **self._totals,
        }

    async def run(self) -> None:
        """Wait until the storage is idle, compact, and so on until stopped."""
        await asyncio.sleep(IDLE_SECONDS)
        while not self._stopped:
            left = IDLE_SECONDS - self._store.idle_seconds()
            if left > 0:
                await asyncio.sleep(max(left, IDLE_SECONDS / 20))
                continue
            wait = AGAIN_SECONDS
            try:
                self._state = "working"
                if not await self._compact():
                    wait = IDLE_SECONDS
            except LLMOpsError:
                self.refused += 1  # another process does it
            except Exception as error:
                self._failed += 1
                self._failures.report("compaction", "step", error)
            finally:
                self._state = "waiting"
            await asyncio.sleep(wait)

    async def _compact(self) -> bool:
        """Compact to the end; return False if there was something to write instead."""
        assert self._make is not None  # noqa: S101 - for the type checker: `wanted` was asked
        compaction = self._make()
        finish: Callable[[], None] | None = getattr(compaction, "finish", None)
        steps, finishing = compaction.steps(), False
        try:
            while True:
                began = time.monotonic()
                wait = next(steps, None)
                if wait is None:
                    self._runs += not finishing
                    return not finishing
                # As long a pause as the step was: the machine is the application's.
                await asyncio.sleep(max(wait, min(time.monotonic() - began, 1.0)))
                wanted = self._stopped or self._store.idle_seconds() < IDLE_SECONDS
                if wanted and not finishing:
                    self._interrupted += 1
                    if finish is None:
                        return False
                    finish()
                    finishing = True
                if self._stopped:
                    return False
        finally:
            steps.close()  # type: ignore[attr-defined]
            self._account(compaction.report)

    def _account(self, report: Any) -> None:
        for name in _TOTALS:
            self._totals[name] += getattr(report, name, 0)
        for failed in getattr(report, "failed", ()):
            self._failed += 1
            self._failures.report("compaction", "day", RuntimeError(failed))
