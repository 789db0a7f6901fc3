"""The built-in exporters and collectors pass the suites that third parties run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from llmops_core import Collector, Exporter
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.exporters.console import ConsoleExporter
from llmops_core.exporters.jsonl import JsonLinesExporter
from llmops_core.plugins import PluginHost
from llmops_core.scanner import EntityExtractor, scan
from llmops_core.testing import (
    AnalyzerConformance,
    CollectorConformance,
    EntityExtractorConformance,
    ExporterConformance,
)


class TestCapacityCollector(CollectorConformance):
    @pytest.fixture
    def collector(self) -> Collector:
        return CapacityCollector()


class TestConsoleExporter(ExporterConformance):
    @pytest.fixture
    def exporter(self) -> Exporter:
        return ConsoleExporter(io.StringIO())


class TestJsonLinesExporter(ExporterConformance):
    @pytest.fixture
    def exporter(self, tmp_path: Path) -> Exporter:
        return JsonLinesExporter(tmp_path / "spans.jsonl")


class TestAgents(AnalyzerConformance):
    @pytest.fixture(params=["agents", "edges", "drift"])
    def analyzer(self, request: pytest.FixtureRequest) -> Any:
        return PluginHost().part("analyzer", request.param)


class TestScanner(EntityExtractorConformance):
    """The scanner itself, as an extractor that finds everything twice."""

    @pytest.fixture
    def extractor(self) -> EntityExtractor:
        class Scanner:
            def extract(self, text: str) -> list[tuple[str, int, int]]:
                return [(entity.type, entity.start, entity.end) for entity in scan(text)]

        return Scanner()
