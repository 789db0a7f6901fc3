"""Counts tokens exactly where a vocabulary is at hand, else says so once.

``rs-bpe`` brings ``cl100k_base`` and ``o200k_base`` along, takes linear time and is faster than
tiktoken (``python benchmarks/tokens.py``); tiktoken serves the older encodings, and both of these
where rs-bpe is missing. Text that looks like a special token is counted as plain text.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from llmops_core.measuring import vocabularies
from llmops_core.measuring.encodings import MERGED_AS

__all__ = ["Counter", "counter_for", "forget_counters"]

logger: Final = logging.getLogger("llmops")

Counter = Callable[[str], int]
#: tiktoken takes quadratic time on some texts and panics on others, and rs-bpe lets no other thread
#: run while it counts: they get pieces of this size.
PIECE_CHARS: Final = 20_000
#: Between a letter or digit and a space every encoding splits, so a cut there costs nothing.
_SEAM: Final = re.compile(r"[^\W_](?= )")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_lock = threading.Lock()
_counters: dict[str, Counter | None] = {}


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


def counter_for(encoding: str) -> Counter | None:
    """Return what counts in an encoding; None if its vocabulary is not on this machine.

    Loads it at first, a second at most. The reason why there is none is logged once.
    """
    name = MERGED_AS.get(encoding, encoding)
    with _lock:
        if name not in _counters:
            _counters[name] = _made(name)
        return _counters[name]


def forget_counters() -> None:
    """Look again for every vocabulary: one was placed."""
    with _lock:
        _counters.clear()


def _made(name: str) -> Counter | None:
    found = _of_rs_bpe(name) or _of_tiktoken(name)
    if found is None:
        logger.warning(
            "tokens of %s are estimated: its vocabulary is not on this machine. "
            "Do: pip install 'llmops-integrations[tokens]', or: llmops tokens install",
            name,
        )
        return None
    count = found

    def counter(text: str) -> int:
        try:
            return count(_SURROGATE.sub("\ufffd", text) if not text.isascii() else text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            raise ValueError(f"{name} cannot count: {type(error).__name__}") from None

    return counter


def _of_rs_bpe(name: str) -> Counter | None:
    if name not in ("cl100k_base", "o200k_base"):
        return None
    try:
        from rs_bpe.bpe import openai
    except Exception:  # not installed, or not for this machine
        return None
    count: Counter = getattr(openai, name)().count
    return lambda text: sum(count(piece) for piece in _pieces(text, forced=False))


def _of_tiktoken(name: str) -> Counter | None:
    data = vocabularies.find_vocabulary(name)
    if data is None:
        return None
    try:
        import tiktoken
    except Exception:  # not installed
        return None
    pattern = _PATTERNS[name]
    made: Any = tiktoken.Encoding(
        name, pat_str=pattern, mergeable_ranks=vocabularies.read_ranks(data), special_tokens={}
    )
    encode = made.encode_ordinary

    def count(text: str) -> int:
        return sum(len(encode(piece)) for piece in _pieces(text, forced=True))

    return count


def _pieces(text: str, *, forced: bool) -> Iterator[str]:
    """Cut a long text where every encoding splits anyway; where *forced*, also where none does."""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = start + PIECE_CHARS
        seam = _SEAM.search(text, end - 500, len(text) if not forced else end)
        if seam is None and not forced:
            break  # one run of letters: it cannot be cut
        end = seam.end() if seam is not None else end
        yield text[start:end]
        start = end
    yield text[start:]


_OLD: Final = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_CL100K: Final = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
_CONTRACTION: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K: Final = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_PATTERNS: Final = {
    "o200k_base": _O200K, "cl100k_base": _CL100K, "p50k_base": _OLD, "r50k_base": _OLD
}  # fmt: skip
