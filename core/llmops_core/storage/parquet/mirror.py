"""Compacts, deletes and replaces in an object store: on a copy of a day, here, whose changes are sent.

What is done to the copy is what is done to a folder. A new object's footer names what it replaces, so
readers go over to it when it appears; the old ones are deleted when nobody reads them any more.
Killed at any step, the store is readable, and the next compaction removes what is left over.

One process at a time changes objects below a prefix: whoever's name is in a small object there. A
store has no lock, so the name is written, and read again after a moment: of two that write it at
once, the later one stays.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmops_core.errors import RetryableError
from llmops_core.query import Filter, SpanQuery
from llmops_core.query.duckdb_engine import Cancellation, DuckEngine
from llmops_core.schema import arrow_schema
from llmops_core.storage.parquet.compaction import (
    CLOSED_SECONDS,
    CompactionReport,
    Compactor,
    Limits,
)
from llmops_core.storage.parquet.files import RangeFile, day_of, list_day
from llmops_core.storage.parquet.place import Place, store_errors
from llmops_core.storage.parquet.rewriting import Rewriter
from llmops_core.storage.parquet.sources import CompactedFiles

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.batch import SpanBatch

__all__ = ["Lease", "RemoteCompactor", "RemoteRewriter"]

LEASE_NAME: Final = ".compacting"
LEASE_SECONDS: Final = 300.0
_SETTLE_SECONDS: Final = 1.0
_LIMITS: Final = Limits()


class Lease:
    """Says who may change objects below a prefix, for as long as it is renewed."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._path = place.path("", LEASE_NAME).replace("//", "/")
        self._mine = secrets.token_hex(8)
        self._renewed = 0.0

    def take(self) -> None:
        """Take the lease, or raise ``RetryableError`` that names who has it."""
        holder = self._holder()
        if holder is not None and holder.get("id") != self._mine:
            raise _busy(self._place, holder)
        self._sign()
        time.sleep(_SETTLE_SECONDS)
        self.renew()

    def renew(self) -> None:
        """Make sure that it is ours still, and for a while."""
        holder = self._holder()
        if holder is None or holder.get("id") != self._mine:
            raise _busy(self._place, holder or {})
        if time.monotonic() - self._renewed > LEASE_SECONDS / 10:
            self._sign()

    def release(self) -> None:
        """Give the lease back, if it is ours."""
        holder = self._holder()
        if holder is not None and holder.get("id") == self._mine:
            self._place.remove(self._path)

    def _sign(self) -> None:
        told = {"id": self._mine, "pid": os.getpid(), "host": socket.gethostname()}
        self._place.put(
            self._path, json.dumps({**told, "until": time.time() + LEASE_SECONDS}).encode()
        )
        self._renewed = time.monotonic()

    def _holder(self) -> dict[str, Any] | None:
        content = self._place.read(self._path)
        try:
            holder = json.loads(content or b"null")
            alive = holder is not None and float(holder["until"]) > time.time()
        except (ValueError, TypeError, KeyError):
            return None
        return holder if alive else None


class _Changes:
    """A local copy of some objects of one day, and what became of them."""

    def __init__(self, place: Place, day: str, files: Sequence[RangeFile], folder: Path) -> None:
        self._place = place
        self._day = day
        self.folder = folder
        self._remote = {Path(f.path).name: f.path for f in files}
        (folder / day).mkdir(mode=0o700)
        for name, path in self._remote.items():
            place.fetch(path, folder / day / name)

    def send(self) -> list[str]:
        """Send what is new; return the objects that are replaced by it."""
        names = {Path(f.path).name for f in list_day(self.folder / self._day)}
        for name in sorted(names - self._remote.keys()):
            self._place.send(self.folder / self._day / name, self._place.path(self._day, name))
        return [path for name, path in self._remote.items() if name not in names]


