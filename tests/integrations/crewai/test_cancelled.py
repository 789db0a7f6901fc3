"""A crew that is cancelled: CrewAI tells no ends then, so a block's end tells them, or the close."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

pytest.importorskip("crewai")

from crewai_plays import cancel

from llmops_core import Monitor, span_tree, spans_from_arrow
from llmops_core.testing import SCENARIOS
from llmops_integrations.crewai import CrewListener
from llmops_integrations.crewai.listener import Bus

SLOW = next(s for s in SCENARIOS if s.name == "cancelled")

TREE = """\
workflow {name} {outcome}
  task {task} [{agent}] {outcome}
    agent {agent} {outcome}
      llm scripted-1 [{agent}] {outcome}
"""


def cancelled_in_a_block(monitor, play) -> None:
    async def main() -> None:
        with CrewListener(monitor):
            await play

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


def test_in_a_block_it_is_cancelled_although_its_model_still_answers(spans):
    cancelled_in_a_block(spans.monitor, cancel(SLOW))
    threading.Event().wait(0.4)  # the model still answers, in its thread
    tree = spans.tree()
    assert tree == TREE.format(name="slow", task="ask", agent="clerk", outcome="cancelled")


@pytest.mark.parametrize("seed", range(3))
def test_in_a_block_it_is_cancelled_in_any_order_of_delivery(seed, spans, monkeypatch):
    """The events that the bus delivers late come after the block has told that it was left."""
    dice, lock = random.Random(f"cancelled {seed}"), threading.Lock()
    handle, late = Bus.llmops_handle, []

    def later(self, source, event):
        with lock:
            pause = dice.uniform(0.005, 0.05)
        time.sleep(pause)
        late.append(event.type)
        handle(self, source, event)

    monkeypatch.setattr(Bus, "llmops_handle", later)
    cancelled_in_a_block(spans.monitor, cancel(SLOW))
    tree = spans.tree()
    assert tree == TREE.format(name="slow", task="ask", agent="clerk", outcome="cancelled")
    assert "llm_call_started" in late
    assert spans.monitor.stats()["failures"] == {}


@pytest.mark.parametrize("seed", range(3))
def test_attached_it_is_incomplete_once_the_monitor_has_closed(seed, tmp_path):
    dice = random.Random(f"attached {seed}")

    async def main() -> None:
        run = asyncio.create_task(cancel(SLOW))
        await asyncio.sleep(dice.uniform(0, 0.01))  # where its work is when it is looked at
        await run

    monitor = Monitor(f"parquet:{tmp_path}/data")
    listener = CrewListener(monitor).attach()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    listener.detach()
    monitor.close()
    assert monitor.stats()["spans"]["open"] == 0
    with Monitor(f"parquet:{tmp_path}/data") as later:
        tree = span_tree(spans_from_arrow(later.query()))
    assert tree == TREE.format(name="slow", task="ask", agent="clerk", outcome="incomplete")
