"""The suites of ``llmops_core.testing``, on what this package provides."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops_core.testing import (
    AnalyzerConformance,
    CollectorConformance,
    EntityExtractorConformance,
    ExporterConformance,
    StorageConformance,
)
from llmops_lines import CodeByAgent, CodeLines, CodePlaces, LinesStorage, TextLines


class TestLinesStorage(StorageConformance):
    edits = False  # the file only grows

    @pytest.fixture
    def storage(self, tmp_path: Path) -> LinesStorage:
        return LinesStorage(tmp_path / "spans.jsonl")


class TestTextLines(ExporterConformance):
    @pytest.fixture
    def exporter(self, tmp_path: Path) -> TextLines:
        return TextLines(str(tmp_path / "spans.txt"))


class TestCodeLines(CollectorConformance):
    @pytest.fixture
    def collector(self) -> CodeLines:
        return CodeLines()


class TestCodeByAgent(AnalyzerConformance):
    @pytest.fixture
    def analyzer(self) -> CodeByAgent:
        return CodeByAgent()


class TestCodePlaces(EntityExtractorConformance):
    @pytest.fixture
    def extractor(self) -> CodePlaces:
        return CodePlaces()
