"""A journal whose folder is deleted, renamed or replaced while its writer lives."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops_core import Monitor, SpanBatch
from llmops_core.journal import writer as journal_module
from llmops_core.journal.format import segments
from llmops_core.journal.recovery import RecoveryReport, recover, writers
from llmops_core.journal.state import read_state
from llmops_core.journal.writer import Journal
from llmops_core.storage.memory import MemoryStorage
from llmops_core.testing import make_span

WRITER = "w1"


def append(journal: Journal, first: int, last: int, size: int = 10) -> None:
    for seq in range(first, last + 1):
        journal.append(
            [make_span(seq, seq=seq, writer_id=WRITER, trace_id="f" * 32, input="x" * size)]
        )


def recovered(root: Path) -> tuple[list[int], RecoveryReport]:
    """Return the numbers that a recovery of what lies below *root* stores."""
    found: list[int] = []

    async def write(batch: SpanBatch) -> None:
        found.extend(span.seq or 0 for span in batch.rows)

    report = asyncio.run(recover(root, write))
    return found, report


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Three full segments and one that is written to, of 40 spans that nobody has stored."""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 5_000)
    made = Journal(tmp_path / "data" / ".journal", WRITER, max_bytes=2**30)
    append(made, 1, 40, size=300)
    assert len(segments(made.folder)) > 3
    return made


def rename_root(journal: Journal) -> None:
    journal.folder.parent.rename(journal.folder.parent.with_name("elsewhere"))


def rename_storage(journal: Journal) -> None:
    data = journal.folder.parent.parent
    data.rename(data.with_name("elsewhere"))


def rename_folder(journal: Journal) -> None:
    journal.folder.rename(journal.folder.with_name("elsewhere"))


def unlink_lock(journal: Journal) -> None:
    (journal.folder / "lock").unlink()


@pytest.mark.parametrize("take", [rename_root, rename_storage, rename_folder, unlink_lock])
def test_a_renamed_folder_is_made_again_with_all_that_it_held(
    journal: Journal, take: Callable[[Journal], None], tmp_path: Path
) -> None:
    take(journal)
    append(journal, 41, 41)
    assert [s.seq for s in journal.read_range(1, 41)] == list(range(1, 42)), "before it is noticed"
    assert journal.keep_place()
    assert not journal.keep_place(), "once"
    assert (journal.gone, journal.remade) == (False, 1)
    assert (journal.folder, True) in writers(journal.folder.parent)
    append(journal, 42, 42)
    assert [s.seq for s in journal.read_range(1, 42)] == list(range(1, 43))
    journal.release()  # the process dies
    for root in {folder.parent for folder in tmp_path.rglob("elsewhere")} - {tmp_path}:
        assert recovered(root / "elsewhere")[0] == [], "what was moved is not left behind too"
    assert recovered(journal.folder.parent)[0] == list(range(1, 43))


@pytest.mark.parametrize("up", [0, 1, 2])
def test_of_a_deleted_folder_the_segment_that_is_written_to_comes_back(
    journal: Journal, up: int
) -> None:
    folder = journal.folder
    data = segments(folder)[-1].read_bytes()
    gone = [seq for seq in range(1, 41) if f"{seq:016x}".encode() not in data]
    for _ in range(up):
        folder = folder.parent
    shutil.rmtree(folder)
    append(journal, 41, 41)
    assert journal.keep_place()
    append(journal, 42, 42)
    left = [seq for seq in range(1, 43) if seq not in gone]
    assert 0 < len(gone) < 40
    assert [s.seq for s in journal.read_range(1, 42)] == left
    for path in (journal.folder, journal.folder.parent, journal.folder.parent.parent):
        assert path.stat().st_mode & 0o077 == 0
    journal.release()
    assert recovered(journal.folder.parent)[0] == left


def test_a_deleted_segment_alone_is_written_anew(journal: Journal) -> None:
    segments(journal.folder)[-1].unlink()
    assert journal.keep_place()
    journal.release()
    assert recovered(journal.folder.parent)[0] == list(range(1, 41))
    assert list(journal.folder.parent.iterdir()) == []


