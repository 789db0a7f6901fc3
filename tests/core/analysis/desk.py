"""Traces of several agents to test with: what each run was given, said and fetched."""

from __future__ import annotations

import json
from typing import Any

from llmops_core import Span
from llmops_core.testing.spans import START

MS = 1000


class Trace:
    """Writes one trace of agents below a workflow, one after the other."""

    def __init__(self, number: int = 1, session: str | None = None) -> None:
        self.trace_id = f"{number:032x}"
        self.session = session or f"session-{number}"
        self.number = number
        self.spans: list[Span] = []
        self.clock = START + number * 1_000_000
        self.root = self.add("workflow", "desk", None, 500)

    def add(self, kind: str, name: str, parent: str | None, ms: float, **fields: Any) -> str:
        span_id = f"{self.number:08x}{len(self.spans):08x}"
        start = fields.pop("start_time", self.clock)
        made: dict[str, Any] = {"outcome": "ok", "session_id": self.session}
        self.spans.append(
            Span(
                span_id=span_id, trace_id=self.trace_id, parent_id=parent, kind=kind, name=name,
                start_time=start, end_time=start + int(ms * MS), **{**made, **fields},
            )
        )  # fmt: skip
        return span_id

    def agent(
        self,
        name: str,
        given: str,
        said: str = "",
        *,
        tools: dict[str, str] | None = None,
        outcome: str = "ok",
        parent: str | None = None,
        **llm: Any,
    ) -> str:
        """Let an agent run for 20 ms: its model is given a text, calls tools and says another."""
        run = self.add("agent", name, parent or self.root, 20, agent=name, outcome=outcome)
        messages = [{"role": "system", "content": f"You are {name} of Acme Corp."},
                    {"role": "user", "content": given}]  # fmt: skip
        for tool, result in (tools or {}).items():
            self.add(
                "tool", tool, run, 1, input="{}", output=result, start_time=self.clock + 5 * MS
            )
        self.add("llm", "m-1", run, 2, agent=name, input=json.dumps(messages), output=said,
                 input_tokens=100, output_tokens=20, start_time=self.clock + MS, **llm)  # fmt: skip
        self.clock += 21 * MS
        return run

    def handoff(self, source: str, target: str, *, confirmed: bool = True, **fields: Any) -> str:
        """Record a handoff that ends now."""
        return self.add(
            "handoff", f"{source} → {target}", self.root, 1, agent=source, target_agent=target,
            handoff_mechanism="transfer", handoff_confirmed=confirmed,
            outcome="handed_off" if confirmed else "incomplete",
            start_time=self.clock - MS, **fields,
        )  # fmt: skip
