"""Properties of queries, over spans and queries that nobody would write by hand."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, given, settings

from llmops_core import Filter, Order, Span, SpanQuery
from llmops_core.batch import spans_from_arrow, spans_to_arrow
from llmops_core.query import run_query
from llmops_core.schema import COLUMNS
from llmops_core.testing import make_span

TEXTS = st.one_of(
    st.sampled_from(["", "a", "A", "b", "ab", "%", "_", "'", '"', "é", "\n", "\u2400", "\0"]),
    st.text(max_size=4),
)
INTS = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
FLOATS = st.one_of(st.sampled_from([-1.5, 0.0, 0.5, 1.0, 1e300]), st.floats(allow_nan=False))
TIMES = st.integers(1_700_000_000_000_000, 1_700_000_000_000_005)
KEYS = st.sampled_from(["k", "a.b", "it's", '"'])
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXTS,
    "session_id": TEXTS,
    "model": TEXTS,
    "step": INTS,
    "duration_ms": FLOATS,
    "handoff_confirmed": st.booleans(),
    "start_time": TIMES,
}
NULLABLE = {c.name for c in COLUMNS if c.nullable}

OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda a, b: a in b,
    "not in": lambda a, b: a not in b,
    "contains": lambda a, b: b in a,
    "starts with": lambda a, b: a.startswith(b),
}


@st.composite
def spans(draw: st.DrawFn) -> list[Span]:
    made = []
    for number in range(draw(st.integers(0, 12))):
        values = {
            name: draw(st.one_of(st.none(), kind) if name in NULLABLE else kind)
            for name, kind in VALUES.items()
        }
        values["attributes"] = draw(st.none() | st.dictionaries(KEYS, TEXTS, max_size=2))
        values["measurements"] = draw(st.none() | st.dictionaries(KEYS, FLOATS, max_size=2))
        values["tags"] = draw(st.none() | st.lists(TEXTS, max_size=2).map(tuple))
        made.append(make_span(number, **values))
    return made


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from([*VALUES, "tags", "attributes", "measurements"]))
    if name == "tags":
        return Filter("tags", "contains", draw(TEXTS))
    kind = VALUES.get(name, TEXTS if name == "attributes" else FLOATS)
    column = name if name in VALUES else f"{name}.{draw(KEYS)}"
    texts = ["contains", "starts with"] if kind is TEXTS else []
    op = draw(st.sampled_from([*list(OPERATIONS)[:8], "is null", "is not null", *texts]))
    if op in ("is null", "is not null"):
        return Filter(column, op)
    if op in ("in", "not in"):
        return Filter(column, op, draw(st.lists(kind, max_size=3)))
    return Filter(column, op, draw(kind))


def cell(span: Span, column: str) -> Any:
    base, _, key = column.partition(".")
    value = getattr(span, base)
    return (value or {}).get(key) if key else value


def matches(span: Span, item: Filter) -> bool:
    """The meaning of a filter, in plain Python."""
    value = cell(span, item.column)
    if item.op == "is null":
        return value is None
    if item.op == "is not null":
        return value is not None
    return value is not None and OPERATIONS[item.op](value, item.value)


SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(spans(), st.lists(filters(), max_size=3))
def test_filters_select_what_plain_python_selects(rows: list[Span], where: list[Filter]) -> None:
    query = SpanQuery(where=tuple(where), order=(Order("span_id"),))
    found = spans_from_arrow(run_query(spans_to_arrow(rows), query))
    assert found == [span for span in rows if all(matches(span, item) for item in where)]


ORDERED = [*VALUES, "attributes.k", "attributes.it's", "measurements.k"]


@SETTINGS
@given(
    spans(),
    st.lists(st.builds(Order, st.sampled_from(ORDERED), st.booleans()), max_size=3),
    st.integers(1, 5),
    st.sampled_from([(), ("name",)]),
)
def test_pages_put_together_are_the_whole_in_plain_pythons_order(
    rows: list[Span], order: list[Order], limit: int, columns: tuple[str, ...]
) -> None:
    table = spans_to_arrow(rows)
    whole = SpanQuery(order=tuple(order), columns=columns)
    expected = list(rows)
    for key in reversed(whole.effective_order):  # the last key first: sorting is stable
        nulls = [s for s in expected if cell(s, key.column) is None]
        others = [s for s in expected if cell(s, key.column) is not None]
        others.sort(key=lambda s: cell(s, key.column), reverse=key.descending)
        expected = others + nulls
    ids = [span.span_id for span in expected]
    assert run_query(table, whole)["span_id"].to_pylist() == ids

    paged: list[str] = []
    query: SpanQuery | None = msgspec.structs.replace(whole, limit=limit)
    while query is not None:
        page = run_query(table, query)
        paged += page["span_id"].to_pylist()
        query = query.next_page(page)
    assert paged == ids


@SETTINGS
@given(spans())
def test_spans_come_back_from_a_query_as_they_were(rows: list[Span]) -> None:
    found = spans_from_arrow(run_query(spans_to_arrow(rows), SpanQuery(order=(Order("span_id"),))))
    assert found == rows


@SETTINGS
@given(spans(), st.sampled_from([None, "session_id", "attributes.k"]))
def test_groups_count_every_span_once(rows: list[Span], column: str | None) -> None:
    query = SpanQuery.build(
        group_by=[column] if column else [], bucket_seconds=2e-6, aggregates=["count"]
    )
    table = run_query(spans_to_arrow(rows), query)
    keys = {(s.start_time // 2, cell(s, column) if column else None) for s in rows}
    assert sum(table["count"].to_pylist()) == len(rows)
    assert table.num_rows == len(keys)
