"""How long the analysis of agents takes, and how much memory: CPU time on tables of stored spans.

    python benchmarks/analytics_speed.py --spans 100000 --handoffs 1000

Makes traces of a support desk, each handoff with about 1 kB of text on either side, in Arrow tables of
20,000 spans as a storage returns them. Only the analysis is timed. Also prints what one comparison of
two texts of 1 kB takes.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmops_core import Span, spans_to_arrow
from llmops_core.analysis.multi_agent import MultiAgent
from llmops_core.analysis.texts import compare

if TYPE_CHECKING:
    import pyarrow as pa

START = 1_767_225_600_000_000
TABLE_SPANS = 20_000
NAMES = ("triage", "billing", "shipping", "research", "reviewer", "writer")
FILLER = (
    "The customer wrote that the parcel did not arrive and would like to know what happens next. "
    "Please look into the matter, compare it with what was agreed and answer in a friendly way. "
)


def text(chance: random.Random, size: int) -> str:
    """Return a message with some twenty values per kB."""
    parts = []
    while sum(map(len, parts)) < size:
        parts.append(
            f"Order #A-{chance.randrange(10**5)} of {chance.choice(('Anna', 'Omar', 'Mei'))} Berg,"
            f" user{chance.randrange(999)}@example.org, ${chance.randrange(10**4)}.50 on 2025-0"
            f"{chance.randrange(1, 9)}-12, {chance.randrange(2, 40)} boxes. " + FILLER
        )
    return "".join(parts)[:size]


def trace(number: int, spans: int, handoffs: int) -> list[Span]:
    """Return a trace of *spans* spans with agents that hand over *handoffs* times."""
    chance = random.Random(number)
    clock = START + number * 60_000_000
    made: list[Span] = []

    def add(kind: str, name: str, parent: str | None, ms: int, **fields: object) -> str:
        span_id = f"{number:08x}{len(made):08x}"
        made.append(
            Span(
                span_id=span_id, trace_id=f"{number:032x}", parent_id=parent, kind=kind, name=name,
                outcome="ok", session_id=f"s{number}", start_time=clock, end_time=clock + ms * 1000,
                **fields,
            )
        )  # fmt: skip
        return span_id

    root = add("workflow", "desk", None, 50_000)
    left = spans - 1
    said = text(chance, 1000)
    for turn in range(handoffs + 1):
        run = add("agent", NAMES[turn % len(NAMES)], root, 900, agent=NAMES[turn % len(NAMES)])
        given = json.dumps([{"role": "user", "content": said}])
        said = said.replace("#A-1", "#B-1") if turn % 3 else text(chance, 1000)
        add("llm", "m-1", run, 100, input=given, output=said, input_tokens=250, output_tokens=250)
        tools = (left - 2 * (handoffs + 1)) // (handoffs + 1)
        for _ in range(max(0, tools)):
            add("tool", "lookup", run, 5, input="{}", output="ok")
        clock += 1_000_000
    while len(made) < spans:
        add("tool", "lookup", root, 5)
    return made


def tables(spans: int, handoffs: int) -> Iterator[pa.Table]:
    """Yield the traces in tables of at most 20,000 spans."""
    per_trace = 500
    traces = max(1, spans // per_trace)
    batch: list[Span] = []
    done = 0
    for number in range(traces):
        due = handoffs * (number + 1) // traces
        batch += trace(number, per_trace, due - done)
        done = due
        if len(batch) + per_trace > TABLE_SPANS:
            yield spans_to_arrow(batch)
            batch = []
    if batch:
        yield spans_to_arrow(batch)


def main() -> None:
    """Print the time of the analysis, its parts and the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--handoffs", type=int, default=1_000)
    arguments = parser.parse_args()

    chance = random.Random(1)
    pairs = [(text(chance, 1000), text(chance, 1000)) for _ in range(50)]
    pairs += [(one, one.replace("#A-1", "#B-1")) for one, _ in pairs]
    compare(*pairs[0])
    began = time.process_time()
    for one, other in pairs:
        compare(one, other)
    each = (time.process_time() - began) / len(pairs) * 1e3
    print(f"two texts of 1 kB: {each:.2f} ms CPU")

    analysis = MultiAgent()
    took = 0.0
    spans = handoffs = drifts = 0
    for table in tables(arguments.spans, arguments.handoffs):
        began = time.process_time()
        found = analysis.add_arrow(table)
        took += time.process_time() - began
        spans += table.num_rows
        handoffs += len(found.handoffs)
        drifts += len(found.drift)
    began = time.process_time()
    rows = len(analysis.agents()) + len(analysis.edges())
    took += time.process_time() - began
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    print(
        f"{spans:,} spans, {handoffs:,} handoffs ({drifts:,} compared): {took:.2f} s CPU,"
        f" {took / spans * 1e6:.1f} µs a span, {rows} rows; peak memory {peak:,.0f} MB"
    )


if __name__ == "__main__":
    main()
