"""Write ``docs/schema.md`` from the span, or check with ``--check`` that it is current."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from llmops_core.schema import COLUMNS, Column
from llmops_core.span import KINDS, OUTCOMES, SCHEMA_VERSION, USAGE_SOURCES

PAGE = Path(__file__).with_name("schema.md")

HEAD = f"""# The schema, version {SCHEMA_VERSION}

<!-- Made by docs/make_schema.py from core/llmops_core/span.py. Edit the descriptions there. -->

One span is one row, in every storage. Columns are only ever added, and an added column may be
null, so a query that works today works on the data of every later version. Ids are lowercase
hexadecimal text, times are microseconds in UTC. Filters reach into the two maps with a dot:
`attributes.langgraph.node`, `measurements.questions`.
"""

GROUPS = {
    "identity": "Which operation this is, and what it belongs to.",
    "what": "What was done, by whom, and how it ended.",
    "when": "Times and durations.",
    "model": "Model calls: who served them, tokens and money.",
    "content": "What went in and what came out, bounded.",
    "capacity": "How much text and how many images, as stored.",
    "overflow": "Everything that has no column of its own.",
}

#: Columns that nothing of this project writes yet; a test compares them with the code.
NOT_FILLED = frozenset({"queued_ms", "cost_usd", "price_source", "sample_weight"})

#: What the project itself puts into ``attributes``.
OWN_ATTRIBUTES = {
    "llmops.span_limit_exceeded": "on the topmost span of a trace that had more spans than the "
    "setting `trace_spans` allows: how many were not stored",
    "llmops.breaker": "on a model call of CrewAI that a breaker stopped: what it said",
}

TYPES = {
    "text": "text",
    "enum": "text, dictionary-encoded",
    "int": "integer, 64 bits",
    "float": "number, 64 bits",
    "bool": "boolean",
    "timestamp": "timestamp",
    "list": "list of text",
    "map": "map of text to text",
    "numbers": "map of text to number",
}


def _table(columns: Iterable[Column]) -> str:
    lines = ["| column | type | null | meaning |", "|---|---|---|---|"]
    for c in columns:
        unit = f" ({c.unit})" if c.unit else ""
        null = "yes" if c.nullable else "no"
        yet = "; *not filled yet*" if c.name in NOT_FILLED else ""
        lines.append(f"| `{c.name}` | {TYPES[c.type]} | {null} | {c.description}{unit}{yet} |")
    return "\n".join(lines)


def page() -> str:
    """Return the page as it should be."""
    parts = [HEAD]
    for group, about in GROUPS.items():
        columns = [c for c in COLUMNS if c.group == group]
        parts.append(f"## {group.capitalize()}\n\n{about}\n\n{_table(columns)}\n")
    missing = {c.group for c in COLUMNS} - set(GROUPS)
    if missing:
        raise SystemExit(f"docs/make_schema.py: no text for the groups {sorted(missing)}")
    own = "".join(f"- `{name}`: {text}\n" for name, text in OWN_ATTRIBUTES.items())
    parts.append(
        "## Attributes of ours\n\nOthers are named after the framework that they come from.\n\n"
        + own
    )
    parts.append(
        "## Values\n\n"
        f"- `kind`: {', '.join(f'`{k}`' for k in KINDS)}\n"
        f"- `outcome`: {', '.join(f'`{o}`' for o in OUTCOMES)}\n"
        f"- `usage_source`: {', '.join(f'`{u}`' for u in USAGE_SOURCES)}\n"
    )
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/make_schema.py [--check]", file=sys.stderr)
        return 2
    if arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print("docs/schema.md is stale: run python docs/make_schema.py", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
