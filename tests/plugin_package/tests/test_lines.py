"""What the conformance suites cannot know: this package's own promises."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from llmops_core import ConfigError, SpanQuery
from llmops_core.testing import make_batch, make_span
from llmops_lines import CodeByAgent, CodeLines, CodePlaces, LinesStorage, TextLines


def write(file: Path, *numbers: int) -> None:
    async def everything() -> None:
        storage = LinesStorage(file)
        await storage.open()
        await storage.write(make_batch([make_span(number) for number in numbers]))
        await storage.close()

    asyncio.run(everything())


def ids(file: Path) -> list[str]:
    async def everything() -> list[str]:
        storage = LinesStorage(file)
        await storage.open()
        table = await storage.query(SpanQuery())
        await storage.close()
        return sorted(table["span_id"].to_pylist())

    return asyncio.run(everything())


def test_two_writers_store_a_span_once(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    write(file, 1, 2)
    write(file, 2, 3)
    assert len(ids(file)) == len(file.read_text().splitlines()) == 3


def test_half_a_line_of_a_dead_writer_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    write(file, 1)
    with file.open("a") as torn:
        torn.write('{"span_id": "half')
    assert len(ids(file)) == 1
    write(file, 2)
    assert [json.loads(line)["span_id"] for line in file.read_text().splitlines()] == ids(file)


def test_an_exported_span_is_one_line_whatever_its_name(tmp_path: Path) -> None:
    file = tmp_path / "spans.txt"
    exporter = TextLines(str(file))
    span = make_span(1, kind="llm", name="two\nlines", outcome="ok", duration_ms=1.25)
    asyncio.run(exporter.export(make_batch([span])))
    asyncio.run(exporter.close())
    assert file.read_text() == "llm 'two\\nlines' ok 1.2\n"


def test_code_lines_are_those_inside_fences() -> None:
    text = "So:\n```python\nx = 1\ny = 2\n```\nDone."
    batch = make_batch([make_span(1, output=text), make_span(2)])
    assert CodeLines().collect(batch) == {"code_lines": [2.0, None]}


def test_code_is_counted_by_agent() -> None:
    said = "```\na\nb\n```"
    spans = make_batch([
        make_span(1, agent="coder", output=said),
        make_span(2, agent="coder", output=said),
        make_span(3, agent="talker", output="no code"),
    ]).arrow  # fmt: skip
    assert CodeByAgent().analyze(spans).to_pylist() == [{"agent": "coder", "code_lines": 4}]


def test_a_place_in_code_is_a_file_and_a_line() -> None:
    text = "fails in main.py:12, says Ann at 10:30"
    assert [text[start:end] for _, start, end in CodePlaces().extract(text)] == ["main.py:12"]


@pytest.mark.parametrize("make", [lambda: LinesStorage.from_url("lines:"), lambda: TextLines("")])
def test_a_file_must_be_named(make: object) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        make()  # type: ignore[operator]
