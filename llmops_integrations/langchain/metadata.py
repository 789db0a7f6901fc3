"""From a run's tags and metadata to plain span fields. Pure.

LangChain makes the metadata of each run anew, but with the same few sets of keys. What the keys of
one set mean is worked out once (:func:`reading_of`); of each run only the values are read, by their
place, so that no key of the user's is hashed or compared here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from llmops_integrations.langchain.reading import MAX_TEXT, plain

__all__ = [
    "MAX_ATTRIBUTES",
    "Reading",
    "add_session",
    "attributes_of",
    "framework_of",
    "identity_fields",
    "is_simple",
    "reading_of",
    "tag_fields",
    "text_of_tuple",
]

MAX_ATTRIBUTES: Final = 32
_MAX_READINGS: Final = 1024
#: Keys of one set, and their characters, that are remembered: beyond, they are a request's own (ids,
#: say), and come once. Of keys beyond the first ones only what the frameworks tell is read.
_MAX_KEYS: Final = 64
_MAX_KEYS_TEXT: Final = 4_000
_MAX_DEPTH: Final = 20  # of the path of nested functional tasks

#: Tags and metadata that the frameworks set for themselves.
_INNER_TAGS: Final = ("seq:step:", "graph:step:", "map:key:", "langsmith:", "retry:attempt:")
_BRANCH_TAGS: Final = ("condition:", "branch:")
_INNER_METADATA: Final = ("langgraph_", "ls_", "lc_", "__", "checkpoint_")
_COLUMNS: Final = frozenset({"session_id", "thread_id", "user_id"})
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "langgraph_checkpoint_ns": "langgraph.checkpoint_ns",
    "langgraph_triggers": "langgraph.triggers",
    "langgraph_path": "langgraph.path",
    "langgraph_node": "langgraph.node",
    "checkpoint_id": "langgraph.checkpoint_id",
    "lc_source": "langchain.source",
    "__handoff_destination": "langgraph.handoff_destination",
}
_DECISIVE: Final = frozenset(
    {
        "ls_integration",
        "lc_agent_name",
        "langgraph_node",
        "langgraph_triggers",
        "langgraph_path",
    }
)
#: Told of a node alone: everything inside a node inherits its metadata.
_NODE_ATTRIBUTES: Final = frozenset({"langgraph.triggers", "langgraph.path"})


class Reading(msgspec.Struct, frozen=True):
    """Where the values lie that are read from metadata with one set of keys; -1 for nowhere."""

    text: str | None  # the keys, joined; None for keys that are not remembered
    size: int
    session: int
    thread: int
    user: int
    step: int
    namespace: int
    has_session: bool  # whether a session, a thread or a user is told
    decisive: tuple[int, ...]  # what decides which span a chain run becomes
    attributes: tuple[tuple[int, str], ...]


_readings: Final[dict[str, Reading]] = {}


def reading_of(metadata: Mapping[str, Any]) -> Reading:
    """Return how metadata with these keys is read."""
    if len(metadata) > _MAX_KEYS:
        return _make_reading_once(metadata)
    try:
        text = "\0".join(
            metadata
        )  # takes any str, calls none of its methods, and gives a plain one
    except TypeError:
        return _make_reading_once(metadata)
    found = _readings.get(text)
    if found is not None and found.size == len(metadata):
        return found
    keys = text.split("\0") if metadata else []
    if len(keys) != len(metadata) or len(text) > _MAX_KEYS_TEXT:  # a key holds a NUL, or is huge
        return _make_reading_once(metadata)
    found = _make_reading(text, keys)
    if len(_readings) >= _MAX_READINGS:
        _readings.clear()
    _readings[text] = found
    return found


def _make_reading_once(metadata: Mapping[str, Any]) -> Reading:
    """Return how metadata is read whose keys are not remembered."""
    return _make_reading(None, [key if type(key) is str else "" for key in metadata])


def _make_reading(text: str | None, keys: Sequence[str]) -> Reading:
    at = {key: place for place, key in enumerate(keys)}
    names = [(place, _attribute_name(key)) for place, key in enumerate(keys[:_MAX_KEYS])]
    names += [(at[key], name) for key, name in _ATTRIBUTES.items() if at.get(key, 0) >= _MAX_KEYS]
    return Reading(
        text=text,
        size=len(keys),
        session=at.get("session_id", -1),
        thread=at.get("thread_id", -1),
        user=at.get("user_id", -1),
        step=at.get("langgraph_step", -1),
        namespace=at.get("langgraph_checkpoint_ns", -1),
        has_session=not _COLUMNS.isdisjoint(at),
        decisive=tuple(place for place, key in enumerate(keys) if key in _DECISIVE),
        attributes=tuple((place, name) for place, name in names if name is not None),
    )


def _attribute_name(key: str) -> str | None:
    """Return the attribute that a key of the metadata becomes; None if it becomes none."""
    name = _ATTRIBUTES.get(key)
    if name is None and key and key not in _COLUMNS and not key.startswith(_INNER_METADATA):
        return key[:MAX_TEXT]
    return name


def framework_of(metadata: Mapping[str, Any]) -> str:
    """Return ``langgraph`` for a run of a graph or inside one, else ``langchain``."""
    if "langgraph_node" in metadata:
        return "langgraph"
    return (
        "langgraph"
        if plain(metadata.get("ls_integration")) in ("langgraph", "langchain_create_agent")
        else "langchain"
    )


def identity_fields(
    tags: Sequence[str] | None, metadata: Mapping[str, Any], *, of_node: bool = False
) -> dict[str, Any]:
    """Return session, thread, user, tags, attempt, step and attributes of a run.

    What only tells about a graph's node (its triggers and path) is left out below it: everything
    inside a node inherits its metadata.
    """
    fields = tag_fields(tags) if tags else {}
    if not metadata:
        return fields
    reading = reading_of(metadata)
    values = tuple(metadata.values())
    if reading.has_session:
        add_session(fields, reading, values)
    if reading.step >= 0 and type(values[reading.step]) is int:
        fields["step"] = values[reading.step]
    attributes = attributes_of(reading.attributes, values, of_node=of_node)
    if attributes:
        fields["attributes"] = attributes
    return fields


def add_session(fields: dict[str, Any], reading: Reading, values: tuple[Any, ...]) -> None:
    """Add session, thread and user of a run to its fields."""
    thread = plain(values[reading.thread]) if reading.thread >= 0 else None
    session = plain(values[reading.session]) if reading.session >= 0 else None
    user = plain(values[reading.user]) if reading.user >= 0 else None
    session = session or thread
    if session:
        fields["session_id"] = session
    if thread:
        fields["thread_id"] = thread
    if user:
        fields["user_id"] = user


def tag_fields(tags: Sequence[str]) -> dict[str, Any]:
    """Return the user's own tags, and the number of the attempt that a tag tells."""
    fields: dict[str, Any] = {}
    own = []
    for tag in tags:
        if type(tag) is not str:
            continue
        if not tag.startswith(_INNER_TAGS):
            prefix, _, number = tag.partition(":")
            if not (number.isdigit() and f"{prefix}:" in _BRANCH_TAGS):
                own.append(tag[:MAX_TEXT])
        elif tag.startswith("retry:attempt:"):
            number = tag.rpartition(":")[2]
            if number.isdigit():
                fields["attempt"] = int(number)
    if own:
        fields["tags"] = tuple(own)
    return fields


