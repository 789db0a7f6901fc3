"""Ask a model: whether two values mean the same, and whether a loss matters. Both within a budget.

What no rule matches is asked about first (`SameThing`), so that nobody judges a loss that is none;
then the worst handoffs (`Judge`). Nothing of this is on by default: the analysis itself asks no model.
Here the model is scripted; give both a function that calls yours.
"""

from collections.abc import Callable

from llmops_core.analysis.drift import Drift
from llmops_core.analysis.equivalence import Equivalences
from llmops_core.analysis.multi_agent import MultiAgent
from llmops_core.span import Span

PROMPT = """{source} handed work over to {target}.
These values did not arrive: {lost}.
Does {target} need them? Answer with yes or no, then one sentence."""

SAME = """In a support desk's messages, do {first} and {second} mean the same {kind}?
Answer yes or no."""


class SameThing:
    """An equivalence: asks the model about two values that are left over."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask

    def same(self, kind: str, first: str, second: str) -> bool:
        """Return whether the model says yes."""
        return self._ask(SAME.format(kind=kind, first=first, second=second)).startswith("yes")


class Judge:
    """Judges handoffs until its budget is spent; what is left has no judgement."""

    def __init__(self, ask: Callable[[str], str], *, budget_usd: float, usd_a_call: float) -> None:
        self._ask = ask
        self._left_usd = budget_usd
        self._usd_a_call = usd_a_call
        self.calls = 0

    def judge(self, row: Drift) -> str | None:
        """Return what the model says of a handoff, or None where the budget is spent."""
        if not row.lost or self._left_usd < self._usd_a_call:
            return None
        self._left_usd -= self._usd_a_call
        self.calls += 1
        lost = ", ".join(f"{item.value} ({item.type})" for item in row.lost)
        return self._ask(PROMPT.format(source=row.source, target=row.target, lost=lost))


def scripted(prompt: str) -> str:
    """Answer as a model would."""
    if prompt.startswith("In a support desk"):
        return "yes" if "Bob Miller" in prompt and "Robert Miller" in prompt else "no"
    if "#A-" in prompt:
        return "yes: without the order number it cannot find the order."
    return "no: it can answer without."


def main() -> None:
    """Judge the worst two of three handoffs: the budget is enough for no more."""
    start = 1_767_225_600_000_000
    spans = []
    for number, (given, received) in enumerate(
        [
            ("order #A-1001 of Anna Berg is late", "an order is late"),
            ("Anna Berg asks for the opening hours of 3 shops", "opening hours of 3 shops"),
            ("call 212-555-0147 about $40, says Bob Miller", "about $40, says Robert Miller"),
        ]
    ):
        for at, (name, text) in enumerate([("triage", given), ("desk", received)]):
            moment = start + (number * 10 + at) * 1000
            spans.append(
                Span(
                    span_id=f"{number}{at}", trace_id=f"{number:032x}", kind="agent", name=name,
                    agent=name, input=text, outcome="ok", start_time=moment, end_time=moment + 900,
                )
            )  # fmt: skip
    judge = Judge(scripted, budget_usd=0.02, usd_a_call=0.01)
    asked = Equivalences([SameThing(scripted)], calls=10, seconds=30)
    rows = MultiAgent(equivalences=asked).add_spans(spans).drift
    for row in sorted(rows, key=lambda row: -(row.drift or 0.0)):
        lost = [item.value for item in row.lost]
        print(
            f"{row.drift:.0%} lost {lost}: {judge.judge(row) or 'not judged, the budget is spent'}"
        )
    same = [change for row in rows for change in row.reformatted]
    print("the same:", *(f"{change.value} and {change.becomes}" for change in same))
    print(f"{judge.calls} calls to judge, {asked.counts['calls']} about what is the same")


if __name__ == "__main__":
    main()
