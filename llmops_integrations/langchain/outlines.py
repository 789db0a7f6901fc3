"""What all starts of one sort of chain run have in common, worked out once.

A graph starts the same node over and over, and nearly all that its start tells is the same each
time. The first start is translated in full; the result, an :class:`Outline`, is remembered by
everything that it was made from, and later starts copy it and add what is their own.

Each microsecond here is paid by the user's program at each step of a graph, and code that runs once
a step runs on cold caches: hence few calls, and look-ups that C does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_
from typing import Any, Final

import msgspec

from llmops_integrations.langchain import mapping
from llmops_integrations.langchain.metadata import (
    Reading,
    add_session,
    attributes_of,
    framework_of,
    is_simple,
    reading_of,
    tag_fields,
)
from llmops_integrations.langchain.reading import MAX_TEXT

__all__ = ["MAX_ALIKE", "MAX_OUTLINES", "Outline", "Outlines"]

#: Outlines that are remembered; all are forgotten when there are more.
MAX_OUTLINES: Final = 4096

#: And of those, how many that share name, tags and parent but differ in what else decides.
MAX_ALIKE: Final = 8

_ABSENT: Final = object()
_NAMESPACE: Final = "langgraph.checkpoint_ns"
#: Attributes whose values an outline is made from, as they are the same for all runs of a node.
_KEYED: Final = frozenset({"langgraph.node", "langgraph.triggers", "langgraph.path"})


class Outline(msgspec.Struct, frozen=True):
    """What a start becomes, but for what its own metadata says."""

    kind: str | None
    name: str
    facts: int
    promotable: bool
    fields: dict[str, Any]
    attributes: dict[str, str]
    reading: Reading
    #: Places of the metadata that are read each time, and the attributes they become.
    wanted: tuple[tuple[int, str], ...]
    #: Where the namespace of the run lies, which no two runs share; -1 for nowhere.
    namespace: int
    #: What a namespace begins with while it names the agent of ``fields``; None if none names it.
    agent_prefix: str | None
    #: What it was made from, beside the key that it is remembered by.
    keys: tuple[str, ...]
    decided_by: tuple[tuple[int, Any], ...]
    run_type: Any

    def fill(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """Return the fields of one run, from the values of its metadata."""
        fields = self.fields.copy()
        reading = self.reading
        if reading.step >= 0 and type(values[reading.step]) is int:
            fields["step"] = values[reading.step]
        if reading.has_session:
            add_session(fields, reading, values)
        attributes = self.attributes
        namespace = values[self.namespace] if self.namespace >= 0 else None
        if type(namespace) is str:
            attributes = {**attributes, _NAMESPACE: namespace[:MAX_TEXT]}
            if self.facts & mapping.NODE:
                # Each try of a node is a run of its own, without a tag, in the same namespace.
                fields["_retry_key"] = namespace
            prefix = self.agent_prefix
            if prefix is not None and not namespace.startswith(prefix):
                fields["agent"] = mapping.agent_of_namespace(namespace) or None
        elif attributes:
            attributes = attributes.copy()
        if self.wanted:
            attributes = {**attributes, **attributes_of(self.wanted, values)}
        if attributes:
            fields["attributes"] = attributes
        return fields


class Outlines:
    """The outlines of one handler. Safe from any thread: each step is one operation of a dict."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[Outline, ...]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(
        self,
        name: str | None,
        tags: Sequence[str],
        about: Mapping[str, Any],
        values: tuple[Any, ...],
        extra: Mapping[str, Any],
        has_parent: bool,
        parent_facts: int,
        named: bool,
    ) -> Outline:
        """Return the outline of a chain run; the arguments are those of :func:`mapping.facts`.

        *values* are those of *about*, in order. *named*: a graph named this node an agent.
        """
        run_type = extra.get("run_type", _ABSENT)
        try:
            joined = "\0".join(tags)  # plain, whatever sorts of str they are
        except TypeError:
            joined = None
        # Nothing in the key is an object of the user's: looking it up would run its __hash__.
        key = (name, joined, len(tags), parent_facts, has_parent, named)
        known = self._known.get(key, ())
        for found in known:
            if (
                found.run_type is run_type
                and len(values) == len(found.keys)
                and (all(map(is_, about, found.keys)) or reading_of(about) is found.reading)
                and _decide_alike(values, found.decided_by)
            ):
                return found
        made = _make(name, tags, about, values, extra, has_parent, parent_facts, named)
        if (
            joined is not None
            and joined.count("\0") < max(len(tags), 1)
            and _is_kept(made, run_type)
        ):
            if len(self._known) >= MAX_OUTLINES:
                self._known.clear()
            self._known[key] = (made, *known[: MAX_ALIKE - 1])
        return made


def _decide_alike(values: tuple[Any, ...], decided_by: tuple[tuple[int, Any], ...]) -> bool:
    """Whether metadata has the values that an outline was made from, types included."""
    for place, expected in decided_by:
        value = values[place]
        if (
            value is not expected
            # LangGraph makes its tuples anew, of the same parts.
            and not (
                type(value) is type(expected) is tuple
                and len(value) == len(expected)
                and all(map(is_, value, expected))
            )
            and not _is_same(value, expected)
        ):
            return False
    return True


def _is_same(value: Any, expected: Any) -> bool:
    """Compare with a plain value; nothing that is no plain value itself is asked."""
    kind = type(value)
    if kind is not type(expected):
        return False
    if kind is tuple:
        return len(value) == len(expected) and all(map(_is_same, value, expected))
    return value is expected or ((kind is str or kind is int or kind is bool) and value == expected)


def _is_kept(outline: Outline, run_type: object) -> bool:
    """Whether an outline can be told by plain values, so that it may be remembered."""
    if outline.reading.text is None or not (
        run_type is None or run_type is _ABSENT or type(run_type) is str
    ):
        return False
    return all(
        value is None or type(value) is str or (type(value) is tuple and is_simple(value))
        for _, value in outline.decided_by
    )


def _make(
    name: str | None,
    tags: Sequence[str],
    about: Mapping[str, Any],
    values: tuple[Any, ...],
    extra: Mapping[str, Any],
    has_parent: bool,
    parent_facts: int,
    named: bool,
) -> Outline:
    found = mapping.facts(
        name, tags, about, extra, has_parent=has_parent, parent_facts=parent_facts
    )
    if named and found & mapping.NODE:
        found |= mapping.NAMED
    rule = mapping.rule_for(found)
    shown = name or "chain"
    fields = tag_fields(tags)
    fields.update(kind=rule.kind, name=shown, framework=framework_of(about))
    agent = mapping.agent_name(rule, shown, about, found)
    if agent:
        fields["agent"] = agent
    varies = mapping.is_agent_in_namespace(rule, about, found)
    reading = reading_of(about)
    keyed = [pair for pair in reading.attributes if pair[1] in _KEYED]
    own = [pair for pair in reading.attributes if pair[1] not in _KEYED]
    return Outline(
        kind=rule.kind,
        name=shown,
        facts=found,
        promotable=rule.promotable,
        fields=fields,
        attributes=attributes_of(keyed, values, of_node=rule.agent == "node"),
        reading=reading,
        wanted=tuple(pair for pair in own if pair[1] != _NAMESPACE),
        namespace=reading.namespace,
        agent_prefix=f"{agent}:" if varies else None,
        keys=tuple(about),
        decided_by=tuple((place, values[place]) for place in reading.decisive),
        run_type=extra.get("run_type", _ABSENT),
    )
