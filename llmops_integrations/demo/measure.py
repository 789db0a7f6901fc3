"""What monitoring costs, measured in this very process: the same conversations with and without."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from llmops_core import Monitor
from llmops_integrations.demo.conversations import CONVERSATIONS, hold
from llmops_integrations.demo.support_graph import support_desk
from llmops_integrations.langchain import LLMOpsCallbackHandler

__all__ = ["Cost", "measure"]


class Cost(NamedTuple):
    """CPU of one conversation in milliseconds, whole process, medians over the blocks."""

    alone_ms: float
    monitored_ms: float
    spans: float  # of one conversation
    blocks: int
    conversations: int  # in each block

    @property
    def span_us(self) -> float:
        """Microseconds of CPU for each span, everything included."""
        return (self.monitored_ms - self.alone_ms) * 1000 / self.spans


def measure(blocks: int = 7, conversations: int = 9) -> Cost:
    """Time interleaved blocks of conversations, alone and monitored, without simulated latency.

    CPU time counts every thread, so the monitored block includes pairing, journal, and writing the
    Parquet file: it ends with a flush. The spans go to a folder that is removed afterwards.
    """
    graph = support_desk()
    with tempfile.TemporaryDirectory() as folder, Monitor(storage=f"parquet:{folder}") as monitor:
        callbacks = [LLMOpsCallbackHandler(monitor=monitor)]

        def monitored() -> None:
            _hold(graph, conversations, callbacks)
            monitor.flush()

        def alone() -> None:
            _hold(graph, conversations, [])

        for warm_up in (alone, monitored):  # imports and caches
            warm_up()
        before = monitor.stats()["spans"]["made"]
        pairs = [(_cpu_ms(alone), _cpu_ms(monitored)) for _ in range(blocks)]
        made = monitor.stats()["spans"]["made"] - before
    return Cost(
        alone_ms=statistics.median(p[0] for p in pairs) / conversations,
        monitored_ms=statistics.median(p[1] for p in pairs) / conversations,
        spans=made / (blocks * conversations),
        blocks=blocks,
        conversations=conversations,
    )


def _hold(graph: Any, conversations: int, callbacks: list[Any]) -> None:
    for index in range(conversations):
        hold(graph, CONVERSATIONS[index % len(CONVERSATIONS)], callbacks=callbacks)


def _cpu_ms(block: Callable[[], None]) -> float:
    start = time.process_time()
    block()
    return (time.process_time() - start) * 1000
