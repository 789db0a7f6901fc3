"""What breakers cost: CPU microseconds of a decorated call, without limits, with a run's, with all."""

from __future__ import annotations

import time

from llmops_core import Breakers, Monitor, monitor_llm

CALLS, ROUNDS = 2_000, 12
MANY = 10**9


def cost_us(breakers: Breakers | None) -> float:
    """Return the CPU microseconds of a call on its own thread, the best of some rounds."""
    monitor = Monitor(
        storage="memory:",
        durability="memory",
        breakers=breakers,
        queue_events=10_000_000,
        queue_bytes=2**40,
    )

    @monitor_llm("ask", "llm", monitor=monitor)
    def ask(question: str) -> str:
        return question

    @monitor_llm("run", "workflow", monitor=monitor)
    def run() -> float:
        started = time.thread_time_ns()
        for _ in range(CALLS):
            ask("x")
        return (time.thread_time_ns() - started) / CALLS / 1_000

    best = min(run() for _ in range(ROUNDS))
    monitor.close(0.1)
    return best


def main() -> None:
    """Print the three figures."""
    of_run = Breakers(tokens=MANY, calls=MANY, seconds=MANY)
    every = Breakers(
        tokens=MANY,
        calls=MANY,
        seconds=MANY,
        ping_pong=3,
        fan_out=1_000,
        session_tokens=MANY,
        user_calls=MANY,
        project_tokens=MANY,
    )
    for name, breakers in (("none", None), ("of a run", of_run), ("all", every)):
        print(f"limits: {name:<10}{cost_us(breakers):6.2f} us a call")


if __name__ == "__main__":
    main()
