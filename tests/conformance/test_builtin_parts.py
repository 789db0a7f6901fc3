"""The built-in exporters and collectors pass the suites that third parties run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from llmops_core import Collector, Exporter
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.exporters.console import ConsoleExporter
from llmops_core.exporters.jsonl import JsonLinesExporter
from llmops_core.testing import CollectorConformance, ExporterConformance


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
