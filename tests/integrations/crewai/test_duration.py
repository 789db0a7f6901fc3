"""With us a crew takes the same class of time, also while the monitor hangs.

A class is a power of two. The best of several runs in turns is compared, on the clock and in CPU time
of the crew's own thread, and runs are added until both are known well enough: a machine that is busy
makes a test longer, and fails none.
"""

from __future__ import annotations

import math
import threading
import time

import pytest

pytest.importorskip("crewai")

from crewai_kit import Search, act, agent, crew, final, task

from llmops_core.intake.tracer import Tracer
from llmops_integrations.crewai import CrewListener

#: How much more is another class; and how often both are measured until they are in the same.
CLASS = 2.0
ROUNDS = 40


def work():
    """Two agents, three model calls of 30 ms and a tool: what a crew does in little."""
    calls = act("search", query="cats"), final("found")
    first = agent("a", *calls, tools=[Search()], seconds=0.03)
    crew(task("t", first), task("u", agent("b", seconds=0.03))).kickoff()


def taken():
    """Return what one kickoff takes on the clock, and of its own thread's CPU."""
    began, cpu = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - began, time.thread_time() - cpu


def compared(monitor):
    """Return the best time on the clock and the best CPU time, with us as a ratio to without."""
    alone = monitored = (math.inf, math.inf)
    for turn in range(ROUNDS):
        alone = tuple(map(min, alone, taken()))
        with CrewListener(monitor):
            monitored = tuple(map(min, monitored, taken()))
        ratios = monitored[0] / alone[0], monitored[1] / alone[1]
        if turn >= 2 and max(ratios) < CLASS:
            break
    return ratios


@pytest.fixture
def hung(monkeypatch):
    """A monitor whose intake takes nothing, until the test is over."""
    gate, feed = threading.Event(), Tracer.feed

    def hangs(self, event):
        gate.wait()
        feed(self, event)

    monkeypatch.setattr(Tracer, "feed", hangs)
    yield gate
    gate.set()


def test_a_crew_takes_the_same_class_of_time(spans):
    work()  # what is imported at the first use
    clock, cpu = compared(spans.monitor)
    assert clock < CLASS
    assert cpu < CLASS


def test_a_crew_takes_the_same_class_of_time_while_the_monitor_hangs(spans, hung):
    work()
    clock, cpu = compared(spans.monitor)  # would never return if anything waited
    assert clock < CLASS
    assert cpu < CLASS
    hung.set()
    assert len([s for s in spans() if s.kind == "workflow"]) >= 3