class RemoteCompactor:
    """Merges the small objects of closed days. Run it a step at a time with :meth:`steps`."""

    def __init__(self, place: Place, *, today: bool, grace_seconds: float) -> None:
        self.report = CompactionReport()
        self._place = place
        self._today = today
        self._grace = grace_seconds
        self._footers = CompactedFiles(place.filesystem, place.list_day)

    def steps(self) -> Iterator[float]:
        """Do the work; each step yields the seconds to wait before the next.

        Raises ``RetryableError`` if another process works below this prefix.
        """
        lease = Lease(self._place)
        with store_errors(self._place.url.place):
            lease.take()
            try:
                old: list[str] = []
                for day in self._place.days():
                    lease.renew()
                    old += self._day(day)
                    yield 0.0
                if old:
                    yield self._grace
                    lease.renew()
                for path in old:
                    self._place.remove(path)
                    self.report.deleted += 1
            finally:
                lease.release()

    def _day(self, day: str) -> list[str]:
        """Compact a day; return what may be deleted once nobody reads it any more."""
        files = self._place.list_day(Path(day))
        visible = self._footers.visible(files)
        seen = {f.path for f in visible}
        hidden = [f.path for f in files if f.path not in seen]
        infos = {f.path: self._place.info(f.path) for f in visible}
        small = [f for f in visible if (infos[f.path].size or 0) < _LIMITS.file_bytes // 2]
        if len(small) < _LIMITS.least_files or not self._is_closed(day, list(infos.values())):
            return hidden
        with _folder() as folder:
            changes = _Changes(self._place, day, small, folder)
            work = Compactor(folder, today=True, alone=True)
            work.run()
            self._add(work.report)
            return hidden + changes.send()

    def _is_closed(self, day: str, infos: Sequence[Any]) -> bool:
        if self._today or day < dt.datetime.now(dt.UTC).date().isoformat():
            return True
        newest = max((i.mtime.timestamp() for i in infos if i.mtime is not None), default=0.0)
        return time.time() - newest > CLOSED_SECONDS

    def _add(self, done: CompactionReport) -> None:
        for name in ("days", "files_before", "files_after", "spans", "bytes_before", "bytes_after"):
            setattr(self.report, name, getattr(self.report, name) + getattr(done, name))
        for reason, count in done.left_alone.items():
            self.report.left_alone[reason] = self.report.left_alone.get(reason, 0) + count
        self.report.failed += done.failed


class RemoteRewriter:
    """Deletes or replaces spans in the objects that hold them, once. Blocks."""

    def __init__(
        self,
        place: Place,
        visible: Callable[[int | None], list[RangeFile]],
        answer: Callable[[SpanQuery, Cancellation], pa.Table],
        *,
        grace_seconds: float,
    ) -> None:
        self._place = place
        self._visible = visible
        self._answer = answer
        self._grace = grace_seconds

    def delete(self, query: SpanQuery) -> int:
        """Delete what *query* selects; return how many spans that were."""
        return self._rewrite(query, lambda rewriter: rewriter.delete(query))

    def replace(self, batch: SpanBatch) -> int:
        """Put the batch's spans in place of those with the same ids; return how many there were."""
        if not len(batch):
            return 0
        ids = tuple(dict.fromkeys(batch.values("span_id")))
        selection = SpanQuery(
            where=(Filter("span_id", "in", ids),), since=min(batch.values("start_time"))
        )
        return self._rewrite(selection, lambda rewriter: rewriter.replace(batch))

    def _rewrite(self, selection: SpanQuery, work: Callable[[Rewriter], int]) -> int:
        if not self._days(selection):
            return 0
        lease = Lease(self._place)
        lease.take()
        try:
            count, old = 0, []
            for day in self._days(selection):
                lease.renew()
                files = [f for f in self._visible(selection.since) if f.day == day]
                with _folder() as folder:
                    changes = _Changes(self._place, day, files, folder)
                    count += work(_local_rewriter(folder, day))
                    old += changes.send()
            if old:
                time.sleep(self._grace)
                lease.renew()
            for path in old:
                self._place.remove(path)
        finally:
            lease.release()
        return count

    def _days(self, selection: SpanQuery) -> list[str]:
        """Return the days whose objects hold a selected span."""
        import pyarrow as pa

        query = msgspec.structs.replace(selection, columns=("end_time",))
        ends = self._answer(query, Cancellation())["end_time"].cast(pa.int64())
        return sorted({day_of(end) for end in ends.to_pylist()})


def _local_rewriter(folder: Path, day: str) -> Rewriter:
    footers = CompactedFiles()

    def snapshot(since: int | None) -> tuple[pa.Table, list[RangeFile]]:
        return arrow_schema().empty_table(), footers.visible(list_day(folder / day))

    return Rewriter(folder, DuckEngine(folder), snapshot, footers, alone=True)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="llmops-") as name:
        yield Path(name)


def _busy(place: Place, holder: dict[str, Any]) -> RetryableError:
    who = (
        f"process {holder['pid']} on {holder['host']}"
        if {"pid", "host"} <= set(holder)
        else "another"
    )
    return RetryableError(
        f"{who} changes objects at {place.url.place} already",
        "expected one at a time",
        f"try later; a dead one's claim ends after {LEASE_SECONDS:.0f} s",
    )
