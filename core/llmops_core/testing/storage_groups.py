"""The half of the storage suite that is about groups: aggregates, time buckets, error rates."""

# ruff: noqa: S101 - a suite asserts

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import pytest

from llmops_core.span import Span
from llmops_core.testing.spans import START, make_span
from llmops_core.testing.store import Store

__all__ = ["GroupConformance"]

_SECOND: Final = 1_000_000

_MEASURED: Final = (
    make_span(1, name="a", duration_ms=10.0, input_tokens=1, measurements={"m": 1.0}),
    make_span(2, name="a", duration_ms=20.0, input_tokens=2, measurements={"m": 4.0}),
    make_span(3, name="a", duration_ms=40.0, input_tokens=None),
    make_span(4, name="b", duration_ms=None, input_tokens=7, outcome="error"),
    make_span(5, name="b", duration_ms=5.0, session_id="s"),
)

#: (aggregate, its value for a, its value for b)
_VALUES: Final[tuple[tuple[str, Any, Any], ...]] = (
    ("count", 3, 2),
    ("sum:input_tokens", 3, 7),
    ("avg:input_tokens", 1.5, 7.0),
    ("min:duration_ms", 10.0, 5.0),
    ("max:duration_ms", 40.0, 5.0),
    ("sum:duration_ms", 70.0, 5.0),
    ("p50:duration_ms", 20.0, 5.0),
    ("p95:duration_ms", 38.0, 5.0),  # 20 + (40 - 20) * 0.9
    ("p99:duration_ms", 39.6, 5.0),
    ("p50:input_tokens", 1.5, 7.0),
    ("avg:measurements.m", 2.5, None),
    ("error_rate", 0.0, 0.5),
)


def _attempt(number: int, attempt: int | None, outcome: str, **more: Any) -> Span:
    return make_span(
        number, parent_id="f" * 16, name="tool", attempt=attempt, outcome=outcome, **more
    )


