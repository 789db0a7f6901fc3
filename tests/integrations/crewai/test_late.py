"""Events that come later than events are held for each other: the tree is the same."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("crewai")

from crewai_scenarios import EXPECTED, SCENARIOS

from llmops_core.intake import ordering
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import Bus, bus


@pytest.mark.parametrize("late", ["llm_call_started", "tool_usage_started", "llm_call_completed"])
def test_a_start_or_an_end_that_is_told_last_of_all_finds_its_place(late, spans, monkeypatch):
    monkeypatch.setattr(ordering, "HOLD_NS", 0)
    held, handle = [], Bus.llmops_handle

    def keep(self, source, event):
        if event.type == late:
            held.append((source, event))
        else:
            handle(self, source, event)

    monkeypatch.setattr(Bus, "llmops_handle", keep)
    with CrewListener(spans.monitor) as listener:
        SCENARIOS["tool_error_native"]()
        spans.monitor.flush()
        random.Random(3).shuffle(held)
        assert held
        for source, event in held:
            handle(bus, source, event)
            spans.monitor.flush()
        assert listener.attached
    assert spans.tree() == EXPECTED["tool_error_native"]
