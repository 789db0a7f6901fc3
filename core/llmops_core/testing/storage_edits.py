"""The part of the storage suite that is about changing what is stored: delete and replace."""

# ruff: noqa: S101 - a suite asserts

from __future__ import annotations

from typing import Any, Final

import pytest

from llmops_core.errors import QueryError
from llmops_core.protocols import Editable
from llmops_core.query import SpanQuery
from llmops_core.testing.spans import HOSTILE_TEXTS, START, full_span, make_batch, make_span
from llmops_core.testing.store import Store

__all__ = ["EditConformance"]

_NO_SELECTIONS: Final[tuple[dict[str, Any], ...]] = (
    {"limit": 1},
    {"columns": ["name"]},
    {"group_by": ["name"]},
    {"order": ["name"]},
)


class EditConformance:
    """Part of :class:`~llmops_core.testing.storage.StorageConformance`; not for use by itself."""

    #: False for a storage that has no ``delete`` and no ``replace``: then these tests ask for neither.
    edits = True

    def test_it_can_delete_and_replace_or_says_that_it_cannot(self, storage: object) -> None:
        assert isinstance(storage, Editable) == self.edits

    def test_what_is_deleted_is_gone_and_the_rest_stays(self, store: Store) -> None:
        if not self.edits:
            return
        batch = store.write(full_span(1), full_span(2), make_span(3, session_id="gone"))
        store.write(make_span(4, session_id="gone"), make_span(5))
        assert store.delete(equal={"session_id": "gone"}) == 2
        assert store.names(order=["start_time"])[-1] == "span-5"
        assert store.spans()[:2] == list(batch.rows[:2])
        assert store.query(aggregates=["count"])["count"].to_pylist() == [3]
        assert store.delete(equal={"session_id": "gone"}) == 0

    def test_a_deletion_is_by_time_too_and_of_all_where_nothing_is_said(self, store: Store) -> None:
        if not self.edits:
            return
        store.write(*(make_span(at) for at in range(1, 6)))
        assert store.delete(since=START + 2_000, until=START + 4_000) == 2
        assert store.names(order=["start_time"]) == ["span-1", "span-4", "span-5"]
        assert store.delete() == 3
        assert store.spans() == []

    def test_hostile_text_in_a_deletion_deletes_only_what_has_it(self, store: Store) -> None:
        if not self.edits:
            return
        spans = [
            make_span(at, session_id=text, attributes={text or "empty": text})
            for at, text in enumerate(HOSTILE_TEXTS, 1)
        ]
        store.write(*spans, make_span(90, session_id="other"))
        text = HOSTILE_TEXTS[3]
        assert (
            store.delete(where=[("session_id", "=", text), (f"attributes.{text}", "=", text)]) == 1
        )
        assert len(store.spans()) == len(HOSTILE_TEXTS)

    @pytest.mark.parametrize("more", _NO_SELECTIONS)
    def test_a_deletion_of_more_than_filters_is_refused(
        self, store: Store, more: dict[str, Any]
    ) -> None:
        if not self.edits:
            return
        store.write(make_span(1))
        with pytest.raises(QueryError):
            store.delete(**more)
        assert len(store.spans()) == 1

    def test_what_is_replaced_has_the_new_values_and_only_they(self, store: Store) -> None:
        if not self.edits:
            return
        first = store.write(full_span(1), full_span(2), make_span(3))
        second = store.write(make_span(4), make_span(5, cost_usd=1.0))
        priced = [
            first.rows[1].replace(cost_usd=0.25, attributes={"a": "it's"}, tags=None),
            second.rows[0].replace(cost_usd=0.5),
        ]
        assert store.replace(*priced) == 2
        assert store.replace(*priced) == 2
        assert store.spans() == [first.rows[0], priced[0], first.rows[2], priced[1], second.rows[1]]
        assert store.rows(aggregates=["sum:cost_usd"])[0]["sum_cost_usd"] == pytest.approx(
            (first.rows[0].cost_usd or 0) + 1.75
        )

    def test_replacing_what_is_not_stored_stores_nothing(self, store: Store) -> None:
        if not self.edits:
            return
        [span] = store.write(make_span(1)).rows
        store.delete()
        assert store.replace(span.replace(cost_usd=1.0), make_span(2)) == 0
        assert store.spans() == []

    def test_deleting_beside_writes_and_queries_loses_and_doubles_nothing(
        self, store: Store
    ) -> None:
        if not self.edits:
            return
        store.write(*(make_span(at, session_id="gone") for at in range(50)))
        kept = make_batch([make_span(100 + at) for at in range(50)], first_seq=51)
        query = SpanQuery.build(columns=["span_id"])
        gone = SpanQuery.build(equal={"session_id": "gone"})
        assert isinstance(store.storage, Editable)
        written, deleted, answer = store.together(
            store.storage.write(kept), store.storage.delete(gone), store.storage.query(query)
        )
        assert (written, deleted) == (None, 50)
        found = answer["span_id"].to_pylist()
        assert len(found) == len(set(found))
        assert {s.span_id for s in store.spans()} == {s.span_id for s in kept.rows}
