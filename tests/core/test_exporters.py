"""What the console and the JSON lines exporters write."""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import stat
from pathlib import Path

import pytest

from llmops_core import ConfigError, Exporter, LLMOpsError, Span
from llmops_core.exporters.console import ConsoleExporter, line
from llmops_core.exporters.jsonl import JsonLinesExporter, json_line
from llmops_core.plugins import PluginHost
from llmops_core.schema import COLUMN_NAMES
from llmops_core.testing import full_span, make_batch, make_span


def export(exporter: Exporter, *spans: Span, close: bool = True) -> None:
    async def everything() -> None:
        await exporter.export(make_batch(spans))
        if close:
            await exporter.close()

    asyncio.run(everything())


class TestConsole:
    def test_a_span_is_one_line_that_a_person_reads(self) -> None:
        span = make_span(
            1,
            name="gpt-4o",
            agent="planner",
            duration_ms=812.5,
            input_tokens=120,
            output_tokens=34,
            cost_usd=0.00123,
        )
        assert line(span) == (
            "2026-01-01T00:00:00.001000Z ok          llm       gpt-4o agent=planner 812.5ms "
            f"tokens=120+34 $0.001230 trace={1:032x} span={1:016x}"
        )

    def test_an_error_says_which(self) -> None:
        span = make_span(1, outcome="error", error_type="ValueError", error_message="no\nway")
        assert "ValueError: no\\nway" in line(span)

    def test_content_is_not_printed(self) -> None:
        assert "secret" not in line(make_span(1, input="secret", output="secret"))

    @pytest.mark.parametrize("bad", ["\x1b[31m", "\r", "\n", "\x00", "\u202e", "\x9b", "\ud800"])
    def test_a_name_cannot_move_the_cursor(self, bad: str) -> None:
        text = line(make_span(1, name=f"a{bad}b", agent=bad, error_type=bad))
        assert text.isprintable()

    def test_a_long_name_is_cut(self) -> None:
        assert len(line(make_span(1, name="x" * 10_000))) < 500

    def test_it_goes_to_standard_error_unless_asked(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        host = PluginHost()
        for name in ("console", "console:stdout"):
            exporter = host.part("exporter", name)
            assert isinstance(exporter, ConsoleExporter)
            export(exporter, make_span(1))
        out, err = capsys.readouterr()
        assert out == err == line(make_span(1)) + "\n"
        with pytest.raises(ConfigError, match="console:stdout"):
            host.part("exporter", "console:file")

    def test_a_closed_or_missing_stream_costs_its_lines_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = io.StringIO()
        stream.close()
        exporter = ConsoleExporter(stream)
        export(exporter, make_span(1), make_span(2))
        assert exporter.dropped_lines == 2
        monkeypatch.setattr("sys.stderr", None)
        export(ConsoleExporter(), make_span(1))

    def test_a_stream_that_cannot_hold_the_text_gets_escapes(self) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        export(ConsoleExporter(stream), make_span(1, name="é"))
        assert b"\\xe9" in raw.getvalue()


class TestJsonLines:
    def test_a_line_holds_every_column_that_is_not_null(self) -> None:
        full = json.loads(json_line(full_span(1)))
        assert list(full) == list(COLUMN_NAMES)
        assert full["start_time"] == "2026-01-01T00:00:00.001000Z"
        assert full["tags"][1] == "👍"
        assert full["attributes"] == full_span(1).attributes
        small = json.loads(json_line(make_span(1)))
        assert sorted(small) == sorted(
            ["span_id", "trace_id", "kind", "name", "outcome", "start_time", "end_time"]
        )

    def test_what_json_cannot_say_is_null(self) -> None:
        row = json.loads(json_line(make_span(1, cost_usd=math.nan, ttft_ms=math.inf)))
        assert row["cost_usd"] is None
        assert row["ttft_ms"] is None

    def test_a_time_outside_of_the_calendar_stays_a_number(self) -> None:
        assert json.loads(json_line(make_span(1, start_time=2**62)))["start_time"] == 2**62

    def test_batches_are_appended_for_the_owner_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        for number in (1, 2):
            export(JsonLinesExporter(path), make_span(number, input="a\nb"))
        lines = path.read_text().splitlines()
        assert [json.loads(text)["name"] for text in lines] == ["span-1", "span-2"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_torn_last_line_is_closed_off(self, tmp_path: Path) -> None:
        path = tmp_path / "spans.jsonl"
        path.write_bytes(b'{"name":"half')
        export(JsonLinesExporter(path), make_span(1))
        assert json.loads(path.read_text().splitlines()[1])["name"] == "span-1"

    def test_after_a_failed_write_the_next_line_stands_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "spans.jsonl"
        exporter = JsonLinesExporter(path)
        write = os.write

        def half(descriptor: int, data: memoryview) -> int:
            if len(data) > 100:
                return write(descriptor, data[:100])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            export(exporter, make_span(1), close=False)
        monkeypatch.setattr(os, "write", write)
        export(exporter, make_span(2))
        assert json.loads(path.read_text().splitlines()[-1])["name"] == "span-2"

    @pytest.mark.parametrize("path", ["", "{tmp}", "{tmp}/none/spans.jsonl"])
    def test_a_path_that_cannot_be_a_file_is_refused_at_set_up(
        self, tmp_path: Path, path: str
    ) -> None:
        with pytest.raises(LLMOpsError, match="jsonl"):
            PluginHost().part("exporter", f"jsonl:{path.format(tmp=tmp_path)}")
        assert list(tmp_path.iterdir()) == []
