"""A lock of a file neither outlives its holder in a forked child, nor is waited for without an end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmops_core import Filter, Monitor, RetryableError, SpanBatch, SpanQuery
from llmops_core import pipeline as pipeline_module
from llmops_core.journal.lock import FileLock, is_locked
from llmops_core.journal.recovery import recover, writers
from llmops_core.journal.writer import Journal
from llmops_core.storage.memory import MemoryStorage
from llmops_core.storage.parquet import ParquetStorage
from llmops_core.storage.parquet import lock as lock_module
from llmops_core.storage.parquet.files import ALONE_NAME
from llmops_core.storage.parquet.lock import writing
from llmops_core.testing import make_batch, make_span

#: A child that lives until the test ends it. ``libc`` forks as an extension does: without Python's hooks.
FORK = """
import asyncio, ctypes, os, signal, sys, time
from pathlib import Path
root, how = Path(sys.argv[1]), sys.argv[2]
children = []
def fork():
    child = os.fork() if how == "python" else ctypes.PyDLL(None).fork()
    if child == 0:
        os.close(1)
        os.close(2)
        time.sleep(60)
        os._exit(0)
    children.append(child)
    print(child, flush=True)
"""
BY_ALL_MEANS = pytest.mark.parametrize("how", ["python", "libc"])


def run(root: Path, how: str, body: str) -> Iterator[subprocess.CompletedProcess[str]]:
    """Run a program that forks; its children live until the generator is closed."""
    command = [sys.executable, "-c", FORK + body, str(root), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    try:
        yield done
    finally:
        for child in done.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


def died(root: Path) -> Path:
    """Leave the journal of a dead writer with ten spans; return its folder."""
    journal = Journal(root, "w1", max_bytes=2**30)
    journal.append(make_batch([make_span(at) for at in range(10)], writer_id="w1").rows)
    journal.release()
    return journal.folder


@BY_ALL_MEANS
def test_a_journal_that_is_recovered_during_a_fork_is_recovered_again_while_the_child_lives(
    tmp_path: Path, how: str
) -> None:
    died(tmp_path)
    body = """
from llmops_core.journal.recovery import recover
async def refuse(batch):
    fork()
    raise OSError("no")
async def take(batch):
    pass
first = asyncio.run(recover(root, refuse))
assert len(first.failed) == 1, first
second = asyncio.run(recover(root, take))
assert (second.spans, second.skipped_living) == (10, 0), second
"""
    for done in run(tmp_path, how, body):
        assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_child_keeps_no_journal_for_living_whose_recoverer_was_killed(tmp_path: Path) -> None:
    folder = died(tmp_path)
    body = """
from llmops_core.journal.recovery import recover
async def die(batch):
    fork()
    time.sleep(0.5)  # so that the child has begun
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(recover(root, die))
"""
    stored: list[SpanBatch] = []

    async def take(batch: SpanBatch) -> None:
        stored.append(batch)

    for done in run(tmp_path, "python", body):
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert list(writers(tmp_path)) == [(folder, False)]
        assert asyncio.run(recover(tmp_path, take)).spans == 10


@BY_ALL_MEANS
@pytest.mark.parametrize("alone", [False, True])
def test_a_fork_while_a_folder_is_written_to_blocks_no_writer_and_no_deletion(
    tmp_path: Path, how: str, alone: bool
) -> None:
    body = f"""
from llmops_core.storage.parquet import lock
lock.WRITING_SECONDS = 2.0
with lock.writing(root, alone={alone}):
    fork()
with lock.writing(root, alone=True):
    pass
with lock.writing(root):
    pass
"""
    for done in run(tmp_path, how, body):
        assert done.returncode == 0, done.stderr
        with writing(tmp_path, alone=True):
            pass


@pytest.mark.parametrize("alone", [False, True])
def test_a_child_that_is_forked_while_a_folder_is_locked_does_not_give_the_lock_away(
    tmp_path: Path, alone: bool
) -> None:
    # What the child leaves is the rest of a block that its parent is still in.
    body = f"""
from llmops_core.storage.parquet import lock
with lock.writing(root, alone={alone}):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        try:
            lock.FileLock(os.open(root, os.O_RDONLY))
        except BlockingIOError:
            sys.exit(0)
        sys.exit("it is free")
"""
    for done in run(tmp_path, "python", body):
        assert done.returncode == 0, done.stderr


def test_a_folder_that_stays_locked_is_told_instead_of_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "WRITING_SECONDS", 0.1)
    batch = make_batch([make_span(1)], writer_id="w1")
    lock = FileLock(os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(RetryableError, match="has been locked for"):
        asyncio.run(ParquetStorage(tmp_path).write(batch))
    lock.release()
    asyncio.run(ParquetStorage(tmp_path).write(batch))


# ---- one who wants a folder alone, beside writers ----


class NotYetError(Exception):
    """A writer was to wait; in these tests it gives up."""


class Time:
    """Stands for ``time``: what is slept passes at once, after *meanwhile* was called."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.now = 0.0
        self._meanwhile = meanwhile

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._meanwhile()


def give_up() -> None:
    raise NotYetError


