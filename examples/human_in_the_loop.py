"""A run that waits for a human: one process asks and exits, another brings the answer.

Run it without arguments to see both, or each by itself: ``ask``, then ``answer approve``.
"""

import sqlite3
import subprocess
import sys
from typing import TypedDict

try:
    from langgraph.checkpoint.sqlite import SqliteSaver
except ImportError as missing:
    print(f"{missing}; install it with: pip install langgraph-checkpoint-sqlite")
    sys.exit(0)

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from llmops_core import Monitor
from llmops_integrations.langgraph import monitor_graph


class Refund(TypedDict, total=False):
    """One refund on its way."""

    order: str
    amount: float
    result: str


def check(state: Refund) -> Refund:
    """Find out what was paid."""
    return {"amount": 42.5}


def approve(state: Refund) -> Refund:
    """Ask a human, and do as they say."""
    decision = interrupt(f"Refund {state['amount']:.2f} USD for {state['order']}?")
    return {"result": "refunded" if decision == "approve" else "declined"}


def run(given: object) -> None:
    """Run the graph of case 7 in this process, with its checkpoints in a file."""
    builder = StateGraph(Refund)
    builder.add_node("check", check)
    builder.add_node("approve", approve)
    builder.add_edge(START, "check")
    builder.add_edge("check", "approve")
    builder.add_edge("approve", END)
    checkpoints = sqlite3.connect("checkpoints.db", check_same_thread=False)
    with Monitor("parquet:./llmops_data") as monitor:
        graph = builder.compile(checkpointer=SqliteSaver(checkpoints), name="refund desk")
        graph = monitor_graph(graph, monitor=monitor)
        state = graph.invoke(given, {"configurable": {"thread_id": "case-7"}})
        print("asked:" if "__interrupt__" in state else "result:", state.get("result", "a human"))
    checkpoints.close()


def main(step: str = "", decision: str = "approve") -> None:
    """Ask, or answer; without a step, do both in processes of their own."""
    if step == "ask":
        run({"order": "A-1042"})
    elif step == "answer":
        run(Command(resume=decision))
    else:
        for arguments in (["ask"], ["answer", "approve"]):
            subprocess.run([sys.executable, __file__, *arguments], check=True)
            shown = ["-m", "llmops_core.cli", "waiting", "--all"]
            subprocess.run([sys.executable, *shown], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
