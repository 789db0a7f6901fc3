"""Real crews yield the trees that are written down, whatever the order in which the bus delivers."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

pytest.importorskip("crewai")

from crewai_scenarios import EXPECTED, SCENARIOS

from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import Bus

#: ``tox -e soak`` runs fifty.
RUNS = int(os.environ.get("LLMOPS_JITTER_RUNS", "3"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_tree_is_as_told(name, spans):
    with CrewListener(spans.monitor):
        SCENARIOS[name]()
    assert spans.tree() == EXPECTED[name]
    stats = spans.monitor.stats()
    assert stats["failures"] == {}


@pytest.mark.parametrize("seed", range(RUNS))
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_tree_is_the_same_in_any_order_of_delivery(name, seed, spans, monkeypatch):
    dice, lock = random.Random(f"{name} {seed}"), threading.Lock()
    handle = Bus.llmops_handle
    seen = []

    def late(self, source, event):
        if event.type != "llm_stream_chunk":  # called on the emitter's own thread
            with lock:
                pause = dice.uniform(0, 0.004)
            time.sleep(pause)
        seen.append(event.timestamp)
        handle(self, source, event)

    monkeypatch.setattr(Bus, "llmops_handle", late)
    with CrewListener(spans.monitor):
        SCENARIOS[name]()
    tree = spans.tree()
    assert tree == EXPECTED[name], tree
    if name == "sequential":  # the jitter does what it is for
        assert seen != sorted(seen)
