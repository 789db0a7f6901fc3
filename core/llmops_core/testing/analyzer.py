"""The analyzer suite: what ``Monitor.analyze`` and ``llmops analyze NAME`` rely on.

Subclass :class:`AnalyzerConformance` in a test module and say how to make the analyzer::

    class TestMyAnalyzer(AnalyzerConformance):
        @pytest.fixture
        def analyzer(self):
            return MyAnalyzer()
"""

# ruff: noqa: S101 - a suite asserts

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pytest

from llmops_core.batch import spans_to_arrow
from llmops_core.protocols import Analyzer
from llmops_core.span import Span
from llmops_core.testing.spans import HOSTILE_TEXTS, full_span, make_span

__all__ = ["AnalyzerConformance"]


def _handed_over() -> list[Span]:
    """Return a trace in which one agent hands over to another, which fails."""
    return [
        make_span(1, kind="workflow", name="desk"),
        make_span(2, kind="agent", agent="router", parent_id=f"{1:016x}", input="order #A1 of Ann Lee"),
        make_span(3, kind="agent", agent="desk", parent_id=f"{1:016x}", input="order", outcome="error"),
    ]  # fmt: skip


_SPANS: Final[dict[str, list[Span]]] = {
    "no spans": [],
    "one span": [make_span(1)],
    "full and bare spans": [full_span(1), make_span(2), full_span(3)],
    "agents": _handed_over(),
    "hostile texts": [
        make_span(at, input=text, output=text) for at, text in enumerate(HOSTILE_TEXTS)
    ],
}


class AnalyzerConformance:
    """Give it a fixture ``analyzer`` that returns a new analyzer."""

    @pytest.fixture
    def analyzer(self) -> Analyzer:
        """Return the analyzer to test. Override this."""
        raise NotImplementedError("override the fixture 'analyzer' to return a new analyzer")

    @pytest.fixture(params=_SPANS)
    def spans(self, request: pytest.FixtureRequest) -> pa.Table:
        """Return spans as a storage answers them."""
        return spans_to_arrow(_SPANS[request.param])

    def test_it_has_the_method_of_an_analyzer(self, analyzer: Analyzer) -> None:
        assert isinstance(analyzer, Analyzer)

    def test_it_makes_a_valid_table(self, analyzer: Analyzer, spans: pa.Table) -> None:
        table = analyzer.analyze(spans)
        assert isinstance(table, pa.Table)
        table.validate(full=True)
        assert len(set(table.column_names)) == len(table.column_names)

    def test_its_columns_do_not_depend_on_the_spans(
        self, analyzer: Analyzer, spans: pa.Table
    ) -> None:
        assert analyzer.analyze(spans).schema == analyzer.analyze(spans.slice(0, 0)).schema

    def test_it_keeps_nothing_from_one_call_to_the_next(
        self, analyzer: Analyzer, spans: pa.Table
    ) -> None:
        first = analyzer.analyze(spans)
        analyzer.analyze(spans_to_arrow([full_span(7), make_span(8)]))
        assert analyzer.analyze(spans).equals(first)

    def test_chunks_do_not_matter(self, analyzer: Analyzer, spans: pa.Table) -> None:
        parts = [spans.slice(at, 1) for at in range(spans.num_rows)] or [spans]
        assert analyzer.analyze(pa.concat_tables(parts)).equals(analyzer.analyze(spans))

    def test_it_leaves_the_spans_as_they_were(self, analyzer: Analyzer, spans: pa.Table) -> None:
        before = spans.to_pylist()
        analyzer.analyze(spans)
        assert spans.to_pylist() == before
