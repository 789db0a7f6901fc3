"""Set-up errors as sentences: words begin with a capital, names are left as they are typed."""

from __future__ import annotations

import pytest

from llmops_core import ConfigError, LLMOpsError, Monitor


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("unknown setting 'x'", "expected one of a, b"), "Unknown setting 'x'. Expected one of a, b."),
        (("no, nothing",), "No, nothing."),
        (("content_limit=-1", "expected 0"), "content_limit=-1. Expected 0."),
        (("limit=0",), "limit=0."),
        (("found", "", "jsonl:./spans.jsonl"), "Found. jsonl:./spans.jsonl."),
        (("found", "", "columns=['name']"), "Found. columns=['name']."),
        (("p95 needs a column", "", "write p95:duration_ms"),
         "p95 needs a column. Write p95:duration_ms."),
        (("'data' is a file",), "'data' is a file."),
        (("--agg 'a,b'",), "--agg 'a,b'."),
        (("found", "", "pip install 'x[demo]'"), "Found. pip install 'x[demo]'."),
        (("found", "", "llmops traces lists the ids"), "Found. llmops traces lists the ids."),
    ],
)  # fmt: skip
def test_a_sentence_begins_with_a_capital_unless_it_begins_with_a_name(
    parts: tuple[str, ...], text: str
) -> None:
    assert str(LLMOpsError(*parts)) == text


def test_a_wrong_setting_is_named_as_it_is_written() -> None:
    with pytest.raises(ConfigError, match=r"^content_limit"):
        Monitor("memory:", content_limit=-1)