def attributes_of(
    wanted: Sequence[tuple[int, str]], values: tuple[Any, ...], *, of_node: bool = False
) -> dict[str, str]:
    """Return the attributes that the wanted values make; what is no scalar makes none."""
    found: dict[str, str] = {}
    for place, name in wanted:
        value = values[place]
        kind = type(value)
        shown: str | None
        if kind is str:
            shown = value if len(value) <= MAX_TEXT else value[:MAX_TEXT]
        elif kind is tuple:
            node_only = of_node and name in _NODE_ATTRIBUTES and is_simple(value)
            shown = text_of_tuple(value) if node_only else None
        else:
            shown = None if value is None else plain(value)
        if shown is not None:
            found[name] = shown
            if len(found) == MAX_ATTRIBUTES:
                break
    return found


# Cached, as a graph has few nodes and each starts often: two encodings cost more than all the rest.
@functools.lru_cache(maxsize=1024)
def text_of_tuple(value: tuple[Any, ...]) -> str:
    """Return a simple tuple as JSON text."""
    return json.dumps(value, ensure_ascii=False)[:MAX_TEXT]


def is_simple(value: tuple[Any, ...], depth: int = 0) -> bool:
    """Whether a tuple holds scalars and such tuples alone: nothing of the user's is hashed."""
    if depth > _MAX_DEPTH or len(value) > MAX_ATTRIBUTES:
        return False
    for item in value:
        kind = type(item)
        if kind is str or kind is int or kind is bool:
            continue
        if kind is not tuple or not is_simple(item, depth + 1):
            return False
    return True
