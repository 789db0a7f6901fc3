"""Spans are copied from any storage to any other, each once, and go on after an interruption."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmops_core import PermanentError, RetryableError, Span, SpanBatch, copying, open_storage
from llmops_core.cli import main
from llmops_core.copying import CopyReport, copy_spans
from llmops_core.plugins import PluginHost
from llmops_core.protocols import Storage
from llmops_core.query import SpanQuery
from llmops_core.storage.memory import MemoryStorage
from llmops_core.testing import full_span, make_batch, make_span

SPANS = [full_span(1), *(make_span(at, input=f"text {at}") for at in range(2, 60))]


def filled(spans: Sequence[Span] = SPANS) -> MemoryStorage:
    storage = MemoryStorage()
    asyncio.run(storage.write(make_batch(spans)))
    return storage


def copied(source: Storage, target: Storage, **more: Any) -> CopyReport:
    return asyncio.run(copy_spans(source, target, **more))


def ordered(storage: MemoryStorage) -> list[Span]:
    return sorted(storage.spans, key=lambda span: (span.start_time, span.span_id))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pages, questions and batches of a few spans."""
    monkeypatch.setattr(copying, "PAGE_IDS", 16)
    monkeypatch.setattr(copying, "ASKED_IDS", 5)
    monkeypatch.setattr(MemoryStorage, "batch_spans", 7, raising=False)
    monkeypatch.setattr(copying.random, "uniform", lambda low, high: 0.0)


def test_every_span_is_copied_with_every_value() -> None:
    source, target = filled(), MemoryStorage()
    report = copied(source, target)
    assert (report.spans, report.copied, report.already_there) == (59, 59, 0)
    assert ordered(target) == ordered(source)


def test_what_is_there_is_not_read_again() -> None:
    class Watched(MemoryStorage):
        contents = 0

        async def query(self, query: SpanQuery) -> Any:
            table = await super().query(query)
            self.contents += table.num_rows if "input" in table.column_names else 0
            return table

    source, target = Watched(), filled(SPANS[:40])
    asyncio.run(source.write(make_batch(SPANS)))
    report = copied(source, target)
    assert (report.copied, report.already_there, source.contents) == (19, 40, 19)
    assert copied(source, target).copied == 0
    assert source.contents == 19


def test_a_time_range_is_copied_alone() -> None:
    target = MemoryStorage()
    begin, end = SPANS[10].start_time, SPANS[20].start_time
    assert copied(filled(), target, since=begin, until=end).copied == 10
    assert {span.start_time for span in target.spans} == {s.start_time for s in SPANS[10:20]}


class Failing(MemoryStorage):
    """Fails as it is told: by the number of a write, or for a span."""

    def __init__(self, *failures: Exception | None, bad: Sequence[str] = (), place: bool = False):
        super().__init__()
        self.failures = list(failures)
        self.bad = set(bad)
        self.place = place

    async def write(self, batch: SpanBatch) -> None:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        for at, span in enumerate(batch.rows):
            if span.span_id in self.bad:
                raise PermanentError("a bad span", place=at if self.place else None)
        await super().write(batch)


def test_an_interrupted_copy_goes_on_where_it_stopped() -> None:
    source, target = filled(), Failing(None, None, OSError("killed"))
    with pytest.raises(OSError, match="killed"):
        copied(source, target)
    assert 0 < len(target.spans) < len(SPANS)
    before = len(target.spans)
    report = copied(source, target)
    assert (report.already_there, report.copied) == (before, len(SPANS) - before)
    assert ordered(target) == ordered(source)


def test_a_target_that_is_away_for_a_moment_is_waited_for() -> None:
    target = Failing(None, *[RetryableError("busy")] * 4)
    assert copied(filled(), target).copied == len(SPANS)
    with pytest.raises(RetryableError):
        copied(filled(), Failing(*[RetryableError("busy")] * copying.ATTEMPTS))


@pytest.mark.parametrize("place", [False, True])
def test_a_span_that_is_refused_costs_itself_alone(place: bool) -> None:
    bad = [SPANS[0].span_id, SPANS[13].span_id, SPANS[-1].span_id]
    target = Failing(bad=bad, place=place)
    report = copied(filled(), target)
    assert (report.copied, report.refused_spans) == (len(SPANS) - 3, 3)
    assert report.refused == dict.fromkeys(bad, "a bad span")
    assert {span.span_id for span in target.spans} == {s.span_id for s in SPANS} - set(bad)


def test_what_is_held_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "HELD_BYTES", 50_000)
    largest = 0

    class Measured(MemoryStorage):
        async def write(self, batch: SpanBatch) -> None:
            nonlocal largest
            largest = max(largest, sum(len(span.input or "") for span in batch.rows))
            await super().write(batch)

    spans = [make_span(at, input="x" * 9_000, input_bytes=9_000) for at in range(50)]
    target = Measured()
    assert copied(filled(spans), target).copied == 50
    assert 18_000 < largest <= 50_000


def test_progress_is_told_and_ends_with_all() -> None:
    seen: list[tuple[int, int]] = []
    copied(filled(), MemoryStorage(), told=lambda report: seen.append((report.seen, report.spans)))
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == (59, 59)


# ---- the command ----


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        main_with(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


def main_with(arguments: Sequence[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["llmops", *arguments])
        main()


def written(folder: Path, spans: Sequence[Span] = SPANS) -> str:
    url = f"parquet:{folder}"

    async def write() -> None:
        storage: Any = PluginHost().storage(url)
        await storage.open()
        await storage.write(make_batch(spans))
        await storage.close()

    asyncio.run(write())
    return url


def ids(url: str) -> list[str]:
    with open_storage(url) as reader:
        return sorted(reader.query(columns=["span_id"])["span_id"].to_pylist())


def test_a_folder_is_copied_to_another_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = written(tmp_path / "a"), f"parquet:{tmp_path / 'b'}"
    code, out, _ = command(capsys, "copy", source, target)
    assert (code, out) == (0, "Copied 59 spans.\n")
    code, out, _ = command(capsys, "copy", source, target, "--json")
    told = json.loads(out)
    assert (code, told["copied"], told["already_there"]) == (0, 0, 59)
    assert ids(source) == ids(target) == sorted(span.span_id for span in SPANS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("parquet:{a}", "parquet:{a}"), "expected: two storages"),
        (("parquet:{a}", "parquet:{a}/../a"), "expected: two storages"),
        (("parquet:{a}", "memory:"), "keeps nothing"),
        (("parquet:{a}/none", "parquet:{a}2"), "nothing is stored"),
        (("nothing:", "parquet:{a}2"), "no storage handles"),
        (("parquet:{a}", "parquet:{a}2", "--since", "yesterday"), "no moment"),
    ],
)
def test_a_copy_that_makes_no_sense_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    written(tmp_path / "a")
    filled_in = [argument.format(a=tmp_path / "a") for argument in arguments]
    code, _, err = command(capsys, "copy", *filled_in)
    assert code == 2
    assert said in " ".join(err.split())


def test_a_folder_is_copied_to_a_database_and_back(
    tmp_path: Path, mysql_empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source, back = written(tmp_path / "a"), f"parquet:{tmp_path / 'b'}"
    for pair in ((source, mysql_empty), (mysql_empty, back), (source, mysql_empty)):
        assert command(capsys, "copy", *pair)[0] == 0
    with open_storage(source) as first, open_storage(back) as second:
        assert first.query().equals(second.query())
    assert len(ids(mysql_empty)) == 59
