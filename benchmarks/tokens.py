"""How fast tokens are counted beside tiktoken, and how wrong the estimate is, in one run.

Throughput is of the process's CPU time, variants interleaved; the texts are those of
``tests/core/token_counts.json``. tiktoken takes part where its vocabulary is on this machine
(``llmops tokens install``)::

    python benchmarks/tokens.py                # about ten seconds
    python benchmarks/tokens.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from llmops_core.measuring import counting
from llmops_core.measuring.estimating import estimate_tokens

DATA = json.loads(
    (Path(__file__).parents[1] / "tests" / "core" / "token_counts.json").read_text(encoding="utf-8")
)
TEXTS: list[str] = [text * 5 for text in DATA["texts"].values()]
ENCODINGS = ("cl100k_base", "o200k_base")


def variants(encoding: str) -> dict[str, Callable[[str], int]]:
    made = {
        "ours": counting.counter_for(encoding),
        "tiktoken": counting._of_tiktoken(encoding),
        "estimate": lambda text: estimate_tokens(text, encoding),
    }
    return {name: count for name, count in made.items() if count is not None}


def throughput(encoding: str, rounds: int) -> dict[str, float]:
    """Return millions of characters a second of CPU time."""
    counters = variants(encoding)
    found: dict[str, list[float]] = {name: [] for name in counters}
    size = sum(map(len, TEXTS))
    for _ in range(rounds):
        for name in random.sample(list(counters), len(counters)):
            start = time.process_time()
            for _ in range(20):
                for text in TEXTS:
                    counters[name](text)
            found[name].append(size * 20 / (time.process_time() - start) / 1e6)
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    for encoding in ENCODINGS:
        rates = throughput(encoding, rounds)
        shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        print(f"{encoding}: {shown} million characters a second")
        if "tiktoken" in rates:
            print(f"{encoding}: ours / tiktoken {rates['ours'] / rates['tiktoken']:.2f}")
        pairs = zip(DATA["texts"].values(), DATA["counts"][encoding], strict=True)
        off = sorted(abs(estimate_tokens(text, encoding) / count - 1) for text, count in pairs)
        print(
            f"{encoding}: estimate off by {off[len(off) // 2]:.0%} (median), {off[-1]:.0%} (worst)"
        )


if __name__ == "__main__":
    main()