def test_what_lies_on_another_file_system_is_copied(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename_root(journal)
    real, refused = os.rename, []

    def across(*arguments: str, **folders: int) -> None:
        if len(set(folders.values())) == 2:
            refused.append(arguments)
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(*arguments, **folders)

    monkeypatch.setattr(os, "rename", across)
    assert journal.keep_place()
    monkeypatch.undo()
    assert refused, "the fault really happened"
    journal.release()
    assert recovered(journal.folder.parent.with_name("elsewhere"))[0] == []
    assert recovered(journal.folder.parent)[0] == list(range(1, 41))


def test_while_it_cannot_be_made_nothing_is_called_journaled_and_then_all_goes_on(
    journal: Journal,
) -> None:
    root = journal.folder.parent
    shutil.rmtree(root)
    root.write_text("a file")
    for _ in range(2):
        with pytest.raises(FileExistsError if root.is_dir() else NotADirectoryError):
            journal.keep_place()
        assert journal.gone
        with pytest.raises(FileNotFoundError):
            append(journal, 41, 41)
    journal.seal(39, 40)  # what is in memory may be stored all the same
    journal.mark_stored(39, 40)
    root.unlink()
    assert journal.keep_place()
    append(journal, 42, 42)
    journal.release()
    found, report = recovered(root)
    assert found[-2:] == [38, 42]
    assert report.already_stored == 2


def test_a_folder_of_ours_that_was_put_back_from_a_copy_is_left_alone(
    journal: Journal, tmp_path: Path
) -> None:
    shutil.copytree(journal.folder, tmp_path / "copy")
    shutil.rmtree(journal.folder)
    shutil.move(tmp_path / "copy", journal.folder)
    with pytest.raises(OSError, match="not empty"):
        journal.keep_place()
    assert journal.gone


def test_a_file_system_whose_files_change_their_numbers_is_no_loss(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "samestat", lambda one, other: False)
    assert not journal.keep_place()
    append(journal, 41, 41)
    assert not journal.keep_place()
    journal.release()
    assert recovered(journal.folder.parent)[0] == list(range(1, 42))


def test_a_journal_without_a_folder_closes_without_a_trace(journal: Journal) -> None:
    root = journal.folder.parent
    shutil.rmtree(root)
    root.write_text("a file")
    with pytest.raises(OSError, match="Not a directory"):
        journal.keep_place()
    before = open_files()
    journal.close(remove=True)
    assert open_files() == before - 3
    assert root.read_text() == "a file"


class Failing(MemoryStorage):
    """A storage that cannot be written to, and says nothing of where journals lie."""

    volatile = False

    async def write(self, batch: SpanBatch) -> None:
        raise ConnectionError


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_monitor_journals_on_where_its_state_folder_was_deleted_and_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llmops_core.intake.thread.OPEN_FILE_SECONDS", 0.05)
    monkeypatch.setattr("llmops_core.intake.thread.HOUSEKEEPING_SECONDS", 0.05)
    state = tmp_path / "state"
    monkeypatch.setenv("LLMOPS_STATE_DIR", str(state))
    monitor = Monitor(Failing(), shutdown_seconds=0.1)
    place = Path(monitor.stats()["journal"]["path"])
    for run in (1, 2):
        monitor.recorder.start(run, None, {"kind": "tool", "name": f"t{run}"})
        monitor.recorder.end(run, None, {"outcome": "ok"})
        wait_for(lambda: monitor.stats()["spans"]["journaled"] == run)  # noqa: B023
        if run == 1:
            shutil.rmtree(state)
            wait_for(lambda: bool(monitor.stats()["journal"]["remade"]))
    wait_for(lambda: read_state(place).get("journal") == {"remade": 1})
    assert monitor.stats()["failures"]["journal.place: FileNotFoundError"] == 1
    monitor.close(0.1)
    assert monitor.stats()["spans"]["journaled"] == 2
    names: list[str] = []

    async def write(batch: SpanBatch) -> None:
        names.extend(span.name for span in batch.rows)

    assert asyncio.run(recover(place.parent, write)).writers == 1
    assert names == ["t1", "t2"]
    assert sum("journal failed in place" in message for message in caplog.messages) == 1
