"""The collector suite: what the delivery relies on in every collector.

Subclass :class:`CollectorConformance` in a test module and say how to make the collector::

    class TestMyCollector(CollectorConformance):
        @pytest.fixture
        def collector(self):
            return MyCollector()
"""

# ruff: noqa: S101 - a suite asserts

from __future__ import annotations

from typing import Final

import pytest

from llmops_core.batch import SpanBatch
from llmops_core.protocols import Collector
from llmops_core.schema import COLUMNS
from llmops_core.testing.spans import HOSTILE_TEXTS, full_span, make_batch, make_span

__all__ = ["CollectorConformance"]

_FIXED: Final = frozenset(c.name for c in COLUMNS if c.group in ("identity", "when", "content"))
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "text": str,
    "enum": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
}
_SCALAR: Final = {c.name: _TYPES[c.type] for c in COLUMNS if c.type in _TYPES}

_BATCHES: Final = (
    make_batch([]),
    make_batch([make_span(1)]),
    make_batch([full_span(1), make_span(2), full_span(3)]),
    make_batch([make_span(at, input=text, output=text) for at, text in enumerate(HOSTILE_TEXTS)]),
)


class CollectorConformance:
    """Give it a fixture ``collector`` that returns a new collector."""

    @pytest.fixture
    def collector(self) -> Collector:
        """Return the collector to test. Override this."""
        raise NotImplementedError("override the fixture 'collector' to return a new collector")

    def test_it_has_the_method_of_a_collector(self, collector: Collector) -> None:
        assert isinstance(collector, Collector)

    @pytest.mark.parametrize("batch", _BATCHES, ids=repr)
    def test_each_column_is_as_long_as_the_batch(
        self, collector: Collector, batch: SpanBatch
    ) -> None:
        for name, values in collector.collect(batch).items():
            assert isinstance(name, str)
            assert len(values) == len(batch), name

    @pytest.mark.parametrize("batch", _BATCHES, ids=repr)
    def test_values_are_plain_and_fit_their_columns(
        self, collector: Collector, batch: SpanBatch
    ) -> None:
        for name, values in collector.collect(batch).items():
            assert name not in _FIXED, f"{name} is not for a collector to set"
            for value in values:
                assert value is None or isinstance(value, _SCALAR.get(name, (str, int, float)))

    @pytest.mark.parametrize("batch", _BATCHES, ids=repr)
    def test_the_same_batch_gives_the_same_values(
        self, collector: Collector, batch: SpanBatch
    ) -> None:
        first = {name: list(values) for name, values in collector.collect(batch).items()}
        again = {name: list(values) for name, values in collector.collect(batch).items()}
        assert first == again

    def test_a_span_is_measured_without_regard_to_its_neighbours(
        self, collector: Collector
    ) -> None:
        batch = _BATCHES[-1]
        together = collector.collect(batch)
        for at, span in enumerate(batch.rows):
            alone = collector.collect(SpanBatch([span]))
            assert {n: list(v) for n, v in alone.items()} == {
                n: [v[at]] for n, v in together.items()
            }

    def test_it_leaves_the_batch_as_it_was(self, collector: Collector) -> None:
        batch = make_batch([full_span(1), make_span(2)])
        collector.collect(batch)
        assert batch.rows == make_batch([full_span(1), make_span(2)]).rows
