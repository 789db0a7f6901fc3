"""Trees with spans that a framework adds of its own: told in full, and compared without them.

A framework cannot always play a scenario bare: CrewAI calls tools from agents alone. Such a tree is
told in full, with ``+`` before each line that the framework adds::

    + agent clerk ok
    +   llm scripted-1 [clerk] ok 12+3 tokens
        tool add [clerk] ok

It must be the whole tree that comes, and without the added lines it must be the scenario's own:
``tool add ok``. Nothing is left unsaid, and nothing of the scenario's changes.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ADDED", "whole", "without_added"]

ADDED: Final = "+"
_INDENT: Final = 2
#: Where ``attempt=`` stands in a line: before what a model call has to tell.
_TAIL: Final = re.compile(r"( \S+\+\S+ tokens)?( streamed)?( session=.*)?$")
_ATTEMPT: Final = re.compile(r" attempt=\d+")


def whole(told: str) -> str:
    """Return the tree that must come: every line, without the signs."""
    return "".join(f"{line[_INDENT:]}\n" for line in told.splitlines())


def without_added(told: str) -> str:
    """Return the tree without the added lines; what was below them moves up.

    What an added span says for those below it goes with it: an agent's name is taken off them, and
    the attempt of one that was tried again becomes theirs.
    """
    lines: list[str] = []
    above: list[tuple[int, bool, str]] = []  # the depth, whether it is added, and its words
    for line in told.splitlines():
        sign, text = line[:1], line[_INDENT:]
        words = text.lstrip(" ")
        depth = (len(text) - len(words)) // _INDENT
        while above and above[-1][0] >= depth:
            above.pop()
        if sign != ADDED:
            kept = sum(not added for _, added, _ in above)
            lines.append(" " * (_INDENT * kept) + _alone(words, above))
        above.append((depth, sign == ADDED, words))
    return "".join(f"{line}\n" for line in lines)


def _alone(words: str, above: list[tuple[int, bool, str]]) -> str:
    """Return a line as it is when the added ones above it are not there."""
    agents = ((added, line) for _, added, line in reversed(above) if line.startswith("agent "))
    added, line = next(agents, (False, ""))
    if added:
        words = words.replace(f" [{line.split(' ')[1]}]", "", 1)
    for _, added, outer in reversed(above):
        attempt = _ATTEMPT.search(outer) if added else None
        if attempt and not _ATTEMPT.search(words):
            at = _TAIL.search(words)
            end = at.start() if at else len(words)
            words = words[:end] + attempt.group() + words[end:]
        if not added:
            break
    return words
