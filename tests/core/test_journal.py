"""The journal gives back what was written to it, past any damage."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_core import Monitor
from llmops_core.journal import segment as segment_module
from llmops_core.journal import writer as journal_module
from llmops_core.journal.folder import WriterFolder
from llmops_core.journal.format import (
    Damage,
    Range,
    encode_range,
    encode_spans,
    encode_stored,
    read_records,
    segments,
)
from llmops_core.journal.ranges import Ranges
from llmops_core.journal.recovery import writers
from llmops_core.journal.writer import Journal, new_writer_id
from llmops_core.span import Span


def span(seq: int, text: str = "hello") -> Span:
    return Span(
        span_id=f"{seq:016x}",
        trace_id=f"{seq:032x}",
        kind="llm",
        name="m",
        outcome="ok",
        start_time=seq,
        end_time=seq + 1,
        input=text,
        seq=seq,
        writer_id="w",
    )


def open_journal(root: Path, max_bytes: int = 2**30) -> Journal:
    return Journal(root, new_writer_id(), max_bytes=max_bytes)


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append([span(1), span(2)])
    journal.append([span(3)])
    assert [s.seq for s in journal.read_range(2, 10)] == [2, 3]
    assert journal.read_range(1, 1) == [span(1)]
    assert journal.read_range(4, 9) == []


@given(
    records=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    first=st.integers(0, 70),
    length=st.integers(0, 40),
)
def test_any_range_is_read_back_from_its_segments(
    tmp_path_factory: pytest.TempPathFactory, records: list[int], first: int, length: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journal_module, "SEGMENT_BYTES", 3_000)
        patched.setattr(segment_module, "MARK_BYTES", 700)
        journal = open_journal(tmp_path_factory.mktemp("j"))
        seq = 0
        for count in records:
            journal.append([span(seq + at) for at in range(1, count + 1)])
            journal.seal(seq + 1, seq + count)
            seq += count
        found = [s.seq for s in journal.read_range(first, first + length)]
        journal.close(remove=True)
    assert found == [q for q in range(1, seq + 1) if first <= q <= first + length]


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "j")
    journal.append([span(1)])
    journal.replace_open([span(2)])
    assert stat.S_IMODE(journal.folder.stat().st_mode) == 0o700
    for path in journal.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_living_writer_is_seen_as_living_from_its_first_moment(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    assert list(writers(tmp_path)) == [(journal.folder, True)]
    journal.close(remove=False)
    assert list(writers(tmp_path)) == [(journal.folder, False)]


def test_segments_that_are_stored_throughout_go_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2_000)
    journal = open_journal(tmp_path)
    for seq in range(1, 31):
        journal.append([span(seq, "x" * 500)])
    before = len(segments(journal.folder))
    assert before > 3
    journal.mark_stored(1, 10)
    journal.replace_open([])
    assert before > len(segments(journal.folder)) > 1
    assert [s.seq for s in journal.read_range(11, 100)] == list(range(11, 31))
    journal.mark_stored(11, 30)
    journal.replace_open([])
    assert len(segments(journal.folder)) == 1


def test_the_cap_is_seen(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, max_bytes=64 * 1024)
    assert not journal.full
    journal.append([span(1, "x" * 70_000)])
    assert journal.full


def test_a_failed_write_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path)
    journal.append([span(1)])
    real, calls = os.write, []

    def half(descriptor: int, data: bytes) -> int:
        calls.append(1)
        if len(calls) == 1:
            return real(descriptor, bytes(data)[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        journal.append([span(2)])
    assert len(calls) == 2, "the fault really happened"
    monkeypatch.undo()
    journal.append([span(3)])
    damage = Damage()
    data = segments(journal.folder)[0].read_bytes()
    assert [s.seq for r in read_records(data, 0, damage) for s in r.spans] == [1, 3]
    assert damage.records == 0


def fail_to_open(monkeypatch: pytest.MonkeyPatch, ending: str, calls: list[str]) -> None:
    real = os.open

    def full(path: str | Path, *arguments: int, **more: int) -> int:
        if str(path).endswith(ending):
            calls.append(str(path))
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", full)


def test_segments_go_even_if_the_file_of_open_spans_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2_000)
    journal, calls = open_journal(tmp_path), []
    journal.replace_open([span(1)])
    for seq in range(1, 31):
        journal.append([span(seq, "x" * 500)])
    journal.mark_stored(1, 30)
    fail_to_open(monkeypatch, ".open.tmp", calls)
    with pytest.raises(OSError, match="No space"):
        journal.replace_open([span(31)])
    assert calls, "the fault really happened"
    assert len(segments(journal.folder)) == 1
    assert not (journal.folder / "open").exists(), "span 1 would be stored again by a recovery"


def test_no_segment_goes_while_a_stale_file_of_open_spans_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2_000)
    journal = open_journal(tmp_path)
    journal.replace_open([span(1)])
    for seq in range(1, 31):
        journal.append([span(seq, "x" * 500)])
    journal.mark_stored(1, 30)
    before = segments(journal.folder)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="Input/output"):
        journal.replace_open([])
    assert segments(journal.folder) == before


def test_a_full_disk_is_freed_of_what_is_stored_and_the_numbers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2_000)
    journal = open_journal(tmp_path)
    for seq in (1, 2, 3):
        journal.append([span(seq, "x" * 3_000)])
    journal.mark_stored(1, 3)
    calls = []

    def full(descriptor: int, data: bytes) -> int:
        calls.append(data)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for _ in range(3):
            journal.reap()
    assert calls, "the fault really happened"
    data = [path.read_bytes() for path in segments(journal.folder)]
    assert sum(map(len, data)) < 200
    notes = [r for d in data for r in read_records(d, 0, Damage())]
    assert max(note.range for note in notes) == (1, 3)
    journal.append([span(4)])
    assert [s.seq for s in journal.read_range(1, 9)] == [4]


def test_a_segment_whose_half_record_stays_is_written_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(tmp_path)
    journal.append([span(1)])
    real = os.write

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    def half(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", broken)
        return real(descriptor, bytes(data)[:20])

    monkeypatch.setattr(os, "ftruncate", broken)
    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="Input"):
        journal.append([span(2)])
    monkeypatch.undo()
    journal.append([span(3)])
    assert [seqs(path.read_bytes(), Damage()) for path in segments(journal.folder)] == [[1], [3]]


def test_a_segment_that_cannot_be_followed_by_a_new_one_grows_and_that_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 2_000)
    monkeypatch.setattr("llmops_core.intake.thread.OPEN_FILE_SECONDS", 0.05)
    make = WriterFolder.open

    def only_the_first(self: WriterFolder, name: str, flags: int) -> int:
        if name.endswith(".log") and name != "000001.log":
            raise OSError(errno.EMFILE, "Too many open files")
        return make(self, name, flags)

    monkeypatch.setattr(WriterFolder, "open", only_the_first)
    with Monitor(f"parquet:{tmp_path}") as monitor:
        deadline = time.monotonic() + 30
        for run in range(1, 10_000):
            monitor.recorder.start(run, None, {"kind": "tool", "name": "x" * 500})
            monitor.recorder.end(run, None, {})
            if "journal.rotate: OSError" in monitor.stats()["failures"]:
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert monitor.flush(30).complete
        assert monitor.stats()["spans"]["stored"] == run
        assert monitor.stats()["journal"]["bytes"] > 2_000


def test_a_closed_journal_writes_nothing_more(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append([span(1)])
    journal.close(remove=False)
    before = list(journal.folder.iterdir())
    with pytest.raises(OSError, match="closed"):
        journal.mark_stored(1, 1)
    with pytest.raises(OSError, match="closed"):
        journal.reap()
    assert list(journal.folder.iterdir()) == before


def test_closing_with_everything_stored_leaves_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append([span(1)])
    journal.replace_open([span(2)])
    journal.close(remove=True)
    assert list(tmp_path.iterdir()) == []


RECORDS = [encode_spans([span(1), span(2)]), encode_range(1, 2), encode_stored(1, 2)] + [
    encode_spans([span(seq)]) for seq in range(3, 9)
]
DATA = b"".join(RECORDS)


def seqs(data: bytes, damage: Damage) -> list[int | None]:
    return [s.seq for r in read_records(data, 0, damage) for s in r.spans]


@given(cut=st.integers(0, len(DATA)))
def test_a_torn_tail_costs_only_itself(cut: int) -> None:
    damage = Damage()
    got = seqs(DATA[:cut], damage)
    end = 0
    whole: list[int | None] = []
    for record in RECORDS:
        if end + len(record) > cut:
            break
        end += len(record)
        whole = seqs(DATA[:end], Damage())
    assert got == whole
    assert damage.records == 0, "a living writer may be in the middle of it"


@given(where=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7), extra=st.binary(max_size=40))
def test_a_damaged_byte_costs_one_record_and_never_raises(
    where: int, bit: int, extra: bytes
) -> None:
    data = bytearray(DATA)
    data[where] ^= 1 << bit
    got = seqs(bytes(data) + extra, Damage())
    missing = set(range(1, 9)) - {s for s in got if s is not None}
    assert len(missing) <= 2, "the first record holds two spans"
    assert got == sorted(s for s in got if s is not None)


PAIRS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=12)


@given(some=PAIRS, others=PAIRS, window=st.tuples(st.integers(0, 41), st.integers(0, 41)))
def test_ranges_are_a_set_of_numbers(some: list[Range], others: list[Range], window: Range) -> None:
    def numbers(ranges: Iterable[Range]) -> set[int]:
        return {n for first, last in ranges for n in range(first, last + 1)}

    ranges = Ranges(some)
    assert numbers(ranges) == numbers(some) == {n for n in range(50) if n in ranges}
    assert len(ranges) == len(numbers(some))
    assert numbers(ranges.within(*window)) == numbers(some) & numbers([window])
    assert numbers(ranges.without(Ranges(others))) == numbers(some) - numbers(others)
    apart = list(ranges)
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(apart))


@given(data=st.binary(max_size=300))
def test_any_bytes_at_all_are_read_without_raising(data: bytes) -> None:
    assert seqs(data, Damage()) == []
