"""The capacity collector counts as Python does."""

from __future__ import annotations

from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from llmops_core import ConfigError, SpanBatch
from llmops_core.batch import spans_to_arrow
from llmops_core.capacity import with_capacity
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.plugins import PluginHost
from llmops_core.testing import make_batch, make_span

SPACES = "".join(c for c in map(chr, range(0x3001)) if c.isspace())
TEXTS = st.one_of(
    st.none(), st.text(max_size=20), st.text(alphabet="ab\n é\u3000\x1c\x00 " + SPACES, max_size=20)
)
#: All one byte a character, and longer than the 64 bytes that are counted at once.
LONG: Final = st.text(alphabet="abc  \n\t\x0b\x1c\x1b\x00~", min_size=50, max_size=200)


def counted(*texts: str | None) -> dict[str, list[int | None]]:
    batch = make_batch([make_span(at, input=text) for at, text in enumerate(texts)])
    values = CapacityCollector().collect(batch)
    return {name: list(column) for name, column in values.items()}


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_every_count_is_pythons_own(texts: list[str | None]) -> None:
    check(texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), LONG, st.just("")), max_size=8))
def test_every_count_of_long_ascii_texts_is_pythons_own(texts: list[str | None]) -> None:
    check(texts)


def check(texts: list[str | None]) -> None:
    values = counted(*texts)
    there = [text for text in texts if text is not None]

    def expected(counts: list[int]) -> list[int | None]:
        left = iter(counts)
        return [None if text is None else next(left) for text in texts]

    assert values["input_chars"] == expected([len(t) for t in there])
    assert values["input_words"] == expected([len(t.split()) for t in there])
    assert values["input_bytes"] == expected([len(t.encode()) for t in there])
    assert values["input_lines"] == expected([t.count("\n") + 1 if t else 0 for t in there])
    assert values["output_chars"] == [None] * len(texts)


def test_a_clause_in_japanese_is_one_word() -> None:
    assert counted("今日は、世界。")["input_words"] == [1]


def test_long_texts_are_counted_in_pieces_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a b " * at for at in range(50)]
    whole = counted(*texts)
    monkeypatch.setattr("llmops_core.capacity._SLICE_BYTES", 64)
    assert counted(*texts) == whole


def test_values_are_plain_integers_and_the_batch_stays_as_it_is() -> None:
    batch = make_batch([make_span(1, input="x", input_words=7)])
    [value] = CapacityCollector().collect(batch)["input_words"]
    assert type(value) is int
    assert batch.rows[0].input_words == 7


def test_a_table_is_filled_as_the_collector_would_and_keeps_what_has_no_text() -> None:
    rows = [make_span(1, input="a b"), make_span(2, input_words=5), make_span(3, output="x")]
    table = with_capacity(spans_to_arrow(rows))
    assert table.schema == spans_to_arrow(rows).schema
    assert table["input_words"].to_pylist() == [2, 5, None]
    assert table["output_lines"].to_pylist() == [None, None, 1]


def test_an_empty_batch_has_empty_columns() -> None:
    assert set(map(len, CapacityCollector().collect(SpanBatch([])).values())) == {0}


def test_it_takes_no_argument() -> None:
    assert isinstance(PluginHost().part("collector", "capacity"), CapacityCollector)
    with pytest.raises(ConfigError, match="no argument"):
        PluginHost().part("collector", "capacity:fast")
