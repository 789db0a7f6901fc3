"""The exporter suite: what the delivery relies on in every exporter.

Subclass :class:`ExporterConformance` in a test module and say how to make the exporter::

    class TestMyExporter(ExporterConformance):
        @pytest.fixture
        def exporter(self):
            return MyExporter(transport=a_fake_one)
"""

# ruff: noqa: S101 - a suite asserts

from __future__ import annotations

import asyncio
import inspect

import pytest

from llmops_core.batch import SpanBatch
from llmops_core.protocols import Exporter
from llmops_core.testing.spans import HOSTILE_TEXTS, full_span, make_batch, make_span

__all__ = ["ExporterConformance"]


class ExporterConformance:
    """Give it a fixture ``exporter`` that returns a new exporter whose far end answers."""

    @pytest.fixture
    def exporter(self) -> Exporter:
        """Return the exporter to test. Override this."""
        raise NotImplementedError("override the fixture 'exporter' to return a new exporter")

    def test_it_has_the_methods_of_an_exporter(self, exporter: Exporter) -> None:
        assert isinstance(exporter, Exporter)
        assert inspect.iscoroutinefunction(exporter.export)
        assert inspect.iscoroutinefunction(exporter.close)

    def test_it_takes_a_span_with_every_column(self, exporter: Exporter) -> None:
        export(exporter, make_batch([full_span(1), full_span(2)]))

    def test_it_takes_a_span_with_only_what_is_required(self, exporter: Exporter) -> None:
        export(exporter, make_batch([make_span(1)]))

    def test_it_takes_an_empty_batch(self, exporter: Exporter) -> None:
        export(exporter, SpanBatch([]))

    @pytest.mark.parametrize("text", HOSTILE_TEXTS)
    def test_it_takes_hostile_text(self, exporter: Exporter, text: str) -> None:
        maps = {"attributes": {text: text}, "measurements": {text: float("nan")}}
        export(exporter, make_batch([make_span(1, name=text, input=text, tags=(text,), **maps)]))

    def test_it_takes_several_batches_in_a_row(self, exporter: Exporter) -> None:
        export(exporter, *(make_batch([make_span(at)], first_seq=at) for at in range(1, 4)))

    def test_it_leaves_the_batch_as_it_was(self, exporter: Exporter) -> None:
        batch = make_batch([full_span(1), make_span(2)])
        export(exporter, batch)
        assert batch.rows == make_batch([full_span(1), make_span(2)]).rows

    def test_it_can_be_closed_without_having_exported(self, exporter: Exporter) -> None:
        export(exporter)


def export(exporter: Exporter, *batches: SpanBatch) -> None:
    """Export the batches, then close, on a loop of its own."""

    async def everything() -> None:
        for batch in batches:
            await exporter.export(batch)
        await exporter.close()

    with asyncio.Runner() as runner:
        runner.run(everything())
