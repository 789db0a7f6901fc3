"""Order the spans of a trace as the rows of a tree, bounded, whatever their parents say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from llmops_core.span import Span

__all__ = ["More", "Node", "tree"]

#: A parent with more children shows the first ones, and of the rest those that went wrong.
MAX_CHILDREN: Final = 40
_MAX_WRONG: Final = 10
#: Deeper than this the branches are shortened, so that the name keeps its room.
_MAX_GUIDE_LEVELS: Final = 8


class Node(NamedTuple):
    """One row: the span, the branches before its name, and those before the lines below it."""

    span: Span
    guide: str
    below: str
    orphan: bool  # has a parent that is not among the spans
    retried: bool  # an error that a later attempt followed
    shows_agent: bool  # the agent is not clear from the rows above


class More(NamedTuple):
    """A row that stands for spans that are not shown."""

    guide: str
    hidden: int
    errors: int


class _Place(NamedTuple):
    span: Span
    levels: tuple[bool, ...]  # for each level above: does its branch go on?
    parent: Span | None


class _Family:
    """Children by parent, in order of time. Hostile data may hold cycles and doubled ids."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.by_id = {s.span_id: s for s in reversed(spans)}
        self.children: dict[str, list[Span]] = defaultdict(list)
        self.roots: list[Span] = []
        for span in sorted(self.by_id.values(), key=_when):
            parent = span.parent_id
            known = parent is not None and parent in self.by_id and parent != span.span_id
            (self.children[parent or ""] if known else self.roots).append(span)
        self._open_cycles()
        self.attempts: dict[tuple[str | None, str], int] = {}
        for span in self.by_id.values():
            key = (span.parent_id, span.name)
            self.attempts[key] = max(self.attempts.get(key, 1), span.attempt or 1)

    def _open_cycles(self) -> None:
        """Make a root of one span of each cycle, so that every span is reached exactly once."""
        reached: set[str] = set()
        self._reach(self.roots, reached)
        for span in sorted(self.by_id.values(), key=_when):
            if span.span_id not in reached:
                self.children[span.parent_id or ""].remove(span)
                self.roots.append(span)
                self._reach([span], reached)

    def _reach(self, spans: Sequence[Span], reached: set[str]) -> None:
        stack = list(spans)
        while stack:
            span = stack.pop()
            reached.add(span.span_id)
            stack.extend(self.children.get(span.span_id, ()))

    def below(self, span: Span) -> Iterator[Span]:
        """Yield a span and everything below it."""
        stack = [span]
        while stack:
            span = stack.pop()
            yield span
            stack.extend(self.children.get(span.span_id, ()))

    def was_retried(self, span: Span) -> bool:
        last = self.attempts[span.parent_id, span.name]
        return span.outcome == "error" and (span.attempt or 1) < last


def tree(spans: Sequence[Span], *, max_rows: int = 400) -> Iterator[Node | More]:
    """Yield the rows of the tree: each span below its parent, siblings in order of time.

    At most *max_rows* spans are shown; what is left out is counted in a :class:`More` row.
    """
    family = _Family(spans)
    left = len(family.by_id)
    errors = sum(s.outcome == "error" for s in family.by_id.values())
    stack: list[_Place | More] = _places(family, family.roots, (), None)
    rows = 0
    while stack:
        place = stack.pop()
        if isinstance(place, More):
            left -= place.hidden
            errors -= place.errors
            yield place
            continue
        if rows == max_rows:
            yield More("", left, errors)
            return
        rows += 1
        left -= 1
        errors -= place.span.outcome == "error"
        children = family.children.get(place.span.span_id, [])
        yield _node(family, place, bool(children))
        stack.extend(_places(family, children, (*place.levels,), place.span))


def _places(
    family: _Family, spans: Sequence[Span], levels: tuple[bool, ...], parent: Span | None
) -> list[_Place | More]:
    """Return the places of siblings, last first (it becomes a stack)."""
    shown, hidden = _choose(spans)
    places: list[_Place | More] = []
    for index, span in enumerate(shown):
        goes_on = index < len(shown) - 1 or bool(hidden)
        places.append(_Place(span, levels if parent is None else (*levels, goes_on), parent))
    if hidden:
        lost = [s for h in hidden for s in family.below(h)]
        guide = _guide((*levels, False)) if parent is not None else ""
        places.append(More(guide, len(lost), sum(s.outcome == "error" for s in lost)))
    return places[::-1]


def _choose(spans: Sequence[Span]) -> tuple[list[Span], list[Span]]:
    if len(spans) <= MAX_CHILDREN:
        return list(spans), []
    first, rest = spans[: MAX_CHILDREN - _MAX_WRONG], spans[MAX_CHILDREN - _MAX_WRONG :]
    wrong = [s for s in rest if s.outcome not in ("ok", "handed_off")][:_MAX_WRONG]
    kept = {s.span_id for s in wrong}
    return [*first, *wrong], [s for s in rest if s.span_id not in kept]


def _node(family: _Family, place: _Place, has_children: bool) -> Node:
    span, parent = place.span, place.parent
    above = (parent.agent or parent.name) if parent else None
    own = span.agent in (None, span.name, above) or span.kind == "handoff"
    return Node(
        span=span,
        guide=_guide(place.levels),
        below=_rails(place.levels) + ("│  " if has_children else "   "),
        orphan=span.parent_id is not None and parent is None,
        retried=family.was_retried(span),
        shows_agent=not own,
    )


def _guide(levels: tuple[bool, ...]) -> str:
    if not levels:
        return ""
    return _rails(levels[:-1]) + ("├─ " if levels[-1] else "└─ ")


def _rails(levels: tuple[bool, ...]) -> str:
    if len(levels) > _MAX_GUIDE_LEVELS:
        return f"{len(levels) - _MAX_GUIDE_LEVELS:>2}… " + _rails(levels[-_MAX_GUIDE_LEVELS:])
    return "".join("│  " if goes_on else "   " for goes_on in levels)


def _when(span: Span) -> tuple[int, int, str]:
    return span.start_time, span.seq or 0, span.span_id
