"""What is left over on both sides may mean the same: whoever knows is asked, within a budget."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest

from llmops_core import Registry, hookimpl
from llmops_core.analysis.equivalence import Equivalence, Equivalences
from llmops_core.analysis.multi_agent import MultiAgent
from llmops_core.analysis.texts import compare
from llmops_core.cli import analyze
from llmops_core.errors import LLMOpsError
from llmops_core.plugins import PluginHost


def _load_desk():
    spec = importlib.util.spec_from_file_location("desk", Path(__file__).with_name("desk.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Trace = _load_desk().Trace


class Pairs:
    """Knows some pairs, and remembers what it was asked."""

    def __init__(self, *known: tuple[str, str]) -> None:
        self.known = known
        self.asked: list[tuple[str, str, str]] = []

    def same(self, kind: str, first: str, second: str) -> bool:
        self.asked.append((kind, first, second))
        return (first, second) in self.known


class Fails:
    def same(self, kind: str, first: str, second: str) -> bool:
        raise TimeoutError(first)


BEFORE = "order #A-10423: met Bob Miller in Oslo, pays $40"
AFTER = "order #A-10423: met Uncle Rob in Oslo, pays $90"


def fates(asked: Equivalences | None) -> dict[str, str]:
    return {f.value: f.status for f in compare(BEFORE, AFTER, equivalences=asked).fates}


def test_only_leftovers_of_one_family_are_asked_about() -> None:
    pairs = Pairs()
    fates(Equivalences([pairs]))
    assert sorted(pairs.asked) == [("money", "$40", "$90"), ("phrase", "Bob Miller", "Uncle Rob")]


def test_what_means_the_same_is_reformatted_and_neither_lost_nor_added() -> None:
    assert fates(None)["Bob Miller"] != "reformatted"
    asked = Equivalences([Pairs(("Bob Miller", "Uncle Rob"))])
    found = fates(asked)
    assert found["Bob Miller"] == "reformatted"
    assert "Uncle Rob" not in found
    assert found["$40"] == fates(None)["$40"]
    assert dict(asked.counts) == {"calls": 2, "same": 1}


def test_one_value_answers_for_one_other_only() -> None:
    pairs = Pairs(("Bob Miller", "Uncle Rob"), ("Ann Holm", "Uncle Rob"))
    found = compare(
        "we ask Bob Miller, or Ann Holm", "we ask Uncle Rob", equivalences=Equivalences([pairs])
    )
    assert [f.status for f in found.fates].count("reformatted") == 1


def test_a_failing_one_is_counted_told_without_values_and_asked_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "llmops")
    asked = Equivalences([Fails()])
    plain = fates(None)
    for number in range(10):
        compare(f"met Bob{'x' * number} Miller", "met Uncle Rob", equivalences=asked)
    assert fates(asked) == plain
    assert dict(asked.counts) == {"calls": 5, "failed:TimeoutError": 5, "same": 0}
    assert [record.getMessage() for record in caplog.records] == [
        "equivalence Fails failed: TimeoutError"
    ]


def test_a_failing_one_does_not_keep_another_from_being_asked() -> None:
    found = fates(Equivalences([Fails(), Pairs(("Bob Miller", "Uncle Rob"))]))
    assert found["Bob Miller"] == "reformatted"


@pytest.mark.parametrize("answer", [None, "yes", 1])
def test_only_true_is_yes(answer: object) -> None:
    class Says:
        def same(self, kind: str, first: str, second: str) -> bool:
            return answer  # type: ignore[return-value]

    assert fates(Equivalences([Says()])) == fates(None)


def test_calls_beyond_the_budget_are_not_made_and_counted() -> None:
    pairs = Pairs()
    asked = Equivalences([pairs], calls=1)
    fates(asked)
    fates(asked)
    assert len(pairs.asked) == 1
    # Of the second time, one is known already.
    assert (asked.counts["calls"], asked.counts["over_budget"]) == (1, 2)


def test_seconds_beyond_the_budget_are_not_spent() -> None:
    now = [0.0]

    class Slow(Pairs):
        def same(self, kind: str, first: str, second: str) -> bool:
            now[0] += 3
            return super().same(kind, first, second)

    slow = Slow()
    asked = Equivalences([slow], seconds=2, clock=lambda: now[0])
    fates(asked)
    assert len(slow.asked) == 1
    assert asked.counts["over_budget"] == 1


def test_drift_of_stored_spans_asks_also_about_what_the_source_said_of_its_own() -> None:
    trace = Trace()
    trace.agent(
        "router", "order #A-10423 of Bob Miller", "case of Bob Miller, handled by Eve Adams"
    )
    trace.handoff("router", "billing", input="case of Bob Miller, handled by Eve Adams")
    trace.agent("billing", "order #A-10423 of Uncle Rob, handled by Mrs. Apple")
    pairs = Pairs(("Bob Miller", "Uncle Rob"), ("Eve Adams", "Mrs. Apple"))
    (row,) = MultiAgent(equivalences=Equivalences([pairs])).add_spans(trace.spans).drift
    assert ("Bob Miller", "Uncle Rob") in [(c.value, c.becomes) for c in row.reformatted]
    assert [lost.value for lost in row.lost] == []
    (plain,) = MultiAgent().add_spans(trace.spans).drift
    assert "Eve Adams" in [lost.value for lost in plain.lost]


class Plugin:
    name = "nicknames"

    @hookimpl
    def llmops_register(self, registry: Registry) -> None:
        registry.equivalence("nicknames", lambda argument: Pairs())
        registry.equivalence("nothing", lambda argument: object())


def test_a_registered_one_is_made_by_name_and_what_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert isinstance(PluginHost([Plugin()]).part("equivalence", "nicknames"), Equivalence)
    monkeypatch.setattr("llmops_core.plugins.PluginHost", lambda: PluginHost([Plugin()]))
    assert analyze._equivalences([], 5) is None
    assert analyze._equivalences(["nicknames"], 5) is not None
    with pytest.raises(LLMOpsError, match="'nothing' is of type object"):
        analyze._equivalences(["nothing"], 5)
