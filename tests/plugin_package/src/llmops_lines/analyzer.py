"""The analyzer: how many lines of code each agent wrote."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from llmops_lines.collector import count_code_lines

__all__ = ["CodeByAgent"]

_SCHEMA = pa.schema([("agent", pa.string()), ("code_lines", pa.int64())])


class CodeByAgent:
    """One row an agent that wrote code, the one that wrote most first."""

    def analyze(self, spans: pa.Table) -> pa.Table:
        """Return agents and their lines; spans of no agent are of the agent ''."""
        lines: Counter[str] = Counter()
        for agent, output in zip(
            spans["agent"].to_pylist(), spans["output"].to_pylist(), strict=True
        ):
            lines[agent or ""] += int(count_code_lines(output or ""))
        rows = [
            {"agent": agent, "code_lines": count} for agent, count in lines.most_common() if count
        ]
        return pa.Table.from_pylist(rows, schema=_SCHEMA)
