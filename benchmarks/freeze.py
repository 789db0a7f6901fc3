"""Print what freezing costs the host's thread: ``python benchmarks/freeze.py``.

Each figure is the best of several rounds, in microseconds for one freeze.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from llmops_core.freeze.freezer import Freezer


def best_us(call: Callable[[], object], number: int) -> float:
    """Return the best time of one call, in microseconds."""
    call()
    return min(timeit.repeat(call, number=number, repeat=9)) / number * 1e6


def small_state() -> dict[str, object]:
    """Make a state of about 2 KB in 36 nodes."""
    documents = [{"id": f"doc-{n}", "text": "t" * 220, "score": n / 7} for n in range(6)]
    return {
        "question": "q" * 300,
        "documents": documents,
        "step": 3,
        "route": "research",
        "done": False,
        "error": None,
        "settings": {"temperature": 0.2, "model": "small", "tags": ["a", "b"]},
    }


def large_state() -> dict[str, object]:
    """Make a state of about 5 MB."""
    return {f"part-{n}": [{"text": "x" * 1000, "n": m} for m in range(50)] for n in range(100)}


def report(name: str, freezer: Freezer, value: object, number: int = 200) -> None:
    """Print one line."""
    print(f"{name:<44}{best_us(lambda: freezer.freeze(value), number):>12.1f}")


def messages(freezer: Freezer, tight: Freezer) -> None:
    """Print the lines that need LangChain's messages."""
    try:
        from langchain_core.messages import AIMessage, HumanMessage
    except ImportError:
        print("langchain-core is not installed: no figures for messages")
        return
    from llmops_integrations.langchain.known_types import register

    register()
    plain = [kind(f"message {n} " + "word " * 20) for n in range(100)
             for kind in (HumanMessage, AIMessage)]  # fmt: skip
    blocks = [kind([{"type": "text", "text": f"message {n} " + "word " * 20}]) for n in range(100)
              for kind in (HumanMessage, AIMessage)]  # fmt: skip
    report("200 messages, cached", freezer, plain)
    report("200 messages, walked each time", freezer, blocks)
    report("200 messages, 8 kB kept of 24 kB", tight, plain)


def main() -> None:
    """Print the table."""
    freezer, roomy = Freezer(), Freezer(text_limit=1_000_000)
    print(f"{'freeze':<44}{'µs':>12}")
    report("a lone text of 200 characters", freezer, "x" * 200, 20_000)
    report("a state of 2 KB, 36 nodes", freezer, small_state(), 5000)
    messages(roomy, freezer)
    report("a state of 5 MB, 8 kB kept", freezer, large_state())
    report("a state of 5 MB, 1 MB kept", roomy, large_state())
    report("a dict of 1,000,000 keys", freezer, dict.fromkeys(map(str, range(1_000_000)), 1))
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    report("a list 100,000 deep", freezer, nested)
    while nested:  # taken apart by hand: freeing it at once would recurse
        nested = nested.pop()  # type: ignore[assignment]


if __name__ == "__main__":
    main()
