"""Handoffs from runs: who handed over to whom, and how it ended, whatever state the log is in."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llmops_core.analysis.handoffs import handoffs_of, loops_of
from llmops_core.analysis.importers import events_from_messages, events_from_records
from llmops_core.analysis.names import Aliases
from llmops_core.analysis.repair import repair


class Log:
    """Writes the records of one session."""

    def __init__(self, session: str = "s") -> None:
        self.session = session
        self.records: list[dict[str, Any]] = []
        self.root = self.add("workflow", "run", None, 0, 1000)

    def add(
        self, kind: str, name: str, parent: str | None, start: float, end: float, **more: Any
    ) -> str:
        span_id = f"{self.session}-{len(self.records)}"
        self.records.append(
            {"event_id": span_id, "span_id": span_id, "session_id": self.session, "type": kind,
             "name": name, "parent_span_id": parent, "start": start, "end": end,
             "status": "ok", **more}
        )  # fmt: skip
        return span_id

    def agent(
        self, name: str, start: float, end: float, parent: str | None = None, **more: Any
    ) -> str:
        return self.add("agent", name, parent or self.root, start, end, **more)


def analysed(
    records: list[dict[str, Any]],
) -> tuple[list[tuple[str, str, str]], list[tuple[Any, int]]]:
    aliases = Aliases()
    found, loops = [], []
    for partition in repair(events_from_records(records), aliases):
        handoffs = handoffs_of(partition, aliases)
        found += [(h.source, h.target, h.status) for h in handoffs]
        loops += [(loop.agents, loop.turns) for loop in loops_of(handoffs)]
    return found, loops


def test_agents_below_a_workflow_follow_each_other_in_time() -> None:
    log = Log()
    log.agent("a", 1, 2)
    log.agent("b", 2, 3)
    log.agent("b", 3, 4)  # the same agent again
    log.agent("c", 4, 5)
    random.Random(1).shuffle(log.records)
    assert analysed(log.records)[0] == [("a", "b", "ok"), ("b", "c", "ok")]


def test_branches_come_from_the_last_agent_and_all_lead_to_the_next() -> None:
    log = Log()
    log.agent("plan", 1, 2)
    log.agent("x", 2, 5)
    log.agent("y", 2.1, 4)
    log.agent("join", 5, 6)
    assert sorted(analysed(log.records)[0]) == [
        ("plan", "x", "ok"), ("plan", "y", "ok"), ("x", "join", "ok"), ("y", "join", "ok"),
    ]  # fmt: skip


def test_an_overlap_below_ten_milliseconds_is_skew_and_not_parallel() -> None:
    log = Log()
    log.agent("a", 1, 2.008)
    log.agent("b", 2, 3.008)
    log.agent("c", 3, 4)
    assert analysed(log.records)[0] == [("a", "b", "ok"), ("b", "c", "ok")]


def test_children_of_an_agent_are_handed_their_work_by_it_and_not_by_each_other() -> None:
    log = Log()
    boss = log.agent("boss", 1, 9)
    log.agent("one", 2, 3, boss)
    log.agent("two", 4, 5, boss)
    assert analysed(log.records)[0] == [("boss", "one", "ok"), ("boss", "two", "ok")]


def test_a_failure_and_its_retry_are_handoffs_from_the_same_sender() -> None:
    log = Log()
    log.agent("a", 1, 2)
    log.agent("b", 2, 3, status="error")
    log.agent("b", 3, 4, status="error", attempt=2)
    log.agent("b", 4, 5, attempt=3)
    log.agent("c", 5, 6)
    assert analysed(log.records)[0] == [
        ("a", "b", "failed"), ("a", "b", "failed"), ("a", "b", "retried"), ("b", "c", "ok"),
    ]  # fmt: skip


def test_who_takes_over_from_a_failed_agent_has_the_same_sender() -> None:
    log = Log()
    log.agent("a", 1, 2)
    log.agent("b", 2, 3, status="error")
    log.agent("spare", 3, 4)
    assert analysed(log.records)[0] == [("a", "b", "failed"), ("a", "spare", "ok")]


def test_a_refused_transfer_whose_target_never_ran_is_a_failed_handoff() -> None:
    log = Log()
    a = log.agent("a", 1, 2)
    log.add("handoff", "transfer_to_b", a, 1.9, 1.95, status="error", target="b")
    log.add("handoff", "transfer_to_c", a, 1.9, 1.95, target="c")
    log.agent("c", 2, 3)
    assert analysed(log.records)[0] == [("a", "b", "failed"), ("a", "c", "ok")]


def test_models_tools_and_wrappers_are_no_agents_but_a_node_is() -> None:
    log = Log()
    chain = log.add("chain", "RunnableSequence", log.root, 1, 2)
    a = log.add("chain", "RunnableLambda", chain, 1, 2, metadata={"langgraph_node": "a"})
    log.add("llm", "billing_agent", a, 1.1, 1.2)
    log.add("tool", "search_agent", a, 1.3, 1.4)
    wrapper = log.add("chain", "agent_executor", log.root, 2, 3)
    log.agent("b", 2, 3, wrapper)
    assert analysed(log.records)[0] == [("a", "b", "ok")]


def test_spellings_of_one_name_are_one_agent() -> None:
    log = Log()
    log.agent("billing_agent", 1, 2)
    log.agent("BillingAgent", 2, 3)
    log.agent("Triage Agent", 3, 4)
    log.agent("billing_agent", 4, 5)
    assert analysed(log.records)[0] == [
        ("billing_agent", "Triage Agent", "ok"), ("Triage Agent", "billing_agent", "ok"),
    ]  # fmt: skip


def test_repeated_events_count_once() -> None:
    log = Log()
    log.agent("a", 1, 2)
    log.agent("b", 2, 3)
    assert analysed(log.records * 3)[0] == [("a", "b", "ok")]


def test_a_lost_parent_is_found_by_what_contains_the_run() -> None:
    log = Log()
    boss = log.agent("boss", 1, 9)
    wrapper = log.add("chain", "executor", boss, 2, 3)
    log.agent("worker", 2, 3, wrapper)
    log.agent("next", 10, 11)
    kept = [r for r in log.records if r["span_id"] != wrapper]
    assert analysed(kept)[0] == [("boss", "worker", "ok"), ("boss", "next", "ok")]
    (partition,) = repair(events_from_records(kept))
    assert (partition.quality.orphans, partition.quality.reattached) == (1, 1)
    assert 0 < partition.quality.score < 1


def test_sessions_never_mix_however_they_are_shuffled() -> None:
    one, other = Log("one"), Log("other")
    one.agent("a", 1, 2)
    other.agent("x", 1.5, 2.5)
    one.agent("b", 3, 4)
    other.agent("y", 3.5, 4.5)
    records = one.records + other.records
    random.Random(2).shuffle(records)
    assert sorted(analysed(records)[0]) == [("a", "b", "ok"), ("x", "y", "ok")]


def test_an_orphan_is_never_hung_below_another_session() -> None:
    one, other = Log("one"), Log("other")
    one.agent("boss", 1, 9)
    other.agent("worker", 2, 3, parent="gone")
    assert analysed(one.records + other.records)[0] == []


@pytest.mark.parametrize(("turns", "is_loop"), [(3, False), (4, True), (7, True)])
def test_four_alternating_handoffs_are_a_loop(turns: int, is_loop: bool) -> None:
    log = Log()
    for at in range(turns + 1):
        log.agent("ab"[at % 2], at + 1, at + 2)
    log.agent("c", 50, 51)
    assert analysed(log.records)[1] == ([(("a", "b"), turns)] if is_loop else [])


def test_a_third_agent_breaks_a_loop() -> None:
    log = Log()
    for at, name in enumerate("ababcababc"):
        log.agent(name, at + 1, at + 2)
    assert analysed(log.records)[1] == []


def test_message_logs_are_read_by_who_speaks() -> None:
    said = ["human", "Boss (thought)", "Boss (-> Web Surfer)", "WebSurfer", "Computer_terminal",
            "Boss (thought)", "user"]  # fmt: skip
    aliases = Aliases()
    (partition,) = repair(
        events_from_messages([{"name": n, "content": "x"} for n in said]), aliases
    )
    found = [(h.source, h.target) for h in handoffs_of(partition, aliases)]
    assert found == [("Boss", "WebSurfer"), ("WebSurfer", "Boss")]


def test_on_null_data_there_are_no_handoffs_and_no_loops() -> None:
    """Agents with random names that run alone, each in a session of its own."""
    records = []
    chance = random.Random(3)
    for at in range(200):
        log = Log(f"s{at}")
        log.agent(f"agent{chance.randrange(5)}", 1, 2)
        records += log.records
    chance.shuffle(records)
    assert analysed(records) == ([], [])
