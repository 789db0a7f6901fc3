"""Measure something of your own: a collector is one object with one method, and needs no package."""

from collections.abc import Mapping, Sequence

from llmops_core import Monitor, SpanBatch


class Questions:
    """Counts the question marks of each span's input."""

    name = "questions"

    def collect(self, batch: SpanBatch) -> Mapping[str, Sequence[float | None]]:
        """Return one number for each span; a name that is no column becomes a measurement."""
        return {"questions": [span.input.count("?") if span.input else None for span in batch.rows]}


def main() -> None:
    """Record two runs by hand, as a framework's handler would, and read the measurement back."""
    with Monitor("memory:", collectors=["capacity", Questions()]) as monitor:
        recorder = monitor.recorder
        for run_id, text in enumerate(["Why? Why not?", "Because."], start=1):
            start = {"kind": "llm", "name": "model", "input": recorder.freeze(text)}
            recorder.start(run_id, None, start)
            recorder.end(run_id, None, {"outcome": "ok"})
        monitor.flush()
        for row in monitor.query(columns=["input", "input_words", "measurements"]).to_pylist():
            print(row["input"], row["input_words"], dict(row["measurements"]))


if __name__ == "__main__":
    main()
