"""The suites of ``llmops_core.testing``, on what this package provides."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmops_core.testing import CollectorConformance, ExporterConformance, StorageConformance

from llmops_lines import CodeLines, LinesStorage, TextLines
