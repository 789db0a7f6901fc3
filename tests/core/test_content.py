"""Content is clean text for every storage, in one canonical form."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_core.freeze.content import encode_content, sanitize_text
from llmops_core.freeze.freezer import Freezer, Frozen, Message

WHOLE = Freezer(1_000_000, 1_000_000, 200)


def text_of(value: object) -> str:
    return encode_content(WHOLE.freeze(value)).text


def test_a_lone_text_is_stored_as_it_is() -> None:
    assert text_of('say "hi"') == 'say "hi"'


def test_anything_else_is_compact_json_with_sorted_keys_in_utf8() -> None:
    assert text_of({"b": [1, None, True], "a": {"z": "é😀", "y": 1.5}}) == (
        '{"a":{"y":1.5,"z":"é😀"},"b":[1,null,true]}'
    )


def test_equal_values_have_equal_text_whatever_their_order() -> None:
    assert text_of({"a": 1, "b": {"c", "d"}}) == text_of({"b": {"d", "c"}, "a": 1})
    assert text_of({"a\0": 1, "a\u2400": 2}) == text_of({"a\u2400": 2, "a\0": 1})


def test_nul_and_lone_surrogates_are_replaced_and_counted_in_keys_too() -> None:
    content = encode_content(WHOLE.freeze({"a\0": "x\0\0", "b\ud800": ["\udfff"]}))
    assert json.loads(content.text) == {"a\u2400": "x\u2400\u2400", "b\ufffd": ["\ufffd"]}
    assert (content.nul, content.surrogates) == (3, 2)


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    content = encode_content(WHOLE.freeze({"a": "\\u0000"}))
    assert content.text == r'{"a":"\\u0000"}'
    assert content.nul == 0


def test_keys_that_meet_once_they_are_clean_get_a_suffix() -> None:
    assert json.loads(text_of({"a\0": 1, "a\u2400": 2})) == {"a\u2400": 1, "a\u2400#2": 2}


def test_a_message_keeps_the_order_of_its_keys_on_the_slow_path_too() -> None:
    content = encode_content(WHOLE.freeze(Message("user", "x\0", tool_calls=[{"id": "\0"}])))
    assert list(json.loads(content.text)) == [
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
    ]
    assert content.nul == 2


@pytest.mark.parametrize(
    ("head", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"%PDF-1.7", "application/pdf"),
        (b"RIFF1234WAVEfmt", "audio/wav"),
        (b"RIFF1234WEBP", "image/webp"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"anything", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_binary_data_becomes_its_type_size_and_hash(head: bytes, mime: str) -> None:
    found = json.loads(text_of({"image": head}))["image"]
    assert found["mime"] == mime
    assert found["size"] == len(head)
    assert len(found["sha256"]) == 64


def test_dates_are_iso_8601() -> None:
    value = [dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), dt.date(2024, 5, 1), dt.time(1, 2)]
    assert text_of(value) == '["2024-05-01T12:00:00Z","2024-05-01","01:02:00"]'


def test_the_size_is_that_before_the_cut() -> None:
    content = encode_content(Freezer(text_limit=10).freeze("é" * 100))
    assert (content.text, content.truncated, content.size) == ("é" * 10, True, 20 + 90)


@pytest.mark.parametrize("value", [
    object(), {1: 2}, float("nan"), [float("inf")], 2**70, [2**70], {"a": {1}}, b"x", "\ud800\0",
    {"\ud800": object()}, [10**5000],
])  # fmt: skip
def test_whatever_a_frozen_copy_holds_a_text_comes_out(value: object) -> None:
    content = encode_content(Frozen(value, False, 0, 0))
    assert content.text.encode()
    assert "\0" not in content.text


def test_a_clean_name_is_returned_as_it_is() -> None:
    name = "agent"
    assert sanitize_text(name) == (name, 0, 0)
    assert sanitize_text("a\0\ud800é") == ("a\u2400\ufffdé", 1, 1)


# --- the property -------------------------------------------------------------------------------

wild = st.text(st.characters(codec=None) | st.sampled_from("\0\ud800\udfff\\u"), max_size=12)
leaves = (
    st.none() | st.booleans() | st.floats() | wild
    | st.integers() | st.sampled_from([2**63, 2**64, -(2**63) - 1])
    | st.binary(max_size=20).map(b"raw data:".__add__) | st.datetimes(timezones=st.none() | st.just(dt.UTC))
)  # fmt: skip
keys = wild | st.integers() | st.booleans() | st.none() | st.binary(max_size=4) | st.floats()
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


def clean(text: str) -> str:
    return "".join(
        "\u2400" if c == "\0" else "\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text
    )


def canonical(value: Any) -> Any:
    """The documented form, in the plainest words."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        if value != value:
            return "NaN"
        return value if abs(value) != float("inf") else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) < value < 2**63 else str(value)
    if isinstance(value, bytes):
        return {"mime": "application/octet-stream", "sha256": hashlib.sha256(value).hexdigest(),
                "size": len(value)}  # fmt: skip
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): canonical(item) for key, item in value.items()}
    return value


@settings(deadline=None)
@given(trees)
def test_any_value_becomes_valid_json_that_arrow_accepts(value: object) -> None:
    content = encode_content(WHOLE.freeze(value))
    assert pa.array([content.text], pa.string())[0].as_py() == content.text
    assert content.size == len(content.text.encode())
    assert "\0" not in content.text
    if not isinstance(value, str):
        json.loads(content.text)


texts = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(wild, inner, max_size=5).filter(lambda d: len({*map(clean, d)}) == len(d)),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None)
@given(texts)
def test_the_text_equals_the_documented_form(value: object) -> None:
    text = text_of([value])
    assert json.loads(text) == [canonical(value)]
    if "." not in text and "e" not in text:  # the spelling of floats is msgspec's
        plain = json.loads(text)
        assert text == json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
