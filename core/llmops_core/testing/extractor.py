"""The suite of entity extractors: what the analysis of drift relies on.

Subclass :class:`EntityExtractorConformance` in a test module and say how to make the extractor::

    class TestMyEntities(EntityExtractorConformance):
        @pytest.fixture
        def extractor(self):
            return MyEntities()
"""

# ruff: noqa: S101 - a suite asserts

from __future__ import annotations

from typing import Final

import pytest

from llmops_core.scanner import EntityExtractor, normal, scan
from llmops_core.testing.spans import HOSTILE_TEXTS

__all__ = ["EntityExtractorConformance"]

_TEXTS: Final = (
    *(normal(text) for text in HOSTILE_TEXTS),
    "Anna Berg pays $40 for order #A-10423 on 2026-03-09; ann@example.org, src/main.py:12, 3 lamps",
    "a" * 5_000,
    "A1 " * 2_000,
    "Ж é 中文 \ud800 \0 end",
)


class EntityExtractorConformance:
    """Give it a fixture ``extractor`` that returns a new extractor."""

    @pytest.fixture
    def extractor(self) -> EntityExtractor:
        """Return the extractor to test. Override this."""
        raise NotImplementedError("override the fixture 'extractor' to return a new extractor")

    @pytest.fixture(params=_TEXTS, ids=range(len(_TEXTS)))
    def text(self, request: pytest.FixtureRequest) -> str:
        """Return a text of an agent, or of somebody who wishes it ill."""
        return str(request.param)

    def test_it_has_the_method_of_an_extractor(self, extractor: EntityExtractor) -> None:
        assert isinstance(extractor, EntityExtractor)

    def test_each_entity_has_a_type_and_lies_in_the_text(
        self, extractor: EntityExtractor, text: str
    ) -> None:
        for kind, start, end in extractor.extract(text):
            assert isinstance(kind, str)
            assert kind
            assert 0 <= start < end <= len(text)

    def test_the_same_text_has_the_same_entities(
        self, extractor: EntityExtractor, text: str
    ) -> None:
        first = list(extractor.extract(text))
        list(extractor.extract("Another text, of Omar Reyes."))
        assert list(extractor.extract(text)) == first

    def test_the_scanner_takes_what_it_finds(self, extractor: EntityExtractor, text: str) -> None:
        places = [(entity.type, entity.start, entity.end) for entity in scan(text, [extractor])]
        assert set(extractor.extract(text)) <= set(places)
