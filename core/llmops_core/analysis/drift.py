"""Context drift over stored spans: what a source knew, and what of it the target received.

For each handoff the first text is what the source was given (its first prompt, system messages left
out); the second is what the target's first model call was given. What only the source's own message
had, and the target did not receive, is lost as well. An entity
that the second has and neither the source's prompt nor its tools had is *added*: nothing supports
it. A loss is harmful where somebody downstream asks for the value or fetches it again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from llmops_core.analysis.content import readable
from llmops_core.analysis.events import events_from_spans
from llmops_core.analysis.handoffs import Handoff, handoffs_of
from llmops_core.analysis.names import Aliases, fold_agent
from llmops_core.analysis.reacquired import Later, may_have, reacquired
from llmops_core.analysis.repair import AgentRun, Partition, repair
from llmops_core.analysis.rows import to_arrow
from llmops_core.analysis.text_index import TextIndex
from llmops_core.analysis.texts import (
    COUNTED,
    HIGH_DRIFT,
    Comparison,
    Fate,
    Status,
    compare_indices,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from llmops_core.analysis.equivalence import Equivalences
    from llmops_core.scanner import Entity, EntityExtractor
    from llmops_core.span import Span

__all__ = [
    "CONTENT_COLUMNS", "CONTENT_KINDS", "Change", "Content", "Drift", "Lost", "Sides", "contents_of",
    "drift_of", "drift_to_arrow", "sides_of",
]  # fmt: skip

#: What drift reads beside the columns of the events, and of which kinds of span.
CONTENT_COLUMNS: Final = ("input", "output", "input_truncated", "output_truncated")
CONTENT_KINDS: Final = ("agent", "llm", "tool", "retriever", "handoff")


#: Texts that are searched for what supports a value, the latest before the handoff.
_MOST_KNOWN: Final = 200


class Content(NamedTuple):
    """Both sides of a span, and whether a capture limit cut them."""

    input: str | None
    output: str | None
    input_truncated: bool
    output_truncated: bool


class Change(NamedTuple):
    """A value that became another."""

    type: str
    value: str
    becomes: str


class Lost(NamedTuple):
    """A value that did not arrive."""

    type: str
    value: str
    #: Somebody downstream asked for it, or fetched it again.
    reacquired: bool


class Drift(NamedTuple):
    """What became of what one handoff was to carry."""

    partition: str
    session_id: str | None
    source: str
    target: str
    mechanism: str
    start: float
    to_event: str
    #: The recorded handoff span, where there is one.
    span_id: str | None
    #: (lost + altered) / n; null where nothing was to be kept.
    drift: float | None
    n: int
    high: bool
    kept: tuple[str, ...]
    reformatted: tuple[Change, ...]
    altered: tuple[Change, ...]
    lost: tuple[Lost, ...]
    #: What was not found in a text that a capture limit cut.
    unknown: tuple[str, ...]
    added: tuple[str, ...]
    #: Things that exchanged their numbers, and values that were excluded on one side only.
    swapped: tuple[str, ...]
    flipped: tuple[str, ...]

    @property
    def key(self) -> str:
        """What tells this handoff from all others."""
        return f"{self.partition} {self.to_event} {self.source}"


class Sides(NamedTuple):
    """The texts of a handoff, as they are compared."""

    #: What the source was given; empty where that was not recorded.
    given: str
    #: What it passed on.
    passed: str
    received: str
    #: Whether all that the target received was stored.
    complete: bool

    @property
    def before(self) -> str:
        """What is compared with what the target received."""
        return self.given or self.passed


def contents_of(spans: Iterable[Span]) -> dict[str, Content]:
    """Return the content of the spans that drift reads."""
    return {
        s.span_id: Content(s.input, s.output, bool(s.input_truncated), bool(s.output_truncated))
        for s in spans
        if s.kind in CONTENT_KINDS
    }


def drift_of(
    partition: Partition,
    handoffs: Sequence[Handoff],
    contents: Mapping[str, Content],
    *,
    extractors: Iterable[EntityExtractor] = (),
    equivalences: Equivalences | None = None,
) -> list[Drift]:
    """Return the drift of the handoffs of one partition; none for those without content."""
    reader = _Reader(partition, contents, tuple(extractors), equivalences)
    agents = {run.agent for run in partition.runs}
    found = []
    for handoff in handoffs:
        sides = reader.sides(handoff)
        if sides is None:
            continue
        found.append(_row(handoff, sides, reader, agents))
    return found


def _row(handoff: Handoff, sides: Sides, reader: _Reader, agents: set[str]) -> Drift:
    received = reader.index(sides.received)
    compared = compare_indices(
        reader.index(sides.before),
        received,
        complete=sides.complete,
        equivalences=reader.equivalences,
    )
    every = [*compared.fates, *_only_passed(sides, compared, received, reader)]
    # Who works next is said by the handoff itself: an agent's name is no information to keep.
    fates = [f for f in every if not _names_agent(f.value, agents)]
    counted = [f for f in fates if f.counts]
    bad = sum(f.status in ("lost", "altered") for f in counted)
    drift = bad / len(counted) if counted else None
    lost = [f for f in fates if f.status == "lost"]
    again = reacquired([(f.type, f.value) for f in lost], reader.later(handoff), reader.index)
    return Drift(
        partition=handoff.partition,
        session_id=handoff.session_id,
        source=handoff.source,
        target=handoff.target,
        mechanism=handoff.mechanism,
        start=handoff.start,
        to_event=handoff.to_event,
        span_id=handoff.span_id,
        drift=drift,
        n=len(counted),
        high=drift is not None and drift > HIGH_DRIFT,
        kept=tuple(f.value for f in fates if f.status == "kept"),
        reformatted=_changes(fates, "reformatted"),
        altered=_changes(fates, "altered"),
        lost=tuple(Lost(f.type, f.value, f.value in again) for f in lost),
        unknown=tuple(f.value for f in fates if f.status == "unknown"),
        added=_unsupported(fates, sides, handoff, reader),
        swapped=tuple(thing for thing, _, _ in compared.swaps),
        flipped=compared.flips,
    )


def _only_passed(
    sides: Sides, compared: Comparison, received: TextIndex, reader: _Reader
) -> list[Fate]:
    """Return what the source said of its own and the target did not receive."""
    if not sides.given or not sides.passed:
        return []
    given = reader.index(sides.given)
    missing: Status = "lost" if sides.complete else "unknown"
    became = {f.becomes for f in compared.fates if f.becomes}
    passed = reader.index(sides.passed)
    left = [
        e
        for e in passed.distinct
        if e.text not in became and given.find(e) is None and received.find(e) is None
    ]
    same = {}
    if left and reader.equivalences is not None:
        news = [e for e in received.distinct if passed.find(e) is None and e.text not in became]
        same = reader.equivalences.matches(left, news)
    return [
        Fate(e.type, e.text, missing, None, sides.complete and e.type in COUNTED, 0, 0)
        for at, e in enumerate(left)
        if at not in same
    ]


def _names_agent(value: str, agents: set[str]) -> bool:
    """Whether a value is an agent's name, maybe after the word that opens its sentence."""
    return fold_agent(value) in agents or fold_agent(value.partition(" ")[2]) in agents


