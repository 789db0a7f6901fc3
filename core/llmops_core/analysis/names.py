"""Names of agents: one agent goes by several spellings, and some names are nobody's."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

__all__ = ["Aliases", "fold_agent", "is_participant", "speaker"]

_ASIDE: Final = re.compile(r"\s*\([^()]*\)\s*:?\s*$")
#: Roles and machinery that speak in message logs; none of them is an agent.
_NOBODY: Final = frozenset(
    ("human", "user", "userproxy", "system", "tool", "function", "environment", "codeexecutor",
     "developer", "ipython", "customer", "enduser", "unknown", "toolresult")
)  # fmt: skip


def fold_agent(name: str) -> str:
    """Return what the spellings of one agent share: ``billing_agent`` and ``Billing Agent``."""
    return "".join(c for c in name.casefold() if c.isalnum()) or name


def speaker(name: str) -> str:
    """Return who speaks in a message log: ``Orchestrator`` of ``Orchestrator (-> WebSurfer)``."""
    return _ASIDE.sub("", name).strip() or name


def is_participant(name: str) -> bool:
    """Whether a speaker is an agent, and not a person, a role or a machine that runs code."""
    key = fold_agent(speaker(name))
    return key not in _NOBODY and not key.endswith("terminal")


class Aliases:
    """The spellings that were met, so that each agent is shown by its most frequent one."""

    def __init__(self) -> None:
        self._met: dict[str, Counter[str]] = {}

    def add(self, name: str) -> str:
        """Note a spelling and return the agent's key."""
        key = fold_agent(name)
        self._met.setdefault(key, Counter())[name] += 1
        return key

    def shown(self, key: str, otherwise: str | None = None) -> str:
        """Return the most frequent spelling of an agent, the first of equals by the alphabet.

        Of one that never ran, return what else it was called.
        """
        met = self._met.get(key)
        return min(met, key=lambda name: (-met[name], name)) if met else otherwise or key

    def spellings(self, key: str) -> tuple[str, ...]:
        """Return all the spellings that were met."""
        return tuple(sorted(self._met.get(key, ())))

    @property
    def folded(self) -> int:
        """How many spellings were folded into another."""
        return sum(len(met) - 1 for met in self._met.values())
