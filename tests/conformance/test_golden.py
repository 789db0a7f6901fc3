"""The same spans give the same answers in every storage, however hostile the values are."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest

from llmops_core import Aggregate, Filter, Order, QueryError, Span, SpanQuery
from llmops_core.storage.memory import MemoryStorage
from llmops_core.testing import make_batch, make_span
from llmops_core.testing.spans import HOSTILE_TEXTS, START
from llmops_core.testing.store import Store
from payloads import PAYLOADS

SPANS: Final = 240
QUERIES: Final = 120

TEXTS: Final[tuple[str, ...]] = (
    *HOSTILE_TEXTS,
    "AbC",
    "aBc",
    "abc",
    "abc ",
    "a\0b",
    "\0",
    "half \ud800 a pair",
    "\udfff",
    "é",
    "e\u0301",
    "ﬀ",
    "%",
    "_",
    "\\",
    "\ufffd",
    "z" * 3_000,
    "\U0010ffff",
)
INTS: Final = (0, 1, -1, 7, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64)
FLOATS: Final = (0.0, 0.5, -1.5, 1e-9, 1e15, 123456.789, math.nan, math.inf, -math.inf)
KEYS: Final = ("k", "a.b", "it's", '"', "K", "k ", "\0", "$.k", "ключ")
OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=", "in", "not in", "is null", "is not null")


def hostile_spans(rng: random.Random) -> Iterator[Span]:
    for number in range(SPANS):
        start = START + rng.randrange(8) * 500_000

        def some(values: Sequence[Any], chance: float = 0.7) -> Any:
            return rng.choice(values) if rng.random() < chance else None

        maps = {rng.choice(KEYS): rng.choice(TEXTS) for _ in range(rng.randrange(4))}
        numbers = {rng.choice(KEYS): rng.choice(FLOATS) for _ in range(rng.randrange(3))}
        yield make_span(
            number,
            trace_id=f"{rng.randrange(30):032x}",
            parent_id=some([f"{at:016x}" for at in range(5)]),
            kind=rng.choice(["llm", "tool", "agent"]),
            name=rng.choice(TEXTS),
            outcome=rng.choice(["ok", "ok", "error"]),
            start_time=start,
            end_time=start + rng.randrange(1_000_000),
            duration_ms=some(FLOATS),
            session_id=some(TEXTS),
            model=some(TEXTS),
            input=some(TEXTS),
            error_message=some(TEXTS),
            input_tokens=some(INTS[:6]),
            step=some(INTS),
            attempt=some((1, 2, 3), 0.4),
            handoff_confirmed=some((True, False)),
            tags=some([tuple(rng.sample(TEXTS, 2)), (), ("one",)]),
            attributes=maps if rng.random() < 0.8 else None,
            measurements=numbers if rng.random() < 0.8 else None,
        )


def stored_text(text: str) -> str:
    """A text that a query may name: half a surrogate pair is refused, and by all alike."""
    return text.encode(errors="replace").decode()


def query_of(rng: random.Random) -> SpanQuery:
    columns = ["name", "session_id", "model", "step", "duration_ms", "handoff_confirmed", "kind"]
    columns += ["start_time", "attributes.k", "attributes.it's", "measurements.k"]

    def condition() -> Filter:
        column = rng.choice([*columns, "tags", "error_message", f"attributes.{rng.choice(KEYS)}"])
        if column == "tags":
            return Filter("tags", "contains", stored_text(rng.choice([*TEXTS, "one"])))
        is_text = column.startswith("attributes.") or column in (
            "name",
            "session_id",
            "model",
            "error_message",
            "kind",
        )
        values: Sequence[Any] = [stored_text(t) for t in (*TEXTS, "llm", "a")]
        if not is_text:
            values = {
                "step": INTS[:9],
                "start_time": [START + at * 500_000 for at in range(8)],
                "handoff_confirmed": [True, False],
            }.get(column, [f for f in FLOATS if math.isfinite(f)])
        operators = [*OPERATORS, *(("contains", "starts with") if is_text else ())]
        if column == "handoff_confirmed":
            operators = ["=", "!=", "is null", "is not null"]
        op = rng.choice(operators)
        if op in ("is null", "is not null"):
            return Filter(column, op)
        if op in ("in", "not in"):
            return Filter(column, op, [rng.choice(values) for _ in range(rng.randrange(4))])
        return Filter(column, op, rng.choice(values))

    where = tuple(condition() for _ in range(rng.choice([0, 1, 1, 2])))
    times = {"since": START + 500_000, "until": START + 3_000_000} if rng.random() < 0.2 else {}
    if rng.random() < 0.5:
        order = tuple(Order(rng.choice(columns), rng.random() < 0.5) for _ in range(2))
        chosen = () if rng.random() < 0.3 else ("span_id", rng.choice(columns))
        return SpanQuery(
            where=where, order=order, columns=chosen, limit=rng.choice([None, 7]), **times
        )
    functions = [Aggregate("count"), Aggregate("error_rate")]
    functions += [
        Aggregate(name, column)
        for name in ("sum", "avg", "min", "max", "p50", "p95", "p99")
        for column in ("duration_ms", "input_tokens", "measurements.k")
    ]
    functions += [Aggregate("min", "start_time"), Aggregate("max", "end_time")]
    return SpanQuery(
        where=where,
        group_by=tuple(dict.fromkeys(rng.choice(columns) for _ in range(rng.randrange(3)))),
        bucket_seconds=rng.choice([None, None, 1, 0.25]),
        aggregates=tuple(rng.sample(functions, 4)),
        **times,
    )


def filled(store: Store) -> Store:
    spans = list(hostile_spans(random.Random(8)))
    for at in range(0, SPANS, 80):
        batch = make_batch(spans[at : at + 80], first_seq=at + 1)
        store.run(store.storage.write(batch))
    return store


def answer(store: Store, query: SpanQuery) -> tuple[Any, list[Any]] | str:
    try:
        table = store.query(query)
    except QueryError as error:
        return type(error).__name__
    return table.schema, table.to_pylist()


def is_close(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(expected, list) and expected and isinstance(expected[0], tuple):
        return dict(found) == dict(expected)  # a map has no order
    return bool(found == expected)


def test_every_storage_gives_the_answers_that_memory_gives(any_store: Store) -> None:
    if isinstance(any_store.storage, MemoryStorage):
        return  # it would be compared with itself
    expected = filled(Store(MemoryStorage()))
    store = filled(any_store)
    rng = random.Random(88)
    shown = 0
    try:
        for number in range(QUERIES):
            query = query_of(rng)
            want, got = answer(expected, query), answer(store, query)
            if isinstance(want, str) or isinstance(got, str):
                assert got == want, f"{number}: {query}"
                continue
            assert got[0] == want[0], f"{number}: {query}"
            assert len(got[1]) == len(want[1]), f"{number}: {query}"
            for found, row in zip(got[1], want[1], strict=True):
                assert found.keys() == row.keys()
                for name, value in row.items():
                    assert is_close(found[name], value), f"{number} {name}: {query}"
            shown += bool(want[1])
        assert shown > QUERIES // 3, "the queries find something"
    finally:
        expected.close()


def test_no_payload_in_a_key_or_a_value_is_executed(any_store: Store) -> None:
    assert len(PAYLOADS) == 300
    spans = [
        make_span(at, session_id=p, tags=(p,), attributes={p: p}, measurements={p: 1.0})
        for at, p in enumerate(PAYLOADS)
    ]
    any_store.write(*spans)
    for payload in PAYLOADS:
        rows = any_store.rows(
            where=[
                ("session_id", "in", [payload]),
                ("tags", "contains", payload),
                (f"attributes.{payload}", "starts with", payload),
                (f"measurements.{payload}", "=", 1),
            ],
            group_by=[f"attributes.{payload}"],
            aggregates=["count", f"max:measurements.{payload}"],
        )
        assert [list(row.values()) for row in rows] == [[payload, 1, 1.0]], payload
    for payload in PAYLOADS[::100]:
        ordered = any_store.names(order=[f"-attributes.{payload}"], limit=1)
        assert len(ordered) == 1
        assert any_store.delete(equal={"session_id": payload}) == 1
    assert len(any_store.spans()) == len(PAYLOADS) - len(PAYLOADS[::100])


@pytest.mark.parametrize("payload", PAYLOADS[::10])
def test_no_payload_is_a_column_an_operator_or_a_function(payload: str) -> None:
    for wrong in (
        {"where": [(payload, "=", "a")]},
        {"where": [("name", payload, "a")]},
        {"columns": [payload]},
        {"order": [payload]},
        {"group_by": [payload]},
        {"aggregates": [f"{payload}:duration_ms"]},
        {"aggregates": [f"sum:{payload}"]},
        {"limit": payload},
        {"bucket_seconds": payload},
    ):
        with pytest.raises(QueryError):
            SpanQuery.build(**wrong)  # type: ignore[arg-type]
