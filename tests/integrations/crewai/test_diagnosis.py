"""Planted faults in crews are diagnosed from stored spans: a lost order number, an altered quantity."""

from __future__ import annotations

import pytest

pytest.importorskip("crewai")

from crewai import Process
from crewai_kit import ScriptedLLM, act, agent, crew, final, task

from llmops_core.analysis.multi_agent import Found, MultiAgent
from llmops_integrations.crewai import CrewListener


def diagnosed(spans, use) -> Found:
    with CrewListener(spans.monitor):
        use()
    return MultiAgent().add_spans(spans())


def test_a_sequential_crew_that_loses_an_order_number_is_told(spans):
    triage = agent("triage", final("A customer waits for a parcel."))
    shipping = agent("shipping", final("It is on its way."))
    first = task("sort", triage, description="Anna Berg asks where order #A-10423 is.")
    second = task("answer", shipping, context=[first])
    found = diagnosed(spans, crew(first, second).kickoff)
    (row,) = found.drift
    assert (row.source, row.target) == ("triage", "shipping")
    assert {"#A-10423", "Anna Berg"} <= {lost.value for lost in row.lost}
    assert row.added == ()


def test_a_sequential_crew_that_alters_a_quantity_is_told(spans):
    sales = agent("sales", final("Send 21 boxes of paper to Anna Berg."))
    store = agent("store", final("They were sent."))
    first = task("sell", sales, description="Anna Berg wants 12 boxes of paper.")
    second = task("send", store, context=[first])
    found = diagnosed(spans, crew(first, second).kickoff)
    (row,) = found.drift
    assert [(c.value, c.becomes) for c in row.altered] == [("12", "21")]


def test_a_sequential_crew_that_passes_everything_on_loses_nothing(spans):
    said = "Anna Berg asks where order #A-10423 is."
    first = task("sort", agent("triage", final(said)), description=said)
    second = task("answer", agent("shipping", final("On its way.")), context=[first])
    found = diagnosed(spans, crew(first, second).kickoff)
    (row,) = found.drift
    assert row.lost == row.altered == row.added == ()
    assert {"#A-10423", "Anna Berg"} <= set(row.kept)


def test_a_manager_that_delegates_without_the_order_number_is_told(spans):
    delegates = act(
        "Delegate work to coworker",
        task="Find the parcel.",
        context="Anna Berg waits for it.",
        coworker="shipping",
    )
    boss = ScriptedLLM(replies=[delegates, final("It is on its way.")])
    asked = task("ask", description="Anna Berg asks where the parcel of order #A-10423 is.")
    team = crew(
        asked,
        agents=[agent("shipping"), agent("billing")],
        process=Process.hierarchical,
        manager_llm=boss,
    )
    found = diagnosed(spans, team.kickoff)
    down = [row for row in found.drift if row.target == "shipping"]
    assert len(down) == 1
    assert "#A-10423" in {lost.value for lost in down[0].lost}
    assert "Anna Berg" in down[0].kept
    assert [h.status for h in found.handoffs if h.target == "shipping"] == ["ok"]


def test_a_sequential_crew_whose_agents_send_the_work_back_and_forth_is_a_loop(spans):
    names = ["draft", "check"]
    agents = [agent(name, *[final("Once more, please.")] * 3) for name in names]
    tasks = [task(f"turn {turn}", agents[turn % 2]) for turn in range(5)]
    found = diagnosed(spans, crew(*tasks).kickoff)
    # A task is given all outputs before it, so later runs get several of one agent's.
    assert len(found.handoffs) == 6
    assert [(loop.agents, loop.turns) for loop in found.loops] == [(("check", "draft"), 4)]


def test_a_sequential_crew_that_takes_turns_once_is_no_loop(spans):
    agents = [agent(name, final("Fine.")) for name in ("draft", "check", "print")]
    found = diagnosed(spans, crew(*(task(f"t{at}", one) for at, one in enumerate(agents))).kickoff)
    assert len(found.handoffs) == 3
    assert found.loops == []


def test_a_delegation_to_a_coworker_that_does_not_exist_is_dropped(spans):
    delegates = act(
        "Delegate work to coworker",
        task="Find order #A-10423.",
        context="Anna Berg waits for it.",
        coworker="shiping",
    )
    boss = ScriptedLLM(replies=[delegates, final("I could not ask anybody.")])
    team = crew(
        task("ask", description="Anna Berg asks where order #A-10423 is."),
        agents=[agent("shipping"), agent("billing")],
        process=Process.hierarchical,
        manager_llm=boss,
    )
    found = diagnosed(spans, team.kickoff)
    dropped = [(h.target, h.status) for h in found.handoffs if not h.confirmed]
    assert dropped == [("shiping", "failed")]
    assert all(run.agent != "shipping" for run in found.runs)


def test_a_sequential_crew_that_hands_over_to_nobody_and_goes_on_has_dropped_it(spans):
    asks = act(
        "Delegate work to coworker",
        task="Find order #A-10423.",
        context="Anna Berg waits for it.",
        coworker="warehouse",
    )
    triage = agent("triage", asks, final("Nobody knows."), allow_delegation=True)
    first = task("sort", triage, description="Anna Berg asks where order #A-10423 is.")
    second = task("answer", agent("shipping", final("Sorry.")), context=[first])
    found = diagnosed(spans, crew(first, second).kickoff)
    assert [(h.source, h.target, h.status, h.confirmed) for h in found.handoffs] == [
        ("triage", "warehouse", "failed", False), ("triage", "shipping", "ok", True),
    ]  # fmt: skip


def test_a_sequential_crew_whose_next_agent_breaks_has_a_failed_handoff(spans):
    broken = agent("shipping", ConnectionError("the model is down"))
    first = task("sort", agent("triage", final("order #A-10423")))
    second = task("answer", broken, context=[first])

    def kickoff():
        with pytest.raises(Exception, match="the model is down"):
            crew(first, second).kickoff()

    found = diagnosed(spans, kickoff)
    # One span; CrewAI tries the agent three times, and each try counts, as everywhere.
    assert [(h.source, h.target, h.status) for h in found.handoffs] == [
        ("triage", "shipping", "failed"),
    ] * 3