def begun(folder: Path) -> contextlib.ExitStack:
    """Begin to write, if that needs no waiting; close what is returned to be done."""
    waiting, lock_module.time = lock_module.time, Time(give_up)  # type: ignore[assignment]
    try:
        with contextlib.ExitStack() as held, contextlib.suppress(NotYetError):
            held.enter_context(writing(folder))
            return held.pop_all()
    finally:
        lock_module.time = waiting
    return contextlib.ExitStack()


def test_writers_whose_turns_overlap_let_one_in_who_wants_the_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [begun(tmp_path)]

    def relieve() -> None:  # there is no moment at which nobody writes, unless the next one waits
        running.append(begun(tmp_path))
        running.pop(0).close()

    monkeypatch.setattr(lock_module, "time", Time(relieve))
    for _ in range(2):  # the second time the file is there
        with writing(tmp_path, alone=True), pytest.raises(BlockingIOError):
            FileLock(os.open(tmp_path, os.O_RDONLY), shared=True)
        running.append(begun(tmp_path))
    monkeypatch.setattr(lock_module, "time", Time(give_up))
    with writing(tmp_path):
        """They go on."""


def test_one_who_is_stopped_before_it_has_the_folder_holds_no_writer_back_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = FileLock(os.open(tmp_path / ALONE_NAME, os.O_RDWR | os.O_CREAT))
    time = Time(lambda: None)
    monkeypatch.setattr(lock_module, "time", time)
    with writing(tmp_path):
        assert 0 < time.now < lock_module.WRITING_SECONDS
    with writing(tmp_path, alone=True):  # nor another one, who asks for the folder all the same
        """It was free."""
    stopped.release()


def test_one_who_is_killed_before_it_has_the_folder_holds_no_writer_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
from types import SimpleNamespace
from llmops_core.storage.parquet import lock
def die(seconds):
    fork()
    time.sleep(0.5)  # so that the child has begun
    os.kill(os.getpid(), signal.SIGKILL)
with lock.writing(root):
    lock.time = SimpleNamespace(monotonic=time.monotonic, sleep=die)
    with lock.writing(root, alone=True):
        pass
"""
    for done in run(tmp_path, "python", body):
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (tmp_path / ALONE_NAME).exists()
        monkeypatch.setattr(lock_module, "time", Time(give_up))
        with writing(tmp_path), writing(tmp_path):
            """Nobody is waited for."""


def test_a_deletion_works_where_no_file_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / ALONE_NAME).symlink_to("elsewhere")  # refused, as by a full disk
    with writing(tmp_path, alone=True), pytest.raises(BlockingIOError):
        FileLock(os.open(tmp_path, os.O_RDONLY), shared=True)
    with writing(tmp_path):
        """Nobody is waited for."""


def test_what_a_deletion_leaves_in_the_folder_is_no_data(tmp_path: Path) -> None:
    async def delete_one() -> list[int]:
        storage = ParquetStorage(tmp_path)
        await storage.open()
        await storage.write(make_batch([make_span(1), make_span(2)], writer_id="w1"))
        deleted = await storage.delete(SpanQuery(where=(Filter("name", "=", "span-1"),)))
        left = await storage.query(SpanQuery())
        await storage.close()
        return [deleted, left.num_rows]

    assert asyncio.run(delete_one()) == [1, 1]
    assert (tmp_path / ALONE_NAME).stat().st_size == 0
    assert not [path for path in tmp_path.glob("**/*.parquet") if "events_" not in path.name]


def test_asking_for_a_lock_leaves_it_free(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert not is_locked(tmp_path / "lock")
    lock = FileLock(os.open(tmp_path / "lock", os.O_RDWR))
    assert is_locked(tmp_path / "lock")
    lock.release()
    assert not lock.held
    assert not is_locked(tmp_path / "lock")


def test_a_recovery_that_failed_is_tried_until_the_journal_is_gone_also_where_another_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "FIRST_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(pipeline_module, "LAST_AGAIN_SECONDS", 0.01)
    folder = died(tmp_path)
    others: list[FileLock] = []
    found_locked, stored = threading.Event(), threading.Event()

    class Shaky(MemoryStorage):
        volatile = False
        journal_root = tmp_path

        async def write(self, batch: SpanBatch) -> None:
            if not others:  # and another one comes before the next try
                asyncio.get_running_loop().call_soon(lock_it)
                raise OSError("no")
            await super().write(batch)
            stored.set()

    def lock_it() -> None:
        others.append(FileLock(os.open(folder / "lock", os.O_RDWR)))

    monkeypatch.setattr(pipeline_module, "recover", _telling(found_locked))
    with Monitor(Shaky()):
        assert found_locked.wait(20)
        others[0].release()
        assert stored.wait(20), "it gave up"


def _telling(found_locked: threading.Event):  # type: ignore[no-untyped-def]
    """Return a recovery that says when it left a journal alone that somebody holds."""

    async def told(*args, **settings):  # type: ignore[no-untyped-def]
        report = await recover(*args, **settings)
        if report.skipped_living > 1:  # one is the monitor's own
            found_locked.set()
        return report

    return told