class GroupConformance:
    """Part of :class:`~llmops_core.testing.storage.StorageConformance`; not for use by itself."""

    @pytest.mark.parametrize(("aggregate", "a", "b"), _VALUES)
    def test_an_aggregate_is_what_a_person_computes(
        self, store: Store, aggregate: str, a: Any, b: Any
    ) -> None:
        store.write(*_MEASURED)
        table = store.query(group_by=["name"], aggregates=[aggregate])
        assert table.column_names == ["name", aggregate.replace(":", "_")]
        assert table["name"].to_pylist() == ["a", "b"]
        values = table.column(1).to_pylist()
        assert [None if v is None else pytest.approx(v) for v in values] == [a, b]

    def test_aggregates_have_whole_numbers_where_the_column_has(self, store: Store) -> None:
        store.write(*_MEASURED)
        wanted = [
            "count",
            "sum:input_tokens",
            "max:input_tokens",
            "avg:input_tokens",
            "max:start_time",
        ]
        types = [str(t) for t in store.query(aggregates=wanted).schema.types]
        assert types == ["int64", "int64", "int64", "double", "timestamp[us, tz=UTC]"]

    def test_a_null_is_a_group_of_its_own_and_comes_last(self, store: Store) -> None:
        store.write(*_MEASURED)
        for order in ([], ["session_id"], ["-session_id"]):
            rows = store.rows(group_by=["session_id"], aggregates=["count"], order=order)
            assert rows == [{"session_id": "s", "count": 1}, {"session_id": None, "count": 4}]

    def test_groups_are_of_several_columns_and_of_map_keys(self, store: Store) -> None:
        store.write(
            make_span(1, attributes={"it's": "x"}),
            make_span(2, attributes={"it's": "x"}),
            make_span(3, kind="tool", attributes={"it's": "x"}),
        )
        rows = store.rows(group_by=["kind", "attributes.it's"], aggregates=["count"])
        assert rows == [
            {"kind": "llm", "attributes.it's": "x", "count": 2},
            {"kind": "tool", "attributes.it's": "x", "count": 1},
        ]

    def test_groups_can_be_ordered_by_a_value_and_cut(self, store: Store) -> None:
        store.write(*_MEASURED, make_span(6, name="c"))
        top = store.rows(group_by=["name"], aggregates=["count"], order=["-count"], limit=2)
        assert [row["name"] for row in top] == ["a", "b"]

    def test_filters_apply_before_groups(self, store: Store) -> None:
        store.write(*_MEASURED)
        found = store.rows(
            where=[("duration_ms", ">", 15)], group_by=["name"], aggregates=["count"]
        )
        assert found == [{"name": "a", "count": 2}]

    def test_time_buckets_are_aligned_to_the_epoch(self, store: Store) -> None:
        starts = [START - 1, START, START + 9 * _SECOND, START + 10 * _SECOND, START + 25 * _SECOND]
        store.write(
            *(
                make_span(at, start_time=start, end_time=start + 1)
                for at, start in enumerate(starts, 1)
            )
        )
        rows = store.rows(bucket_seconds=10, aggregates=["count"])
        begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        assert [(row["bucket"] - begin).total_seconds() for row in rows] == [-10, 0, 10, 20]
        assert [row["count"] for row in rows] == [1, 2, 1, 1]

    def test_buckets_and_groups_go_together(self, store: Store) -> None:
        store.write(*_MEASURED)
        rows = store.rows(bucket_seconds=0.002, group_by=["name"], aggregates=["count"])
        assert [(row["name"], row["count"]) for row in rows] == [("a", 1), ("a", 2), ("b", 2)]

    def test_a_bucket_before_the_epoch_begins_before_its_spans(self, store: Store) -> None:
        store.write(make_span(1, start_time=-1, end_time=0))
        [row] = store.rows(bucket_seconds=60, aggregates=["count"])
        assert row["bucket"] == dt.datetime(1969, 12, 31, 23, 59, tzinfo=dt.UTC)

    def test_aggregates_of_nothing_are_one_row_and_groups_of_nothing_none(
        self, store: Store
    ) -> None:
        wanted = ["count", "sum:input_tokens", "p95:duration_ms", "error_rate"]
        [row] = store.rows(aggregates=wanted)
        assert list(row.values()) == [0, None, None, None]
        assert store.query(group_by=["name"], aggregates=wanted).num_rows == 0

    def test_an_error_that_a_later_attempt_followed_counts_nowhere(self, store: Store) -> None:
        store.write(
            _attempt(1, 1, "error"),  # made good below
            _attempt(2, 2, "ok"),
            make_span(3, name="tool", outcome="error"),  # another parent
            _attempt(4, None, "error", trace_id=f"{2:032x}"),  # no attempt is the first one
            _attempt(5, 2, "error", trace_id=f"{2:032x}"),  # the last one counts
        )
        rows = store.rows(group_by=["trace_id"], aggregates=["error_rate", "count"])
        assert [row["error_rate"] for row in rows] == [0.5, 1.0]
        assert [row["count"] for row in rows] == [3, 2]

    def test_roots_that_were_tried_again_are_attempts_of_each_other(self, store: Store) -> None:
        first = make_span(1, name="root", attempt=1, outcome="error")
        store.write(first, make_span(2, name="root", attempt=2))
        assert store.rows(aggregates=["error_rate"]) == [{"error_rate": 0.0}]

    def test_a_filter_does_not_hide_the_attempt_that_made_an_error_good(self, store: Store) -> None:
        store.write(_attempt(1, 1, "error"), _attempt(2, 2, "ok"), make_span(3, outcome="error"))
        rows = store.rows(equal={"outcome": "error"}, aggregates=["error_rate", "count"])
        assert rows == [{"error_rate": 1.0, "count": 2}]
        early = store.rows(until=START + 2_000, aggregates=["error_rate"])
        assert early == [{"error_rate": None}]
