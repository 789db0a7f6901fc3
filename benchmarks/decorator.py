"""What a decorated call costs its caller, in CPU time of the calling thread, interleaved in one run.

Variants: the bare function; a minimal span (ids, two clock readings and a context variable, appended
to a list); an OpenTelemetry span with a batch processor whose exporter drops everything; where it is
installed, llamonitor-async with a backend that drops everything (its writer works in the caller's event
loop, until nothing waits); ours. The
calling thread's own CPU time is read, and the process's too: what other threads do for it. Prints
the median of the rounds, microseconds a call above the bare function::

    python benchmarks/decorator.py             # about half a minute
    python benchmarks/decorator.py --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import random
import statistics
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from llmops_core import Monitor, monitor_llm

CALLS = 2_000
TEXT = "What is the weather like in Paris today? " * 4
Function = Callable[[str], Any]


def work(prompt: str) -> str:
    return prompt


async def awork(prompt: str) -> str:
    return prompt


current: ContextVar[int | None] = ContextVar("current", default=None)
rows: list[Any] = []


def minimal(function: Function) -> Function:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        run_id, parent, start = random.getrandbits(128), current.get(), time.monotonic_ns()
        token = current.set(run_id)
        try:
            return function(*args, **kwargs)
        finally:
            current.reset(token)
            rows.append((run_id, parent, start, time.monotonic_ns(), args))

    return call


def opentelemetry(function: Function) -> Function | None:
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import (
            BatchSpanProcessor,
            SpanExporter,
            SpanExportResult,
        )
    except ImportError:
        return None

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer("benchmark")

    @functools.wraps(function)
    def call(prompt: str) -> Any:
        with tracer.start_as_current_span("work") as span:
            span.set_attribute("input", prompt)
            result = function(prompt)
            span.set_attribute("output", result)
            return result

    return call


class NowhereBackend:
    """Drops what llamonitor-async would store."""

    async def initialize(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def write_batch(self, events: list[Any]) -> None:
        """Drop them."""

    write_event = write_batch

    def supports_batch_writes(self) -> bool:
        return True


def llamonitor(function: Function) -> Callable[[Function], tuple[float, float]] | None:
    """Return what runs a block of calls of llamonitor-async; None where it is not installed."""
    try:
        from llmops_monitoring import MonitorConfig, MonitoringWriter, monitor_llm
    except ImportError:
        return None

    async def backend(writer: Any) -> NowhereBackend:
        return NowhereBackend()

    MonitoringWriter._create_backend = backend
    decorated = monitor_llm()(function)

    async def calls() -> None:
        MonitoringWriter._instance = None  # each loop has a writer of its own
        writer = MonitoringWriter(MonitorConfig(max_queue_size=2 * CALLS))
        await writer.start()
        for _ in range(CALLS):
            await decorated(TEXT)
        await writer.queue.join()
        await writer.stop()

    def run(_: Function) -> tuple[float, float]:
        thread, process = time.thread_time_ns(), time.process_time_ns()
        asyncio.run(calls())
        spent = time.thread_time_ns() - thread
        return spent / CALLS / 1000, (time.process_time_ns() - process) / CALLS / 1000

    return run


def block(function: Function) -> tuple[float, float]:
    """Run one block of calls; return microseconds a call of this thread, and of the process."""
    thread, process = time.thread_time_ns(), time.process_time_ns()
    for _ in range(CALLS):
        function(TEXT)
    spent = time.thread_time_ns() - thread
    time.sleep(0.05)  # what was queued is worked off before the next variant begins
    return spent / CALLS / 1000, (time.process_time_ns() - process) / CALLS / 1000


def ablock(function: Function) -> tuple[float, float]:
    async def calls() -> None:
        for _ in range(CALLS):
            await function(TEXT)

    thread, process = time.thread_time_ns(), time.process_time_ns()
    asyncio.run(calls())
    spent = time.thread_time_ns() - thread
    time.sleep(0.05)
    return spent / CALLS / 1000, (time.process_time_ns() - process) / CALLS / 1000


def measure(rounds: int) -> dict[str, list[tuple[float, float]]]:
    monitor = Monitor(storage="memory:", durability="memory")
    plain: dict[str, Function | None] = {
        "undecorated": work,
        "minimal span": minimal(work),
        "OpenTelemetry": opentelemetry(work),
        "ours": monitor_llm(monitor=monitor)(work),
    }
    variants: dict[str, tuple[Any, Function]] = {n: (block, f) for n, f in plain.items() if f}
    variants["undecorated, async"] = (ablock, awork)
    theirs = llamonitor(awork)
    if theirs is not None:
        variants["llamonitor-async, async"] = (theirs, awork)
    variants["ours, async"] = (ablock, monitor_llm(monitor=monitor)(awork))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name in random.sample(list(variants), len(variants)):
            run, function = variants[name]
            spent = run(function)
            rows.clear()
            if number:  # the first round warms up
                found[name].append(spent)
        monitor.flush()
    monitor.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    found = measure(parser.parse_args().rounds)
    medians = {
        name: tuple(statistics.median(column) for column in zip(*spent, strict=True))
        for name, spent in found.items()
    }
    print(f"{'':<25}{'caller, µs a call':>20}{'whole process':>16}")
    for name, (caller, process) in medians.items():
        base = medians["undecorated, async" if "async" in name else "undecorated"]
        print(f"{name:<25}{caller - base[0]:>20.2f}{process - base[1]:>16.2f}")
    if "OpenTelemetry" in medians:
        bare = medians["undecorated"][0]
        ratio = (medians["ours"][0] - bare) / (medians["OpenTelemetry"][0] - bare)
        print(f"ours / OpenTelemetry: {ratio:.2f}")


if __name__ == "__main__":
    main()
