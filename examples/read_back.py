"""Ask questions of what was recorded: no server, no SQL, an Arrow table back."""

import random

from llmops_core import Monitor, open_storage


def record() -> None:
    """Record an hour's worth of a small shop, so that there is something to ask."""
    rng = random.Random(7)
    with Monitor("parquet:./llmops_data", service="shop") as monitor:
        recorder = monitor.recorder
        for number in range(200):
            root = rng.getrandbits(127)
            recorder.start(
                root, None, {"kind": "workflow", "name": "order", "session_id": str(number % 9)}
            )
            for name in ("look_up", "reserve"):
                run = rng.getrandbits(127)
                recorder.start(run, root, {"kind": "tool", "name": name})
                failed = name == "reserve" and rng.random() < 0.2
                end = (
                    {"outcome": "error", "error_type": "OutOfStock"}
                    if failed
                    else {"outcome": "ok"}
                )
                recorder.end(run, root, end)
            recorder.end(root, None, {"outcome": "ok"})


def main() -> None:
    """Print the slowest tools, the error rate of each, the busiest sessions, and one whole trace."""
    record()
    with open_storage("parquet:./llmops_data") as storage:
        print(
            storage.query(kind="tool", order=["-duration_ms"], limit=3).select(["name", "outcome"])
        )
        print(
            storage.query(
                kind="tool", group_by=["name"], aggregates=["count", "error_rate"]
            ).to_pylist()
        )
        busiest = storage.query(
            since="1h",
            kind="workflow",
            group_by=["session_id"],
            aggregates=["count"],
            order=["-count"],
        )
        print(busiest.to_pylist()[0])
        (failed,) = storage.query(outcome="error", limit=1).to_pylist()
        print(
            [
                f"{span.kind} {span.name} {span.outcome}"
                for span in storage.trace(failed["trace_id"])
            ]
        )


if __name__ == "__main__":
    main()
