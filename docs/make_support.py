"""Write ``docs/support.md`` from ``tox.ini``, or check with ``--check`` that it is current."""

from __future__ import annotations

import configparser
import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "support.md"

HEAD = """# What is supported

<!-- Made by docs/make_support.py from tox.ini and pyproject.toml. Edit those. -->

A release that is listed is tested, with all that the monitor records of it: the same programs must
yield the same trees, by the oldest and by the latest.

## Frameworks

| framework | you need | oldest tested | latest tested | environments |
|---|---|---|---|---|
"""

TAIL = """
The newest release is whatever the package index has when the tests run. What a release lacks is
found out when it is imported, never by its number. `create_agent`, the supervisor and the swarm are
tested in the same environments; they are not needed to monitor your graphs.

CrewAI is not part of the extra `all`: it takes 1 GB, and what it pins (pydantic before 2.13, Python
before 3.14) holds the other packages back. It does install beside them.
"""

SUITE = """
## The handler suite

Every framework plays the same small programs, and each must yield the tree that the suite tells, as
text: fourteen of models, tools and workflows (`llmops_core.testing.SCENARIOS`), four of agents and
pauses (`AGENT_SCENARIOS`). What a framework puts around a program of its own, as a crew its task and a
graph its node, is told line by line and must come too; without those lines, and with the names that the
framework gives, the tree is the suite's.

| framework | played | not applicable |
|---|---|---|
| LangChain | 14 | |
| plain functions (`@monitor_llm`) | 14 | |
| CrewAI | 13 | `abandoned` |
| agents: LangGraph | 4 | |
| agents: plain functions | 4 | |
| agents: CrewAI | 4 | |

What the bus told of the program that is not played is recorded, and a test compares it with what the
release tells when the tests run:

"""

#: Why a program is not played, before the events that were recorded of it.
WHY = {
    "abandoned": "A reader leaves a stream. CrewAI's bus tells nothing of it: after the first piece of a"
    " crew whose reader leaves, no event comes. Its spans become `incomplete` when the monitor closes.",
}
RECORDINGS = ROOT / "tests" / "integrations" / "crewai" / "recordings"

#: What tox calls a family of environments, by the package that it is about.
FRAMEWORKS = {
    "LangChain": ("langchain", ("langchain-core", "langchain")),
    "LangGraph": ("langgraph", ("langgraph",)),
    "CrewAI": ("crewai", ("crewai",)),
}


def _tox() -> configparser.ConfigParser:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_string((ROOT / "tox.ini").read_text(encoding="utf-8"))
    return tox


def _pinned(tox: configparser.ConfigParser) -> dict[str, str]:
    """Return the oldest version of each package that tox tests."""
    deps = "\n".join(section["deps"] for _, section in tox.items() if "deps" in section)
    return dict(re.findall(r"^oldest: *([\w-]+)==([\d.]+)$", deps, re.MULTILINE))


def _floors() -> dict[str, str]:
    """Return what the extras ask for, by package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = "\n".join([*extras["langgraph"], *extras["crewai"]])
    return dict(re.findall(r"^([\w-]+)>=([\d.]+)$", wanted, re.MULTILINE))


def _frameworks(tox: configparser.ConfigParser) -> list[str]:
    pinned, floors, tested = _pinned(tox), _floors(), tox["tox"]["env_list"]
    rows = []
    for title, (family, packages) in FRAMEWORKS.items():
        if not re.search(rf"\b{family}\b[\w,]*}}?-{{oldest,latest}}", tested):
            raise SystemExit(f"docs/make_support.py: tox.ini tests no {family}-{{oldest,latest}}")
        need = "<br>".join(f"`{p}>={floors[p]}`" for p in packages if p in floors)
        oldest = "<br>".join(f"{p} {pinned[p]}" for p in packages)
        rows.append(
            f"| {title} | {need} | {oldest} | newest release"
            f" | `{family}-oldest`, `{family}-latest` |"
        )
    return rows


def _pythons(tox: configparser.ConfigParser) -> list[str]:
    (minors,) = re.findall(r"^py3\{([\d,]+)\}$", tox["tox"]["env_list"], re.MULTILINE)
    bare = re.search(r"bare-py3\{([\d,]+)\}", tox["tox"]["env_list"])
    alone = bare[1].split(",") if bare else []
    rows = [
        "",
        "## Python",
        "",
        "| version | with every framework | the core alone |",
        "|---|---|---|",
    ]
    for minor in minors.split(","):
        core = f"`bare-py3{minor}`" if minor in alone else "no"
        rows.append(f"| 3.{minor} | `py3{minor}` | {core} |")
    return rows


def _recordings() -> list[str]:
    lines = []
    for name, why in WHY.items():
        recorded = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
        events = ", ".join(f"`{event}`" for event in recorded["events"])
        lines.append(f"- **`{name}`**: {why} Recorded from {recorded['crewai']}: {events}.")
    return lines


def page() -> str:
    """Return the page as it should be."""
    tox = _tox()
    return (
        HEAD
        + "\n".join([*_frameworks(tox), TAIL.rstrip(), *_pythons(tox)])
        + "\n"
        + SUITE
        + "\n".join([*_recordings(), ""])
    )


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    if arguments not in ([], ["--check"]):
        print("usage: python docs/make_support.py [--check]", file=sys.stderr)
        return 2
    if arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print("docs/support.md is stale: run python docs/make_support.py", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