def _changes(fates: Iterable[Fate], status: str) -> tuple[Change, ...]:
    return tuple(Change(f.type, f.value, f.becomes or "") for f in fates if f.status == status)


def _unsupported(
    fates: Sequence[Fate], sides: Sides, handoff: Handoff, reader: _Reader
) -> tuple[str, ...]:
    """Return what was added and nobody outside of the agents ever said."""
    added = {f.value for f in fates if f.status == "added"}
    if not added or not sides.given:
        return ()
    news = {e.text: e for e in reader.index(sides.received).entities}
    return tuple(
        value
        for value in dict.fromkeys(f.value for f in fates if f.value in added)
        if value in news and not reader.supports(news[value], reader.received_at(handoff))
    )


class _Reader:
    """Finds the texts around a handoff in the content of a partition."""

    def __init__(
        self,
        partition: Partition,
        contents: Mapping[str, Content],
        extractors: Sequence[EntityExtractor] = (),
        equivalences: Equivalences | None = None,
    ) -> None:
        self._contents = contents
        self.equivalences = equivalences
        self.extractors = extractors
        self._partition = partition
        self._models: dict[str, list[str]] = defaultdict(list)
        self._tools: dict[str, list[str]] = defaultdict(list)
        ordered = sorted(partition.owner.items(), key=lambda p: partition.events[p[0]].start)
        for span_id, run in ordered:
            kind = partition.events[span_id].kind
            if span_id in contents and kind in ("llm", "tool", "retriever"):
                side = self._models if kind == "llm" else self._tools
                side[run.event.span_id].append(span_id)
        self._runs = {run.event.span_id: run for run in partition.runs}
        self._later: list[tuple[float, Later]] | None = None
        self._known: list[tuple[float, str]] | None = None
        self._indices: dict[str, TextIndex] = {}

    def sides(self, handoff: Handoff) -> Sides | None:
        """Return the texts of a handoff, or None where one of them was not recorded."""
        source = self._runs.get(handoff.source_span or "")
        target = self._runs.get(handoff.target_span or "")
        recorded = self._contents.get(handoff.span_id or "")
        received = self._given(target) if target is not None else None
        if received is None and recorded is not None and recorded.output is not None:
            received = (recorded.output, recorded.output_truncated)
        given = self._given(source) if source is not None else None
        passed = recorded.input if recorded is not None else self._said(source)
        if received is None or (given is None and passed is None):
            return None
        return Sides(
            readable(given[0]) if given else "",
            readable(passed),
            readable(received[0]),
            not received[1],
        )

    def received_at(self, handoff: Handoff) -> float:
        """Return when the target received its work: branches beside the source told it more."""
        target = self._runs.get(handoff.target_span or "")
        recorded = self._partition.events.get(handoff.span_id or "")
        ended = recorded.end if recorded is not None else handoff.start
        return max(handoff.start, ended, target.start if target is not None else 0.0)

    def later(self, handoff: Handoff) -> Sequence[Later]:
        """Return what tools were asked and models said after a handoff, in order."""
        if self._later is None:
            self._later = sorted(self._all_later(), key=lambda later: later[0])
        return [later for start, later in self._later if start >= handoff.start]

    def _all_later(self) -> Iterator[tuple[float, Later]]:
        for span_id in self._partition.owner:
            event = self._partition.events[span_id]
            content = self._contents.get(span_id)
            if content is None or event.kind not in ("llm", "tool", "retriever"):
                continue
            if event.kind == "llm":
                yield event.start, Later("said", readable(content.output))
            else:
                both = f"{readable(content.input)}\n{readable(content.output)}"
                yield event.start, Later("fetched", both)

    def _given(self, run: AgentRun) -> tuple[str, bool] | None:
        """Return what a run's first model call was given, else what the run itself was."""
        models = self._models.get(run.event.span_id)
        for span_id in [*(models or ())[:1], run.event.span_id]:
            content = self._contents.get(span_id)
            if content is not None and content.input is not None:
                return content.input, content.input_truncated
        return None

    def _said(self, run: AgentRun | None) -> str | None:
        """Return what a run returned, else its last model's words."""
        if run is None:
            return None
        models = self._models.get(run.event.span_id)
        for span_id in [*(models or ())[-1:], run.event.span_id]:
            content = self._contents.get(span_id)
            if content is not None and content.output is not None:
                return content.output
        return None

    def supports(self, entity: Entity, before: float) -> bool:
        """Whether what users or tools said before a moment has a value."""
        if self._known is None:
            self._known = _first_of_each(self._all_known())
        at = bisect_right(self._known, before, key=lambda known: known[0])
        texts = (text for _, text in self._known[max(0, at - _MOST_KNOWN) : at])
        return any(may_have(t, entity) and self.index(t).find(entity) is not None for t in texts)

    def _all_known(self) -> Iterator[tuple[float, str]]:
        """Yield what came from outside of the agents, in order of time."""
        first = self._partition.runs[:1]
        events = self._partition.events
        for span_id in events:
            content, event = self._contents.get(span_id), events[span_id]
            if content is not None and event.kind in ("tool", "retriever") and content.output:
                yield event.start, readable(content.output)
        for run in first:
            given = self._given(run)
            if given is not None:
                yield run.start, readable(given[0])

    def index(self, text: str) -> TextIndex:
        """Return a text's index, made once."""
        if text not in self._indices:
            self._indices[text] = TextIndex(text, self.extractors)
        return self._indices[text]


def _first_of_each(said: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return texts in order of time, each once: tools say the same again and again."""
    first: dict[str, float] = {}
    for moment, text in sorted(said):
        first.setdefault(text, moment)
    return [(moment, text) for text, moment in first.items()]


def sides_of(spans: Sequence[Span]) -> dict[str, Sides]:
    """Return the texts of the handoffs of whole traces, by what each handoff leads to."""
    aliases = Aliases()
    contents = contents_of(spans)
    found = {}
    for partition in repair(events_from_spans(spans), aliases):
        reader = _Reader(partition, contents)
        for handoff in handoffs_of(partition, aliases):
            sides = reader.sides(handoff)
            if sides is not None:
                found[handoff.key] = sides
    return found


def drift_to_arrow(rows: Sequence[Drift]) -> pa.Table:
    """Return drift as a table."""
    return to_arrow(rows, Drift)
