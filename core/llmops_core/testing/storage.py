"""The storage suite: what every storage must do, whatever it is made of.

Subclass :class:`StorageConformance` in a test module and say how to make the storage::

    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def storage(self, tmp_path):
            return MyStorage(tmp_path)

The storage is new and empty for each test; the suite opens and closes it.
"""

# ruff: noqa: S101 - a suite asserts

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from llmops_core.protocols import Storage
from llmops_core.query import SpanQuery
from llmops_core.schema import arrow_schema
from llmops_core.testing.spans import HOSTILE_TEXTS, START, full_span, make_batch, make_span
from llmops_core.testing.storage_edits import EditConformance
from llmops_core.testing.storage_groups import GroupConformance
from llmops_core.testing.store import Store

__all__ = ["StorageConformance"]

_LONG: Final = "five megabytes ☕ " * (5 * 1024 * 1024 // 19)

_FILTERED: Final = (
    make_span(1, name="a", input_tokens=10, cost_usd=0.5, session_id="S", tags=("x", "y")),
    make_span(2, name="b", input_tokens=20, cost_usd=1.5, session_id="s", tags=("y",)),
    make_span(3, name="c", kind="tool", outcome="error", error_type="E", error_message="50% a_b"),
    make_span(4, name="d", handoff_confirmed=True, tags=(), error_message="50 percent aXb"),
    make_span(5, name="é", attributes={"k": "v"}, measurements={"m": 0.25}, input_tokens=-1),
)

#: (filter, the names of the spans above that match it)
_FILTERS: Final[Sequence[tuple[tuple[Any, ...], str]]] = (
    (("name", "=", "a"), "a"),
    (("name", "=", "A"), ""),
    (("name", "!=", "a"), "bcdé"),
    (("name", ">", "b"), "cdé"),
    (("name", "in", ["a", "é", "other"]), "aé"),
    (("name", "in", []), ""),
    (("name", "not in", ["a", "b"]), "cdé"),
    (("session_id", "=", "S"), "a"),
    (("session_id", "!=", "S"), "b"),
    (("session_id", "not in", ["S"]), "b"),
    (("session_id", "not in", []), "ab"),
    (("session_id", "is null"), "cdé"),
    (("session_id", "is not null"), "ab"),
    (("input_tokens", "=", 20), "b"),
    (("input_tokens", "<", 10), "é"),
    (("input_tokens", "<=", 10), "aé"),
    (("input_tokens", ">", 10), "b"),
    (("input_tokens", ">=", 10), "ab"),
    (("input_tokens", "!=", 10), "bé"),
    (("input_tokens", "in", [10, 20]), "ab"),
    (("cost_usd", ">", 1), "b"),
    (("cost_usd", "=", 0.5), "a"),
    (("handoff_confirmed", "=", True), "d"),
    (("handoff_confirmed", "=", False), ""),
    (("kind", "in", ["tool", "agent"]), "c"),
    (("start_time", "=", START + 2_000), "b"),
    (("end_time", "<=", START + 1_500), "a"),
    (("error_message", "contains", "% a"), "c"),
    (("error_message", "contains", "a_b"), "c"),
    (("error_message", "contains", ""), "cd"),
    (("error_message", "starts with", "50%"), "c"),
    (("error_message", "starts with", "50"), "cd"),
    (("error_message", "starts with", "0"), ""),
    (("tags", "contains", "y"), "ab"),
    (("tags", "contains", "x,y"), ""),
    (("tags", "is null"), "cé"),
    (("attributes.k", "=", "v"), "é"),
    (("attributes.k", "!=", "w"), "é"),
    (("attributes.k", "is null"), "abcd"),
    (("attributes.other", "is not null"), ""),
    (("attributes.k", "in", []), ""),
    (("attributes.k", "not in", []), "é"),
    (("measurements.m", "<", 1), "é"),
    (("measurements.m", "in", [0.25]), "é"),
)

_PAGED: Final = tuple(
    make_span(
        at,
        start_time=START + at // 4,
        end_time=START + 100,
        duration_ms=None if at % 3 == 0 else float(at % 4),
        session_id=None if at % 5 == 0 else f"s{at % 2}",
        handoff_confirmed=None if at % 2 == 0 else at % 4 == 1,
        attributes={"k": str(at % 3)} if at % 4 else None,
    )
    for at in range(1, 24)
)

_ORDERS: Final[Sequence[Sequence[str]]] = (
    (),
    ("start_time",),
    ("-start_time",),
    ("duration_ms",),
    ("-duration_ms",),
    ("session_id", "-duration_ms"),
    ("-session_id", "duration_ms", "-start_time"),
    ("-handoff_confirmed", "session_id"),
    ("attributes.k", "-session_id"),
    ("-span_id",),
)


class StorageConformance(GroupConformance, EditConformance):
    """Give it a fixture ``storage`` that returns a new, empty storage that is not open."""

    @pytest.fixture
    def storage(self) -> Storage:
        """Return the storage to test. Override this."""
        raise NotImplementedError("override the fixture 'storage' to return a new storage")

    @pytest.fixture
    def store(self, storage: Storage) -> Iterator[Store]:
        """The storage, open."""
        store = Store(storage)
        yield store
        store.close()

    def test_it_has_the_methods_of_a_storage(self, storage: Storage) -> None:
        assert isinstance(storage, Storage)

    def test_every_column_comes_back_as_it_was_written(self, store: Store) -> None:
        batch = store.write(full_span(1), full_span(2))
        assert store.spans() == list(batch.rows)

    def test_what_is_null_or_empty_comes_back_so(self, store: Store) -> None:
        batch = store.write(
            make_span(1),
            make_span(2, tags=(), attributes={}, measurements={}, input="", session_id=""),
        )
        assert store.spans() == list(batch.rows)

    def test_a_table_of_whole_spans_has_exactly_the_schema(self, store: Store) -> None:
        store.write(full_span(1), make_span(2))
        assert store.query().schema.equals(arrow_schema(), check_metadata=True)

    @pytest.mark.parametrize("text", HOSTILE_TEXTS)
    def test_hostile_text_comes_back_unchanged_everywhere(self, store: Store, text: str) -> None:
        where = {"name": text, "input": text, "session_id": text, "error_message": text}
        maps = {"attributes": {"a": text, text: "b"}, "measurements": {text: 1.5}}
        batch = store.write(make_span(1, tags=(text, "other"), **where, **maps))
        assert store.spans() == list(batch.rows)

    @pytest.mark.parametrize("text", HOSTILE_TEXTS)
    def test_hostile_text_in_a_query_matches_only_itself(self, store: Store, text: str) -> None:
        store.write(
            make_span(1, session_id=text, tags=(text,), attributes={text or "empty": text}),
            make_span(2, session_id="other", tags=("other",), attributes={"other": "other"}),
        )
        filters = [
            ("session_id", "=", text),
            ("session_id", "in", [text, "'"]),
            ("tags", "contains", text),
            (f"attributes.{text or 'empty'}", "=", text),
        ]
        for item in filters:
            assert store.names(where=[item]) == ["span-1"], item
        if text:
            assert store.names(where=[("session_id", "contains", text)]) == ["span-1"]
        grouped = store.rows(group_by=[f"attributes.{text or 'empty'}"], aggregates=["count"])
        assert [list(row.values()) for row in grouped] == [[text, 1], [None, 1]]

    def test_five_megabytes_of_text_come_back(self, store: Store) -> None:
        store.write(make_span(1, input=_LONG, attributes={"long": _LONG}))
        [span] = store.spans()
        assert span.input == _LONG
        assert (span.attributes or {})["long"] == _LONG

    def test_ids_that_differ_in_case_only_are_different(self, store: Store) -> None:
        store.write(make_span(1, session_id="AbC"), make_span(2, session_id="aBc"))
        assert store.names(equal={"session_id": "AbC"}) == ["span-1"]
        assert store.query(group_by=["session_id"]).num_rows == 2

    def test_a_replayed_batch_changes_nothing(self, store: Store) -> None:
        batch = store.write(full_span(1), full_span(2), make_span(3))
        before = store.spans()
        store.run(store.storage.write(batch))
        store.run(store.storage.write(make_batch(batch.rows)))
        assert store.spans() == before

    def test_a_span_id_that_is_stored_stays_as_it_is(self, store: Store) -> None:
        """A batch that is written again may not change what is there, whatever it holds now."""
        batch = store.write(make_span(1, name="first"))
        changed = batch.with_rows([batch.rows[0].replace(name="second")])
        store.run(store.storage.write(changed))
        assert store.names() == ["first"]

    def test_spans_on_both_sides_of_midnight_are_each_stored_once(self, store: Store) -> None:
        midnight = START + 86_400_000_000
        spans = [
            make_span(at, start_time=midnight + at - 3, end_time=midnight + at - 2)
            for at in range(6)
        ]
        batch = store.write(*spans)
        store.run(store.storage.write(batch))
        assert store.spans() == list(batch.rows)

    @pytest.mark.parametrize(("item", "expected"), _FILTERS)
    def test_a_filter_selects_what_it_says(
        self, store: Store, item: tuple[Any, ...], expected: str
    ) -> None:
        store.write(*_FILTERED)
        assert "".join(store.names(where=[item], order=["start_time"])) == expected

    def test_filters_are_joined_by_and(self, store: Store) -> None:
        store.write(*_FILTERED)
        both = [("input_tokens", ">", 0), ("tags", "contains", "x")]
        assert store.names(where=both) == ["a"]

    def test_since_is_inclusive_and_until_exclusive(self, store: Store) -> None:
        store.write(*(make_span(at) for at in range(1, 6)))
        found = store.names(since=START + 2_000, until=START + 4_000, order=["start_time"])
        assert found == ["span-2", "span-3"]

    def test_newest_come_first_unless_asked_otherwise(self, store: Store) -> None:
        store.write(make_span(1), make_span(3), make_span(2))
        assert store.names() == ["span-3", "span-2", "span-1"]

    @pytest.mark.parametrize("sign", ["", "-"])
    def test_nulls_come_last_in_both_directions(self, store: Store, sign: str) -> None:
        store.write(make_span(1), make_span(2, duration_ms=1.0), make_span(3, duration_ms=2.0))
        last = store.names(order=[f"{sign}duration_ms"])[-1]
        assert last == "span-1"

    @pytest.mark.parametrize("order", _ORDERS)
    @pytest.mark.parametrize("columns", [(), ("name",)])
    def test_pages_put_together_are_the_whole(
        self, store: Store, order: Sequence[str], columns: Sequence[str]
    ) -> None:
        store.write(*_PAGED[:11])
        store.write(*_PAGED[11:])
        whole = store.query(columns=columns, order=order)["name"].to_pylist()
        query: SpanQuery | None = SpanQuery.build(columns=columns, order=order, limit=5)
        paged: list[str] = []
        while query is not None:
            page = store.query(query)
            paged += page["name"].to_pylist()
            query = query.next_page(page)
        assert len(whole) == len(_PAGED)
        assert paged == whole

    def test_chosen_columns_have_the_types_of_the_schema(self, store: Store) -> None:
        store.write(full_span(1))
        columns = ["kind", "start_time", "tags", "attributes", "measurements.score"]
        table = store.query(columns=columns, order=["start_time"])
        assert table.column_names == [*columns, "span_id"]
        for name in columns[:4]:
            assert table.schema.field(name).type == arrow_schema().field(name).type
        assert table["start_time"].to_pylist()[0].utcoffset() == dt.timedelta(0)

    def test_an_empty_answer_keeps_the_columns(self, store: Store) -> None:
        for _ in ("empty storage", "no match"):
            assert store.query(equal={"name": "none"}).schema.equals(arrow_schema())
            assert store.query(columns=["name"], equal={"name": "none"}).num_rows == 0
            store.write(make_span(len(store.spans()) + 1))

    def test_a_query_beside_writes_loses_and_doubles_nothing(self, store: Store) -> None:
        written: set[str] = set()
        for number in range(5):
            spans = [make_span(number * 100 + at) for at in range(100)]
            batch = make_batch(spans, first_seq=number * 100 + 1)
            query = SpanQuery.build(columns=["span_id"])
            write, *answers = store.together(
                store.storage.write(batch), *(store.storage.query(query) for _ in range(3))
            )
            assert write is None
            for answer in answers:
                found = answer["span_id"].to_pylist()
                assert len(found) == len(set(found))
                assert written <= set(found) <= written | {s.span_id for s in spans}
            written |= {s.span_id for s in spans}
        assert {s.span_id for s in store.spans()} == written
