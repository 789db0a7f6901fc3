"""With us and without us a crew gives the same result, counts the same tokens, prints the same."""

from __future__ import annotations

import re
import threading
import time

import pytest

pytest.importorskip("crewai")

from crewai.events.event_bus import crewai_event_bus
from crewai.events.types.task_events import TaskStartedEvent
from crewai_kit import Search, act, agent, crew, final, task
from crewai_scenarios import EXPECTED, SCENARIOS

from llmops_core.intake.tracer import Tracer
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import Book, bus

#: What differs from run to run: ids, and the numbers that CrewAI's console gives to tool calls.
_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|#\d+")


def told(result):
    """What a program gets, comparable: results hold ids that differ from run to run."""
    if isinstance(result, list):
        return [told(item) for item in result]
    if hasattr(result, "token_usage"):
        tasks = [(t.raw, t.agent, t.name) for t in result.tasks_output]
        return result.raw, result.token_usage.model_dump(), tasks
    return result


def played(name, capsys):
    crewai_event_bus.flush()
    capsys.readouterr()
    result = told(SCENARIOS[name]())
    crewai_event_bus.flush()
    return result, sorted(_IDS.sub("id", capsys.readouterr().out).splitlines())


@pytest.mark.parametrize("name", SCENARIOS)
def test_result_tokens_and_printed_output_are_the_same(name, spans, capsys):
    alone = played(name, capsys)
    with CrewListener(spans.monitor):
        monitored = played(name, capsys)
    assert monitored == alone
    assert spans.tree() == EXPECTED[name]


def _verbose():
    worker = agent("a", act("search", query="x"), final("found"), tools=[Search()], verbose=True)
    return crew(task("t", worker), verbose=True).kickoff()


def test_a_verbose_crew_prints_the_same(spans, capsys):
    _verbose()
    crewai_event_bus.flush()
    alone = capsys.readouterr().out
    with CrewListener(spans.monitor):
        _verbose()
        crewai_event_bus.flush()
    monitored = capsys.readouterr().out
    assert sorted(_IDS.sub("id", monitored).splitlines()) == sorted(
        _IDS.sub("id", alone).splitlines()
    )
    assert "Crew Execution Started" in monitored


# ---- a listener that raises or hangs ----


def test_a_defect_of_ours_is_counted_and_changes_nothing(spans, capsys, monkeypatch):
    alone = played("sequential", capsys)

    def broken(self, source, event, reader):
        raise SystemExit("a defect")

    monkeypatch.setattr(Book, "take", broken)
    with CrewListener(spans.monitor):
        monitored = played("sequential", capsys)
    assert monitored == alone
    assert spans() == []
    assert sum(spans.monitor.stats()["failures"].values()) > 10


def test_a_teller_that_fails_costs_its_events_and_changes_nothing(spans, capsys, monkeypatch):
    from llmops_integrations.crewai.trees import CrewTrees

    alone = played("sequential", capsys)

    def broken(self, *args):
        raise ValueError("a defect")

    monkeypatch.setattr(CrewTrees, "_started", broken)
    with CrewListener(spans.monitor):
        monitored = played("sequential", capsys)
    assert monitored == alone


def test_a_monitor_that_hangs_does_not_hold_a_crew_up(spans, capsys, monkeypatch):
    alone = played("sequential", capsys)
    gate, feed = threading.Event(), Tracer.feed

    def hangs(self, event):
        gate.wait(60)
        feed(self, event)

    monkeypatch.setattr(Tracer, "feed", hangs)
    try:
        with CrewListener(spans.monitor):
            before = time.monotonic()
            monitored = played("sequential", capsys)
            took = time.monotonic() - before
    finally:
        gate.set()
    assert monitored == alone
    assert took < 30  # it would be 60 if anything waited
    assert spans.tree() == EXPECTED["sequential"]


def test_another_listener_that_raises_or_is_slow_changes_no_tree(spans, capsys):
    def slow(source, event):
        time.sleep(0.2)

    def broken(source, event):
        raise RuntimeError("somebody else's")

    for handler in (slow, broken):
        crewai_event_bus.register_handler(TaskStartedEvent, handler)
    try:
        with CrewListener(spans.monitor):
            SCENARIOS["sequential"]()
            assert spans.tree() == EXPECTED["sequential"]
    finally:
        for handler in (slow, broken):
            crewai_event_bus.off(TaskStartedEvent, handler)
    assert not bus.listening
