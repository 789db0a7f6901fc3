"""Drafts become spans, a whole drain at once: to the same end as one by one."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from llmops_core.batch import SpanBatch
from llmops_core.collectors.capacity import CapacityCollector
from llmops_core.collectors.measure import MeasureCollector
from llmops_core.delivery.collecting import Collecting
from llmops_core.failures import Failures
from llmops_core.freeze.freezer import Freezer, Frozen
from llmops_core.intake.finish import Finisher
from llmops_core.schema import COLUMN_NAMES
from llmops_core.span import Span

KEY = b"k" * 32
freeze = Freezer().freeze

PLAIN = {
    "span_id": "0" * 16,
    "trace_id": "0" * 32,
    "kind": "llm",
    "name": "model",
    "outcome": "ok",
    "start_time": 5,
    "end_time": 9,
}
TEXTS = st.sampled_from(["", "a", "model", "n\0ul", "é", "\ud800", "x" * 1025, "y" * 5000])
VALUES = st.one_of(
    st.none(),
    TEXTS,
    st.integers(),
    st.integers(min_value=0, max_value=2**62),
    st.floats(),
    st.booleans(),
    st.just(10**400),
    st.binary(max_size=2),
    st.lists(TEXTS, max_size=3),
    st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(), st.none()), max_size=4),
    st.just({str(n): "v" for n in range(130)}),
)
CONTENTS = st.one_of(
    st.none(),
    TEXTS.map(freeze),
    st.recursive(st.one_of(TEXTS, st.floats()), lambda x: st.lists(x, max_size=3)).map(freeze),
    st.just(Frozen(None, True, 77, 0)),
    st.just(Frozen(None, False, 0, 0)),
    st.just("not frozen"),
)
NAMES = st.sampled_from([*COLUMN_NAMES, "_hidden", "strange", "odd\0"])
DRAFTS = st.lists(
    st.builds(
        lambda extra, given, said: {**PLAIN, **extra, "input": given, "output": said},
        st.dictionaries(NAMES, VALUES, max_size=4),
        CONTENTS,
        CONTENTS,
    ),
    min_size=1,
    max_size=6,
)


def one_by_one(finisher: Finisher, drafts: list[dict[str, Any]], seq: int) -> list[Span]:
    spans: list[Span] = []
    for draft in drafts:
        try:
            spans.append(finisher.finish(draft, "w", seq + len(spans)))
        except Exception:
            continue
    return spans


@settings(max_examples=400, deadline=None)
@given(DRAFTS, st.sampled_from([{}, {"project": "p", "service": "é\0"}]))
def test_a_drain_is_finished_as_its_drafts_would_be(
    drafts: list[dict[str, Any]], constants: dict[str, str | None]
) -> None:
    alone, together = Finisher(KEY, constants), Finisher(KEY, constants)
    expected = one_by_one(alone, [dict(draft) for draft in drafts], 7)
    failed: list[Exception] = []
    columns = together.finish_all(drafts, "w", 7, failed.append)
    rows = SpanBatch.of_columns(columns).rows if columns else ()
    assert msgspec.msgpack.encode(rows) == msgspec.msgpack.encode(expected)
    assert len(failed) == len(drafts) - len(expected)
    assert together.sanitized == alone.sanitized


def test_a_drain_where_nothing_is_odd_is_finished_without_a_look_at_each_draft(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finisher = Finisher(KEY, {"project": "p"})
    monkeypatch.setattr(finisher, "finish", None)
    drafts = [
        {
            **PLAIN,
            "name": "é" if at % 2 else None,
            "input": freeze({"n": at}),
            "step": at,
            "cost_usd": at if at % 3 else 0.5,
            "tags": ["a", "a"],
            "attributes": {"a": "n\0ul"},
        }
        for at in range(1, 6)
    ]
    rows = SpanBatch.of_columns(finisher.finish_all(drafts, "w", 1, pytest.fail)).rows
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5]
    assert [row.name for row in rows] == ["é", "llm", "é", "llm", "é"]
    assert [row.cost_usd for row in rows] == [1.0, 2.0, 0.5, 4.0, 5.0]
    assert rows[0].tags == ("a",)
    assert rows[0].attributes == {"a": "n\u2400ul"}
    assert finisher.sanitized == {"nul": 5}


def test_only_the_odd_draft_of_a_drain_is_finished_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    finisher = Finisher(KEY, {})
    real, alone = finisher.finish, []

    def finish(draft: dict[str, Any], writer_id: str, seq: int) -> Span:
        alone.append(draft["name"])
        return real(draft, writer_id, seq)

    monkeypatch.setattr(finisher, "finish", finish)
    odd: list[dict[str, Any]] = [{"strange": 1}, {"step": "two"}, {"kind": "none"}, {"seq": 3}]
    drafts = [
        {**PLAIN, "name": "n\0"},
        *({**PLAIN, **o, "name": f"{n}"} for n, o in enumerate(odd)),
    ]
    failed: list[Exception] = []
    columns = finisher.finish_all([*drafts, PLAIN], "w", 4, failed.append)
    assert alone == ["0", "1", "2", "3"]
    assert list(map(type, failed)) == [TypeError]  # a draft has no number of its own
    assert columns["name"] == ["n\u2400", "0", "1", "2", "model"]
    assert columns["seq"] == [4, 5, 6, 7, 8]
    assert finisher.sanitized == {"nul": 1, "wrong_type": 1, "unknown_field": 1}


@pytest.mark.parametrize("key", [b"", b"short", b"k" * 64, b"k" * 100])
def test_the_hash_of_a_content_is_its_hmac(key: bytes) -> None:
    span = Finisher(key, {}).finish({**PLAIN, "input": freeze("tëxt")}, "w", 1)
    expected = hmac.new(key, "tëxt".encode(), hashlib.sha256).hexdigest()[:32]
    assert span.input_hash == expected


def test_a_batch_goes_through_the_default_collectors_without_a_row_being_made() -> None:
    drafts = [{**PLAIN, "input": freeze("two words"), "attributes": {"a": "b"}}]
    batch = SpanBatch.of_columns(Finisher(KEY, {}).finish_all(drafts, "w", 1, pytest.fail))
    collectors = {"capacity": CapacityCollector(), "measure": MeasureCollector()}
    measured = Collecting(collectors, Failures()).collect(batch)
    assert measured._rows is None
    assert measured.arrow["input_words"].to_pylist() == [2]
    [row] = measured.rows
    assert (row.input_words, row.input_chars, row.attributes) == (2, 9, {"a": "b"})
    assert batch.rows[0].input_words is None
