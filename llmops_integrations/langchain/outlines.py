"""What all starts of one sort of chain run have in common, worked out once.

A graph starts the same node over and over, and nearly all that its start tells is the same each
time. The first start is translated in full; the result, an :class:`Outline`, is remembered by
everything that it was made from, and later starts copy it and add what is their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from llmops_integrations.langchain import mapping, metadata

__all__ = ["MAX_OUTLINES", "Outline", "outline_of"]

#: Outlines that are remembered; all are forgotten when there are more.
MAX_OUTLINES: Final = 4096

#: Values of the metadata that an outline is made from.
_KEYED: Final = frozenset({"langgraph.node", "langgraph.triggers", "langgraph.path"})


class Outline(NamedTuple):
    """What a start becomes, but for what its own metadata says. Copy the dicts before use."""

    rule: mapping.Rule
    facts: int
    name: str
    reading: metadata.Reading
    fields: dict[str, Any]
    attributes: dict[str, str]
    #: Places of the metadata that are read each time, and the attributes they become.
    wanted: tuple[tuple[int, str], ...]
    #: Whether the agent's name lies in the namespace of each run.
    agent_varies: bool

    def fill(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """Return the fields of one run, from the values of its metadata."""
        fields = self.fields.copy()
        reading = self.reading
        metadata.add_identity(fields, reading, values)
        attributes = self.attributes
        if self.wanted:
            own = metadata.attributes_of(self.wanted, values, False)
            attributes = {**attributes, **own} if attributes else own
        elif attributes:
            attributes = attributes.copy()
        if attributes:
            fields["attributes"] = attributes
        if self.facts & mapping.NODE and reading.namespace >= 0:
            # Each try of a node is a run of its own, without a tag, in the same namespace.
            namespace = values[reading.namespace]
            fields["_retry_key"] = namespace if type(namespace) is str else None
        if self.agent_varies:
            agent = mapping.agent_of_namespace(values[reading.namespace])
            if agent:
                fields["agent"] = agent
        return fields


_outlines: Final[dict[tuple[Any, ...], Outline]] = {}


def outline_of(
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

    *values* are those of *about*, in order. *named*: its graph named a node of this name an agent.
    """
    reading = metadata.reading_of(about)
    key = _key(name, tags, reading, values, extra, (has_parent, parent_facts, named))
    found = _outlines.get(key) if key is not None else None
    if found is None:
        run_facts = mapping.facts(
            name, tags, about, extra, has_parent=has_parent, parent_facts=parent_facts
        )
        if named and run_facts & mapping.NODE:
            run_facts |= mapping.NAMED
        found = _make(name or "chain", tags, about, reading, values, run_facts)
        if key is not None:
            if len(_outlines) >= MAX_OUTLINES:
                _outlines.clear()
            _outlines[key] = found
    return found


def _key(
    name: str | None,
    tags: Sequence[str],
    reading: metadata.Reading,
    values: tuple[Any, ...],
    extra: Mapping[str, Any],
    above: tuple[bool, int, bool],
) -> tuple[Any, ...] | None:
    """Return everything that an outline depends on; None if some of it is no plain value.

    Nothing in the key is an object of the user's: looking it up would run its ``__hash__``.
    """
    if reading.text is None:
        return None
    tags_text = ""
    if tags:
        try:
            tags_text = "\0".join(tags)  # plain, whatever sorts of str they are
        except TypeError:
            return None
        if tags_text.count("\0") >= len(tags):  # a tag holds a NUL: two lists may look alike
            return None
    run_type = extra.get("run_type", False)  # absent and None are told apart
    if run_type is not None and run_type is not False and type(run_type) is not str:
        return None
    ends_in_true = False
    keyed = []
    for place in reading.decisive:
        value = values[place]
        kind = type(value)
        if kind is tuple:
            if not metadata.is_simple(value):
                return None
            ends_in_true = ends_in_true or (bool(value) and value[-1] is True)
        elif kind is not str and value is not None:
            return None
        keyed.append(value)
    return (name, reading.text, tags_text, len(tags), run_type, ends_in_true, above, *keyed)


def _make(
    name: str,
    tags: Sequence[str],
    about: Mapping[str, Any],
    reading: metadata.Reading,
    values: tuple[Any, ...],
    run_facts: int,
) -> Outline:
    rule = mapping.rule_for(run_facts)
    fields = metadata.tag_fields(tags)
    fields["kind"] = rule.kind
    fields["name"] = name
    fields["framework"] = metadata.framework_of(about)
    varies = reading.namespace >= 0 and mapping.is_agent_in_namespace(rule, about, run_facts)
    agent = None if varies else mapping.agent_name(rule, name, about, run_facts)
    if agent:
        fields["agent"] = agent
    keyed = [pair for pair in reading.attributes if pair[1] in _KEYED]
    wanted = tuple(pair for pair in reading.attributes if pair[1] not in _KEYED)
    attributes = metadata.attributes_of(keyed, values, rule.agent == "node")
    return Outline(rule, run_facts, name, reading, fields, attributes, wanted, varies)
